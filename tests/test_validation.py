"""Bad input is named with its row, its value and the remedy, before anything else happens."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError
from braidkit.spaces import SequenceSpace, VectorSpace
from braidkit.validation import check_count, check_positive, resolve_device, validate_designs, validate_training_data


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
        validate_training_data(Probe(), X, y)


@pytest.mark.parametrize("X", [STRINGS, VECTORS])
def test_lengths_that_differ(X):
    with pytest.raises(ValueError, match="(3 designs, but y has 2)|(inconsistent numbers of samples: .3, 2.)"):
        validate_training_data(Probe(), X, [1.0, 2.0])


def test_no_designs_at_all():
    with pytest.raises(InvalidDesignError, match="X is empty: pass a list of strings"):
        validate_training_data(Probe(), [], [])


def test_one_sequence_is_too_few():
    with pytest.raises(InvalidDesignError, match="a minimum of 2 is required"):
        validate_training_data(Probe(), ["ACGT"], [1.0])


@pytest.mark.parametrize(("X", "space", "width"), [(STRINGS, SequenceSpace("DNA", 4), 4), (VECTORS, None, 2)])
def test_good_data_come_back_as_points(X, space, width):
    probe = Probe()
    found, x, y = validate_training_data(probe, X, [1, 2, 3])
    assert x.shape == (3, *found.shape) and y.dtype == np.float64 and probe.n_features_in_ == width
    assert space is None or found == space


def test_a_space_that_is_given_is_used_for_numbers_too():
    flat = SequenceSpace("DNA", 4).encode(STRINGS).reshape(3, -1).numpy()
    probe = Probe()
    space, x, _ = validate_training_data(probe, flat, [1, 2, 3], space=SequenceSpace("DNA", 4))
    assert x.shape == (3, 4, 4) and probe.n_features_in_ == 16 and isinstance(space, SequenceSpace)


def test_designs_of_another_width_are_refused():
    probe = Probe()
    probe.space_, _, _ = validate_training_data(probe, VECTORS, [1, 2, 3])
    assert isinstance(probe.space_, VectorSpace) and validate_designs(probe, VECTORS).shape == (3, 2)
    with pytest.raises(ValueError, match="X has 1 features, but Probe is expecting 2"):
        validate_designs(probe, VECTORS[:, :1])


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, "a", None, True])
def test_what_must_be_positive(value):
    with pytest.raises(InvalidParameterError, match="value must be a number > 0; got"):
        check_positive(Probe(value), "value")


@pytest.mark.parametrize("value", [0, -1, 1.5, "a", None, True])
def test_what_must_be_a_count(value):
    with pytest.raises(InvalidParameterError, match="value must be a whole number of at least 1; got"):
        check_count(Probe(value), "value")


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InvalidParameterError, match='device must be "auto"'):
        resolve_device("toaster")
