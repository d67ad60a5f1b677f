"""Bounds of vectors: what designs may have, whatever a chain makes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braidkit import VectorSpace
from braidkit.exceptions import InvalidParameterError
from braidkit.spaces import space_from_config

numbers = st.floats(-1e6, 1e6)


@given(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=2, max_size=6), st.lists(numbers, min_size=2))
def test_designs_stay_within_the_range_of_the_data(rows, made):
    X = np.array(rows)
    space = VectorSpace.from_data(X)
    designs = space.decode(torch.tensor([made[:2]], dtype=torch.float32))
    assert (designs >= X.min(axis=0)).all() and (designs <= X.max(axis=0)).all()
    assert space_from_config(space.to_config()) == space


def test_gradients_pass_where_a_point_is_moved_to_its_bound():
    space = VectorSpace(2, bounds=([0, None], [1, 1]))
    x = torch.tensor([[2.0, -7.0]], requires_grad=True)
    moved = space.discretise(x)
    moved.sum().backward()
    assert moved.tolist() == [[1.0, -7.0]] and x.grad.tolist() == [[1.0, 1.0]]
    assert space.squared_excess(x).tolist() == [1.0]


def test_rows_outside_are_read_as_they_are():
    assert VectorSpace(1, bounds=([0], [1])).encode([[5.0]]).tolist() == [[5.0]]


def test_a_held_column_keeps_its_value():
    space = VectorSpace(2, template=[3.0, None], bounds=([0, 0], [1, 1]))
    assert space.decode(torch.tensor([[0.0, 2.0]])).tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize(
    "bounds, words",
    [
        (5, r"must be \(low, high\)"),
        ({}, r"must be \(low, high\)"),
        ([[0, 0], [1, 1], [2, 2]], r"must be \(low, high\)"),
        ((1, 2), "n_features = 2"),
        (([0, 0], [1]), "n_features = 2"),
        (([1, 0], [0, 1]), "column 0: the lower, 1.0, must be <= the upper, 0.0"),
        (([np.nan, 0], [1, 1]), "column 0: the lower, nan"),
        ((["a", "b"], [1, 2]), "must hold numbers"),
    ],
)
def test_other_bounds_are_refused(bounds, words):
    with pytest.raises(InvalidParameterError, match=words):
        VectorSpace(2, bounds=bounds)
