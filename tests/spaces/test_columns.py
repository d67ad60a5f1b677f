"""Columns of vectors that hold whole numbers, or labels as zeros and a one."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braidkit import VectorSpace
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.spaces import space_from_config

numbers = st.floats(-1e4, 1e4, width=32)
NAMES = ["temp", "layers", "water", "dmf", "oil"]


def recipes(low=1, high=5, template=None):
    return VectorSpace(
        5,
        loc=[50.0, 2.5, 0.3, 0.3, 0.4],
        scale=[20.0, 1.3, 0.45, 0.45, 0.5],
        template=template,
        bounds=([20, low, 0, 0, 0], [90, high, 1, 1, 1]),
        whole=[1],
        one_of={"solvent": [2, 3, 4]},
        names=NAMES,
    )


@given(st.lists(numbers, min_size=5, max_size=5), numbers, st.floats(1, 30))
def test_designs_are_whole_within_their_bounds_and_have_one_label(made, low, width):
    space = recipes(low, low + width)
    x = torch.tensor([made])
    design = space.decode(x)[0]
    assert design[1] == round(design[1]) and low <= design[1] <= low + width
    assert sorted(design[2:]) == [0, 0, 1]
    # What the reward sees is the design that is given.
    np.testing.assert_allclose(space.encode(space.decode(x)), space.discretise(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(space.decode(space.discretise(x))[0, 1:], design[1:])


@given(st.floats(20, 90), st.integers(1, 5), st.sampled_from(["water", "dmf", "oil"]))
def test_a_design_comes_back_from_points_tables_and_settings(temp, layers, solvent):
    space = recipes()
    table = pd.DataFrame({"temp": [temp], "layers": [layers], "solvent": [solvent]})
    rows = space.from_frame(table)
    back = space.to_frame(space.decode(space.encode(rows)))
    assert back["layers"][0] == layers and back["solvent"][0] == solvent
    assert back["temp"][0] == pytest.approx(temp, rel=1e-5)
    assert list(back) == list(table)
    assert space_from_config(space.to_config()) == space


def test_gradients_pass_through_rounding():
    x = torch.tensor([[0.3, 0.4, 0.1, 0.2, 0.3]], requires_grad=True)
    recipes().discretise(x).sum().backward()
    assert x.grad.tolist() == [[1.0] * 5]


def test_noise_of_whole_numbers_changes_no_design():
    space = recipes()
    rows = space.from_frame(pd.DataFrame({"temp": [30.0] * 999, "layers": [1, 3, 5] * 333, "solvent": ["oil"] * 999}))
    x = space.encode(rows)
    spread = space.spread(x, torch.Generator().manual_seed(0))
    assert (spread[:, 0] == x[:, 0]).all() and spread[:, 1].unique().numel() > 900
    np.testing.assert_allclose(space.decode(spread), rows, rtol=1e-6)
    assert space.squared_excess(spread).max() < 1e-9  # noise at an end is within the bounds
    assert VectorSpace(5).spread(x, torch.Generator()) is x


def test_columns_of_whole_numbers_are_found():
    X = np.array([[1, 0.5, 7, 0], [2, 1.0, 7, 3e7], [4, 2.0, 7, 1]])
    assert VectorSpace.from_data(X).columns.whole == (0,)
    assert VectorSpace.from_data(X, whole=()).columns.whole == ()
    assert VectorSpace.from_data(X.astype(int)[:, :2]).columns.whole == (0, 1)


def test_a_held_label_and_number_are_in_all_designs():
    space = recipes(template=[None, 2.5, 0, 1, 0])
    designs = space.decode(torch.randn(20, 5, generator=torch.Generator().manual_seed(0)))
    assert (designs[:, 1] == 2.5).all() and (designs[:, 2:] == [0, 1, 0]).all()
    assert space.held == "layers, solvent" and space.n_free == 1
    assert recipes().n_free == 4
    assert space.in_words() == "temp: 20 to 90; layers: 2.5; solvent: dmf"
    assert recipes().in_words() == "temp: 20 to 90; layers: 1 to 5, whole; solvent: one of water, dmf, oil"


def test_a_space_takes_on_columns_of_another_and_spaces_of_other_names_differ():
    scaled = VectorSpace(5, scale=[2.0] * 5)
    taken = scaled.restricted_as(recipes())
    assert taken.columns.whole == (1,) and taken.scale.tolist() == [2.0] * 5 and taken.bounds is not None
    assert scaled.makes_same(recipes())
    assert not recipes().makes_same(VectorSpace(5, names=["a", "b", "c", "d", "e"]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"whole": [5]}, "whole must be numbers of columns, from 0 to 4"),
        ({"whole": 1.5}, "whole must be numbers of columns"),
        ({"whole": [1, 1]}, "column 1 is named twice"),
        ({"whole": [1], "one_of": {"a": [1, 2]}}, "column 1 is named twice"),
        ({"one_of": [1, 2]}, "one_of must be a dictionary"),
        ({"one_of": {"a": []}}, "a label has no column"),
        ({"one_of": {"a": ["x"]}}, r"one_of\['a'\] must be numbers of columns"),
        ({"names": ["a", "b"]}, "names must be 5 texts"),
        ({"names": "abcde"}, "names must be 5 texts"),
        ({"names": ["a", "a", "b", "c", "d"]}, "names has 'a' twice"),
        ({"names": ["a", "b", "c", "d", "e"], "one_of": {"a": [1, 2]}}, "names has 'a' twice"),
        ({"whole": [0], "bounds": ([1.2] * 5, [1.8] * 5)}, "column 0: there is no whole number from 1.2 to 1.8"),
        ({"one_of": {"a": [1, 2]}, "template": [None, 1, None, None, None]}, "all columns of 'a' or none"),
        ({"one_of": {"a": [1, 2]}, "template": [None, 1, 1, None, None]}, "all columns of 'a' or none"),
    ],
)
def test_other_columns_are_refused(arguments, words):
    with pytest.raises(InvalidParameterError, match=words):
        VectorSpace(5, **arguments)


def test_tables_without_a_column_or_with_an_unknown_label_are_refused():
    table = pd.DataFrame({"temp": [30.0], "layers": [1], "solvent": ["wine"]})
    with pytest.raises(InvalidDesignError, match="row 0: 'solvent' is 'wine', and designs have one of water, dmf, oil"):
        recipes().from_frame(table)
    with pytest.raises(InvalidDesignError, match="no column 'layers'"):
        recipes().from_frame(table.drop(columns="layers"))
