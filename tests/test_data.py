"""Bad input is named with its row, its value and the remedy, before anything else happens."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator

from braidkit.data import read_measurements, read_new_designs, read_training_data
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError
from braidkit.spaces import SequenceSpace, VectorSpace


class Probe(BaseEstimator):
    def __init__(self, value=1):
        self.value = value


STRINGS = ["ACGT", "TTTT", "GGGG"]
VECTORS = np.array([[0.0, 1.0], [1.0, 5.0], [2.0, 2.0]])


@pytest.mark.parametrize("X", [STRINGS, VECTORS])
@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1.0, np.nan, np.inf], r"Input y contains NaN: row 1 is nan \(2 such rows\); drop those rows"),
        ([1.0, 2.0, -np.inf], r"Input y contains infinity: row 2 is -inf \(1 such rows\)"),
        ([3.0, 3.0, 3.0], r"y is constant \(every one of the 3 measurements is 3\)"),
    ],
)
def test_unusable_measurements(X, y, message):
    with pytest.raises(InvalidTargetError, match=message):
        read_training_data(Probe(), X, y)


@pytest.mark.parametrize("X", [STRINGS, VECTORS])
def test_lengths_that_differ(X):
    with pytest.raises(ValueError, match="(3 designs, but y has 2)|(inconsistent numbers of samples: .3, 2.)"):
        read_training_data(Probe(), X, [1.0, 2.0])


def test_no_designs_at_all():
    with pytest.raises(InvalidDesignError, match="X is empty: pass a list of strings"):
        read_training_data(Probe(), [], [])


def test_one_sequence_is_too_few():
    with pytest.raises(InvalidDesignError, match="a minimum of 2 is required"):
        read_training_data(Probe(), ["ACGT"], [1.0])


@pytest.mark.parametrize(("X", "space", "width"), [(STRINGS, SequenceSpace("DNA", 4), 4), (VECTORS, None, 2)])
def test_good_data_come_back_as_points(X, space, width):
    probe = Probe()
    found, _, x, y = read_training_data(probe, X, [1, 2, 3])
    assert x.shape == (3, *found.shape) and y.dtype == np.float64 and probe.n_features_in_ == width
    assert space is None or found == space


def test_a_space_that_is_given_is_used_for_numbers_too():
    flat = SequenceSpace("DNA", 4).encode(STRINGS).reshape(3, -1).numpy()
    probe = Probe()
    space, _, x, _ = read_training_data(probe, flat, [1, 2, 3], space=SequenceSpace("DNA", 4))
    assert x.shape == (3, 4, 4) and probe.n_features_in_ == 16 and isinstance(space, SequenceSpace)


def test_designs_of_another_width_are_refused():
    probe = Probe()
    probe.space_, *_ = read_training_data(probe, VECTORS, [1, 2, 3])
    assert isinstance(probe.space_, VectorSpace) and read_new_designs(probe, VECTORS).shape == (3, 2)
    with pytest.raises(ValueError, match="X has 1 features, but Probe is expecting 2"):
        read_new_designs(probe, VECTORS[:, :1])


Y = [1.5, -2.0, 30.0]
COLUMNS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "array of objects": lambda y: np.array(y, dtype=object),
    "text": lambda y: [str(value) for value in y],
    "series of text": lambda y: pd.Series([str(value) for value in y]),
    "series, filtered": lambda y: pd.Series([0.0, *y])[1:],
    "series of Float64": lambda y: pd.Series(y, dtype="Float64"),
    "series of categories": lambda y: pd.Series(y, dtype="category"),
    "index": pd.Index,
    "frame": lambda y: pd.DataFrame({"y": y}, index=range(5, 5 + len(y))),
    "tensor": lambda y: torch.tensor(y, dtype=torch.float64, requires_grad=True),
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS.keys())
def test_every_column_of_numbers_is_read(column):
    y = read_measurements(column(Y))
    assert y.dtype == np.float64 and y.tolist() == Y


numbers = st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=6)


@given(numbers, st.sampled_from(sorted(COLUMNS)))
def test_any_numbers_survive_any_column(y, name):
    assert read_measurements(COLUMNS[name](y)).tolist() == y


@given(numbers, st.integers(0, 5), st.sampled_from([None, np.nan, pd.NA, "nan"]))
def test_a_missing_measurement_is_named_by_its_row(y, row, missing):
    row = min(row, len(y))
    with pytest.raises(InvalidTargetError, match=rf"row {row} is nan \(1 such rows\)"):
        read_measurements(pd.Series([*y[:row], missing, *y[row:]], dtype=object))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["1.5", "high", "2"], "y: row 1 is 'high', which is not a number; drop or correct"),
        (["1,5", "2,25", "2"], "y: row 0 is '1,5', which is not a number; write decimals with a point"),
        (["1_000", "2", "3"], "y: row 0 is '1_000'"),
        (pd.to_datetime(pd.Series(["2024-01-02"] * 3)), "y holds dates or durations .row 0 is 2024-01-02"),
        (np.array([1, 2, 3], dtype="m8[s]"), "y holds dates or durations"),
        ([pd.Timestamp("2024-01-02"), 1, 2], "y: row 0 is Timestamp.*not a number"),
        ([1, 2, 1e300], r"y: row 2 is 1e\+300 \(1 such rows\); too large"),
        ([[1.0, 2.0]] * 3, r"y should be a 1d array.*shape \(3, 2\)"),
        (np.array([1j, 2, 3]), "Complex data not supported"),
        ({"a": 1.0}, "y should be a 1d array"),
        (None, "Probe requires y to be passed"),
        ([1e-200, 2e-200, 3e-200], "y varies by 2e-200 only"),
        ([1.0, 1.0 + 1e-15, 1.0], "y is constant .the 3 measurements differ from 1 by rounding errors only"),
    ],
    ids=repr,
)
def test_measurements_that_are_no_numbers_are_refused_by_name(y, message):
    with pytest.raises(InvalidTargetError, match=message):
        read_training_data(Probe(), STRINGS, y)


def test_a_column_array_is_read_with_scikit_learn_s_warning_and_a_frame_without():
    with pytest.warns(UserWarning, match="column-vector y"):
        assert read_measurements(np.array(Y)[:, None]).tolist() == Y


@pytest.mark.parametrize("space", ["DNA", 5, SequenceSpace])
def test_a_space_that_is_none_says_what_to_pass(space):
    with pytest.raises(InvalidParameterError, match=r'such as SequenceSpace\("DNA", length=50\), or None; got'):
        read_training_data(Probe(), STRINGS, [1, 2, 3], space=space)


def test_designs_come_back_by_position_whatever_their_index():
    table = pd.DataFrame({"seq": [*STRINGS, "AAAA"], "y": [1.0, -1.0, 2.0, 3.0]}, index=list("wxyz"))
    chosen = table[table.y > 0]
    data = read_training_data(Probe(), chosen["seq"], chosen["y"])
    assert data.X[1] == "GGGG" and data.y[2] == 3.0
    assert data.space.strings(data.x.take([2]).rows) == ["AAAA"]


def test_names_of_columns_are_learnt():
    probe = Probe()
    read_training_data(probe, pd.DataFrame(VECTORS, columns=["width", "height"]), [1, 2, 3])
    assert probe.feature_names_in_.tolist() == ["width", "height"]
