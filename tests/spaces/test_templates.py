"""Templates: what they hold is in every design, without gradient, and rows are read as they are."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braidkit.exceptions import IncompatibleModelError, InvalidDesignError, InvalidParameterError
from braidkit.spaces import ImageSpace, SequenceSpace, VectorSpace, space_from_config


@st.composite
def templates(draw):
    space = SequenceSpace(draw(st.sampled_from(["DNA", "protein"])), draw(st.integers(2, 8)))
    letters = st.text("_" + space.alphabet, min_size=space.length - 1, max_size=space.length - 1)
    return space.with_template("_" + draw(letters))


@given(templates(), st.integers(0, 100))
def test_designs_have_the_held_letters_and_the_others_of_the_point(space, seed):
    x = torch.rand(3, *space.shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    free = [letter == "_" for letter in space.template]
    plain = space.with_template(None).decode(x)
    expected = [
        "".join(own if is_free else held for own, held, is_free in zip(row, space.template, free, strict=True))
        for row in plain
    ]
    assert space.decode(x) == expected == space.decode(space.discretise(x))
    space.discretise(x).sum().backward()
    assert (x.grad.abs().sum(dim=(0, 2)) > 0).tolist() == free
    assert space.n_free == sum(free) * (space.n_letters - 1)


@given(templates())
def test_a_template_survives_configs_copies_and_pickles(space):
    space.discretise(torch.rand(1, *space.shape))
    for other in (space_from_config(space.to_config()), copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert other == space and other.template == space.template
    assert space != space.with_template(None) and space.makes_same(space.with_template(None))


def test_rows_are_read_as_they_are():
    space = SequenceSpace("DNA", template="AC__")
    assert space.strings(["TTTT", "acgt"]) == ["TTTT", "ACGT"]
    assert torch.equal(space.encode(["TTTT"]), SequenceSpace("DNA", 4).encode(["TTTT"]))


@given(st.lists(st.text("ACGT", min_size=5, max_size=5), min_size=1, max_size=6))
def test_constant_positions_are_those_that_are_the_same_in_all_rows(rows):
    space = SequenceSpace("DNA", 5)
    same = [len(set(column)) == 1 for column in zip(*rows, strict=True)]
    if all(same):
        with pytest.raises(InvalidDesignError, match="are the same sequence"):
            space.holding_constants(space.points(rows))
        return
    held = space.holding_constants(space.points(rows)).template
    assert (held or "_____") == "".join(letter if s else "_" for letter, s in zip(rows[0], same, strict=True))


def test_held_positions_in_words():
    assert SequenceSpace("DNA", template="AC__GT_A").held == "positions 1-2, 5-6, 8"
    assert SequenceSpace("DNA", 4).held == "" and VectorSpace(2, template=[None, None]).held == ""
    assert VectorSpace(4, template=[1.0, None, 2.0, 3.0]).held == "columns 0, 2-3 (from 0)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SequenceSpace("DNA", 4, "AC_"), "template must be a string of length 4, a letter or '_'"),
        (lambda: SequenceSpace("DNA", 4, "ACXT"), "template has 'X' at position 3, which is not in the alphabet ACGT"),
        (lambda: SequenceSpace("DNA", 4, "ACGT"), "template holds every position: leave at least one free"),
        (lambda: SequenceSpace("DNA", 4, 5), "template must be a string"),
        (lambda: SequenceSpace("AC_", 3, "A__"), "which is a letter here"),
        (lambda: VectorSpace(2, template=[1.0]), "template must have n_features = 2 entries"),
        (lambda: VectorSpace(2, template=[1.0, 2.0]), "template holds every column"),
        (lambda: VectorSpace(2, template=[np.inf, None]), "each a finite number or None"),
    ],
)
def test_impossible_templates_are_refused(make, message):
    with pytest.raises(InvalidParameterError, match=message):
        make()


@given(st.integers(0, 100), st.floats(-1e6, 1e6))
def test_a_held_column_has_its_value_to_the_last_bit(seed, value):
    space = VectorSpace(3, loc=[1.0, 2.0, 3.0], scale=[0.3, 7.0, 1e-3], template=[None, value, None])
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    designs = space.decode(space.discretise(x))
    assert (designs[:, 1] == value).all()
    assert np.array_equal(designs[:, [0, 2]], space.with_template(None).decode(x)[:, [0, 2]])
    space.discretise(x).sum().backward()
    assert x.grad[0].tolist() == [1.0, 0.0, 1.0]


def test_points_of_other_scales_are_converted():
    X = np.random.default_rng(0).normal(3, 10, size=(20, 3))
    one, other = VectorSpace.from_data(X), VectorSpace(3, [1.0, 2.0, 3.0], [2.0, 1.0, 0.5])
    assert torch.allclose(other.from_points_of(one, one.encode(X)), other.encode(X), atol=1e-4)
    with pytest.raises(IncompatibleModelError, match="are not designs of"):
        VectorSpace(2).from_points_of(one, one.encode(X))


@pytest.mark.parametrize("scale", [1e-200, 1e-13, 1.0, 1e13, 1e200])
def test_small_and_large_columns_are_not_taken_for_constant(scale):
    X = np.random.default_rng(0).normal(size=(50, 2)) * [scale, 1.0]
    space = VectorSpace.from_data(X)
    assert np.allclose(space.encode(X).numpy().std(axis=0), 1, atol=1e-4)
    assert space.holding_constants(space.points(X)).template is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SequenceSpace("DNA"), r"got None: SequenceSpace\(.DNA., length=50"),
        (lambda: SequenceSpace(5, 3), "alphabet must be DNA, RNA, protein or at least two"),
        (lambda: SequenceSpace("DNA", True), "length must be a whole number"),
        (lambda: VectorSpace(0), "n_features must be a whole number of at least 1; got 0"),
        (lambda: VectorSpace(-1), "n_features must be a whole number of at least 1; got -1"),
        (lambda: VectorSpace(2.5), "n_features must be a whole number"),
        (lambda: VectorSpace(2, loc=[0.0, np.nan]), "loc must be finite; got nan"),
        (lambda: VectorSpace(2, scale=[1.0, np.inf]), "scale must be > 0 and finite; got inf"),
        (lambda: VectorSpace(2, scale=[1.0, np.nan]), "scale must be > 0 and finite; got nan"),
        (lambda: VectorSpace(2, scale=[1.0, 0.0]), "scale must be > 0 and finite; got 0"),
        (lambda: VectorSpace(2, loc=[0.0]), "loc and scale must have n_features = 2 entries"),
        (lambda: ImageSpace(2.5, 4), "height must be a whole number of at least 1; got 2.5"),
        (lambda: ImageSpace(4, 4, 0), "channels must be a whole number"),
        (lambda: ImageSpace(float("nan"), 4), "height must be a whole number"),
    ],
)
def test_impossible_spaces_are_refused(make, message):
    with pytest.raises(InvalidParameterError, match=message):
        make()


@pytest.mark.parametrize("space", [SequenceSpace("DNA", 4), VectorSpace(3), ImageSpace(2, 2)])
def test_points_of_another_shape_and_unknown_kinds_are_not_decoded(space):
    with pytest.raises(InvalidDesignError, match=r"points must have shape \(n, .*; got \(2, 7\)"):
        space.decode(torch.zeros(2, 7))
    with pytest.raises(InvalidDesignError, match="kind must be one of .*; got 'jpeg'"):
        space.decode(torch.zeros(2, *space.shape), "jpeg")
