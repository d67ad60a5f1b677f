"""Parameters are checked by name, and resolved."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_choice, check_count, check_fraction, check_positive, resolve_device


class Probe(BaseEstimator):
    def __init__(self, value=1):
        self.value = value


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, "a", None, True, 10**400, [1.0], np.ones(2)])
def test_check_positive(value):
    with pytest.raises(InvalidParameterError, match="value must be a number > 0; got"):
        check_positive(Probe(value), "value")
    with pytest.raises(InvalidParameterError, match='value must be a number > 0 or "auto"; got'):
        check_positive(Probe(value), "value", or_word="auto")


def test_a_word_in_place_of_a_number():
    check_positive(Probe("auto"), "value", or_word="auto")
    check_count(Probe("auto"), "value", or_word="auto")
    check_fraction(Probe("auto"), "value", or_word="auto")


@pytest.mark.parametrize("value", [0, 1, -0.5, np.nan, "a", None, True, np.array([0.5, 0.5])])
def test_check_fraction(value):
    with pytest.raises(InvalidParameterError, match="value must be a number > 0 and < 1; got"):
        check_fraction(Probe(value), "value")


@pytest.mark.parametrize("value", ["C", "", None, 5, [], ["a"], np.array(["a", "b"])])
def test_check_choice(value):
    with pytest.raises(InvalidParameterError, match='value must be "a", "b" or "c"; got'):
        check_choice("value", value, ("a", "b", "c"))


@pytest.mark.parametrize("value", [0, -1, 1.5, "a", None, True])
def test_check_count(value):
    with pytest.raises(InvalidParameterError, match="value must be a whole number of at least 1; got"):
        check_count(Probe(value), "value")


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InvalidParameterError, match='device must be "auto"'):
        resolve_device("toaster")
