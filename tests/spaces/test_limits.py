"""Limits on sequences: all that they leave, and no other, by enumeration; and what they refuse."""

import copy
import itertools
import pickle
import re

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from braidkit.exceptions import InvalidParameterError
from braidkit.spaces import Limits, SequenceSpace, space_from_config

LENGTH = 5
WORDS = ["".join(word) for word in itertools.product("ACGT", repeat=LENGTH)]
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def meets(word, template, limits):
    """Whether a word meets a template and limits, as plainly as can be said."""
    if any(held not in ("_", letter) for held, letter in zip(template, word, strict=True)):
        return False
    if limits.parent is not None:
        n = sum(a != b for a, b in zip(word, limits.parent, strict=True))
        least, most = (0, limits.mutations) if isinstance(limits.mutations, int) else limits.mutations
        if not least <= n <= most:
            return False
    if limits.frame is not None:
        first, last = limits.frame
        codons = [word[i : i + 3] for i in range(first - 1, last - 2, 3)]
        if {"TAA", "TAG", "TGA"} & set(codons):
            return False
    sites = [*limits.sites, *(site.translate(COMPLEMENT)[::-1] for site in limits.sites)]
    run = limits.max_homopolymer
    longer = [] if run is None else [letter * (run + 1) for letter in "ACGT"]
    return not any(text in word for text in [*limits.forbidden, *sites, *longer])


words = st.lists(st.text("ACGT", min_size=1, max_size=4), max_size=2)
parents = st.text("ACGT", min_size=LENGTH, max_size=LENGTH)


@st.composite
def restrictions(draw):
    parent = draw(st.none() | parents)
    mutations = None if parent is None else tuple(sorted(draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))))
    holes = draw(st.lists(st.booleans(), min_size=LENGTH, max_size=LENGTH))
    letters = parent or draw(parents)
    template = "".join(letter if held else "_" for letter, held in zip(letters, holes, strict=True))
    hypothesis.assume("_" in template)
    run, frame = draw(st.none() | st.integers(1, 4)), draw(st.none() | st.sampled_from([(1, 5), (2, 4), (3, 5)]))
    return template, Limits(parent, mutations, draw(words), draw(words), run, frame)


@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(restrictions(), st.integers(0, 100))
def test_designs_are_those_that_meet_the_limits(case, seed):
    template, limits = case
    expected = [word for word in WORDS if meets(word, template, limits)]
    if not expected:
        with pytest.raises(InvalidParameterError, match="no sequence|by any sequence"):
            SequenceSpace("DNA", template=template, limits=limits)
        return
    space = SequenceSpace("DNA", template=template, limits=limits)
    assert space.n_designs == len(expected)
    numbers = torch.arange(len(expected))
    tokens = space.automaton.design(numbers)
    assert space.decode(torch.nn.functional.one_hot(tokens, 4).float()) == expected
    assert torch.equal(space.automaton.number(tokens), numbers)
    # Any point becomes the likeliest of them.
    x = torch.rand(4, *space.shape, generator=torch.Generator().manual_seed(seed))
    every = space.unrestricted().encode(expected)
    best = torch.einsum("nlk,slk->ns", x.log(), every).argmax(dim=1)
    assert space.decode(x) == [expected[i] for i in best.tolist()] == space.decode(space.discretise(x))


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(restrictions(), st.integers(0, 100), st.lists(st.integers(0, 4), max_size=4, unique=True))
def test_chances_are_those_of_independent_letters(case, seed, known):
    template, limits = case
    fitting = [word for word in WORDS if meets(word, template, limits)]
    hypothesis.assume(fitting)
    space = SequenceSpace("DNA", template=template, limits=limits)
    every = space.unrestricted().encode(fitting)
    expected = torch.rand(space.shape, generator=torch.Generator().manual_seed(seed)).double() + 0.05
    held = [i for i, letter in enumerate(template) if letter != "_"]
    state = torch.zeros(1, *space.shape)
    state[0, known + held] = every[seed % len(every), known + held]
    chances = space.automaton.log_chances(state, expected).exp()[0]
    agrees = (every * (1 - state) * state.sum(dim=2, keepdim=True)).sum(dim=(1, 2)) == 0
    for i in set(range(LENGTH)) - set(known) - set(held):
        others = [j for j in range(LENGTH) if j != i and state[0, j].sum() == 0]
        weight = (every.double() * expected).sum(dim=2)[:, others].prod(dim=1) * agrees
        exact = torch.einsum("s,sk->k", weight, every[:, i].double())
        torch.testing.assert_close(chances[i], exact / exact.max())
        assert torch.equal(chances[i] == 0, exact == 0)


