"""Sequences of several lengths: read, written and limited alike, with padding that no string shows."""

import itertools
import pickle

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from braidkit.exceptions import IncompatibleModelError, InvalidDesignError, InvalidParameterError
from braidkit.spaces import Limits, SequenceSpace, infer_space, space_from_config

SIDES = pytest.mark.parametrize("side", ["right", "left"])
WORDS = ["".join(word) for n in (2, 3, 4) for word in itertools.product("ACG", repeat=n)]


@hypothesis.given(st.lists(st.text("ACGT", min_size=2, max_size=7), min_size=1, max_size=5), st.booleans())
def test_strings_come_back_as_they_were(rows, left):
    space = SequenceSpace("DNA", (2, 7), padding="left" if left else "right")
    x = space.encode([row.lower() for row in rows])
    assert x.shape == (len(rows), 7, 5) and space.strings(rows) == space.decode(x) == rows
    tokens = x.argmax(dim=2).numpy()
    for row, own in zip(rows, tokens, strict=True):
        shown = own[7 - len(row) :] if left else own[: len(row)]
        assert (shown < 4).all() and (own == 4).sum() == 7 - len(row)
    for kind in ("tokens", "one_hot", "flat"):
        assert space.strings(space.decode(x, kind)) == rows


@SIDES
def test_designs_are_all_sequences_of_the_lengths_and_points_the_likeliest_of_them(side):
    space = SequenceSpace("ACG", (2, 4), padding=side)
    assert space.n_designs == len(WORDS) and space.limited and space.default_chain == "masked"
    tokens = space.automaton.design(torch.arange(len(WORDS)))
    assert set(space.letters.write(tokens.numpy())) == set(WORDS)
    x = torch.rand(20, *space.shape, generator=torch.Generator().manual_seed(0))
    best = torch.einsum("nlk,slk->ns", x.log(), space.encode(WORDS)).argmax(dim=1)
    assert space.decode(x) == [WORDS[i] for i in best.tolist()] == space.decode(space.discretise(x))
    assert space.n_moved(x)["padding"] == space.n_moved(x)["any"] > 0


@SIDES
def test_limits_hold_at_every_length(side):
    space = SequenceSpace("ACG", (2, 4), padding=side, limits=Limits(forbidden=["AC", "G"], max_homopolymer=2))
    fits = {word for word in WORDS if not any(text in word for text in ("AC", "G", "AAA", "CCC"))}
    tokens = space.automaton.design(torch.arange(space.n_designs))
    assert space.n_designs == len(fits) and set(space.letters.write(tokens.numpy())) == fits


def test_letters_at_the_end_are_aligned_on_the_right_if_padding_is_on_the_left():
    left = SequenceSpace("DNA", (2, 3), template="__G", padding="left")
    assert left.decode(torch.ones(1, *left.shape))[0].endswith("G")
    assert left.holding_constants(left.points(["AG", "CCG"])).template == "__G"
    assert SequenceSpace("DNA", (2, 4)).holding_constants(SequenceSpace("DNA", (2, 4)).points(["AG", "ACC"])).held


def test_a_space_of_several_lengths_survives_configs_and_pickles():
    space = SequenceSpace("DNA", (3, 9), padding="left", limits=Limits(sites=["GATC"]))
    for other in (space_from_config(space.to_config()), pickle.loads(pickle.dumps(space))):
        assert other == space and other.shape == (9, 5)
    assert space != SequenceSpace("DNA", (3, 9)) and SequenceSpace("DNA", (9, 9)) == SequenceSpace("DNA", 9)


def test_the_space_of_strings_has_all_their_lengths():
    assert infer_space(["ACGT", "AC"]) == SequenceSpace("DNA", (2, 4))
    assert infer_space(["ACGT", "ACAA"]) == SequenceSpace("DNA", 4)


def test_a_row_far_longer_than_all_others_is_named_before_any_work():
    rows = ["ACGTACGT", "ACGT"] * 10
    with pytest.raises(InvalidDesignError, match=r"row 20 has 41 letters, but nearly all others at most 8.*\(4, 41\)"):
        infer_space([*rows, "A" * 41])
    for usual in ([*rows, "A" * 40], rows[:8] + ["A" * 41], rows + ["A" * 41] * 5):
        assert infer_space(usual).length == len(usual[-1])


SPACE = SequenceSpace("DNA", (2, 4))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SequenceSpace("DNA", (4, 2)), InvalidParameterError, r"shortest and the longest .* got \(4, 2\)"),
        (
            lambda: SequenceSpace("DNA", (2, 4), padding="end"),
            InvalidParameterError,
            'padding must be "right" or "left"',
        ),
        (
            lambda: SPACE.encode(["ACGT", "A"]),
            InvalidDesignError,
            "row 1 has 1 letters, but the space has lengths 2 to 4",
        ),
        (
            lambda: SPACE.encode(["ACGT", "AN"]),
            InvalidDesignError,
            "row 1: 'N' at position 2 is not in the alphabet ACGT",
        ),
        (lambda: SPACE.encode(["AC\0G"]), InvalidDesignError, "row 0: .* at position 3 is not in the alphabet ACGT"),
        (
            lambda: SPACE.encode(np.array([[0, 4, 1, 4]])),
            InvalidDesignError,
            "row 0 has 2 letters, or padding .* between",
        ),
        (
            lambda: SequenceSpace("DNA", (2, 4), limits=Limits("ACGT", 1)),
            InvalidParameterError,
            "parent is for designs of one length, and these have 2 to 4 letters",
        ),
        (
            lambda: SequenceSpace("DNA", (3, 4), padding="left", limits=Limits(frame=1)),
            InvalidParameterError,
            "frame counts from the first letter",
        ),
        (
            lambda: SPACE.check_same_designs(np.array(["ACGTA", "ACG"], dtype=object)),
            IncompatibleModelError,
            "pretrained makes 2 to 4-letter DNA, but X is 3 to 5-letter DNA",
        ),
    ],
)
def test_what_is_of_no_length_or_padded_elsewhere_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