def test_limits_survive_configs_copies_and_pickles():
    limits = Limits("ACGTA", (1, 3), ["gt"], ["GATC"], 2, 2)
    space = SequenceSpace("DNA", template="A____", limits=limits)
    assert space.limits == Limits("ACGTA", (1, 3), ("GT",), ("GATC",), 2, (2, 5))
    for other in (space_from_config(space.to_config()), copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert other == space and other.n_designs == space.n_designs
    assert space != space.unrestricted() and space.makes_same(SequenceSpace("DNA", 5))


def test_limits_that_leave_everything_are_none():
    space = SequenceSpace("DNA", 5, limits=Limits("ACGTA", 5, ["ACGTAC"]))
    assert not space.limited and space.n_designs == 1024 and space.default_chain == "simplex"
    held = SequenceSpace("DNA", template="AC_TA", limits=Limits("ACGTA", 1))
    assert not held.limited and held.n_varying == 1


def test_many_mutations_to_unlikely_letters_are_not_lost_to_rounding():
    length = 150
    space = SequenceSpace("protein", length, limits=Limits("A" * length, (60, 80), ["AA"]))
    expected = torch.full(space.shape, 1e-12)
    expected[:, 0] = 1
    chances = space.automaton.log_chances(torch.zeros(1, *space.shape), expected)
    assert chances.isfinite().all()


@pytest.mark.parametrize(
    ("template", "limits", "message"),
    [
        (None, {"parent": "ACG", "mutations": 1}, "parent has 3 letters, but designs are sequences of 6 letters"),
        (None, {"parent": "ACGNAA", "mutations": 1}, "parent has 'N' at position 4"),
        (None, {"parent": "ACGTAA"}, "parent needs mutations beside it"),
        (None, {"mutations": 2}, "mutations needs parent beside it"),
        (None, {"parent": "ACGTAA", "mutations": (3, 2)}, r"mutations must be .* from 0 to 6; got \(3, 2\)"),
        (None, {"forbidden": "GAATTC"}, r"forbidden must be a list of words, such as \[\"GAATTC\"\]; got 'GAATTC'"),
        (None, {"forbidden": ["GAN"]}, "forbidden has 'GAN', which is not written in ACGT"),
        (None, {"max_homopolymer": 0}, "max_homopolymer must be a whole number of at least 1; got 0"),
        (None, {"frame": 5}, "frame is for at least three positions of DNA or RNA; 5 has no codon"),
        ("T_____", {"parent": "ACGTAA", "mutations": 1}, "parent has 'A' at position 1, where the template, or every"),
        (
            "_GAATT",
            {"forbidden": ["ATG", "AATT"]},
            r"the held letters of the template \(_GAATT\) and forbidden='AATT' c",
        ),
        ("_AAAA_", {"max_homopolymer": 3}, r"\(_AAAA_\) and max_homopolymer=3 contradict each other"),
        ("TAA___", {"frame": 1}, r"\(TAA___\) and frame=\(1, 6\) contradict each other"),
        ("ACGT__", {"parent": "ACGTAA", "mutations": (3, 4)}, r"\(ACGT__\) and mutations=3-4 of the parent contradict"),
        (
            None,
            {"parent": "AAAAAA", "mutations": 1, "forbidden": ["AA"]},
            "mutations=0-1 of the parent and forbidden='A",
        ),
        (None, {"forbidden": ["A", "C", "G", "T"]}, "no sequence of 6 letters meets all of forbidden='A', "),
        (None, {"max_homopolymer": 2, "forbidden": ["A", "C", "GT", "TG"]}, "meets all of forbidden='A'"),
    ],
)
def test_limits_that_no_sequence_meets_are_refused_with_the_pair_that_contradicts(template, limits, message):
    with pytest.raises(InvalidParameterError, match=message):
        SequenceSpace("DNA", 6, template, Limits(**limits))


def test_what_is_constant_in_the_data_must_not_contradict_the_parent():
    space = SequenceSpace("DNA", 4, limits=Limits("ACGT", 2))
    rows = ["ACGA", "ACTA", "CCGA"]
    message = "parent has 'T' at position 4, where the template, or every row, has 'A'"
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        space.holding_constants(space.points(rows))


def test_points_that_break_a_limit_are_counted_by_its_name():
    space = SequenceSpace("DNA", 4, limits=Limits("ACGT", 2, ["AC"], ["GA"]))
    x = space.encode(["ACGT", "AGGT", "TTTT", "TCAA"])
    assert space.n_moved(x) == {"mutations": 2, "forbidden": 1, "sites": 1, "any": 3}
