"""Checks of arguments that functions of this package share: each names the argument, its value and the remedy."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from braidkit.data import check_lengths, read_measurements
from braidkit.exceptions import InvalidParameterError
from braidkit.spaces import read_designs


def check_number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, above: bool = False, whole: bool = False
) -> None:
    """Raise unless a value is a number from `low` (or above it) to `high`; whole where asked.

    Examples
    --------
    >>> check_number("n_designs", 2.5, low=1, whole=True)
    Traceback (most recent call last):
    braidkit.exceptions.InvalidParameterError: n_designs must be a whole number of at least 1; got 2.5.
    """
    kind = numbers.Integral if whole else numbers.Real
    fine = isinstance(value, kind) and not isinstance(value, (bool, np.bool_)) and math.isfinite(value)
    if not fine or value < low or value > high or (above and value == low):
        lower = "" if low == -math.inf else f"above {low:g}" if above else f"of at least {low:g}"
        limits = [lower, "" if high == math.inf else f"at most {high:g}"]
        text = " and ".join(limit for limit in limits if limit)
        raise InvalidParameterError(
            f"{name} must be a {'whole ' * whole}number{' ' * bool(text)}{text}; got {value!r}."
        )


def check_fitted(estimator: Any, *attributes: str) -> None:
    """Raise unless an estimator is fitted and has the attributes that are read from it."""
    try:
        check_is_fitted(estimator, attributes[:1] or None)
    except TypeError as error:
        raise InvalidParameterError(f"estimator must be a fitted estimator of braidkit; got {estimator!r}.") from error
    for attribute in attributes[1:]:
        if not hasattr(estimator, attribute):
            raise InvalidParameterError(f"estimator has no {attribute}; pass a fitted ConservativeDiffusionFinetuner.")


def read_measured(X: Any, y: Any, estimator: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Designs as a plain array, and their measurements as finite float64, one a design.

    Rows are indexed by position afterwards, also where X and y came from filtered tables. Where the estimator has an
    objective of several quantities, y is of these, and the objective of each row takes the place of a measurement.
    """
    combine = getattr(getattr(estimator, "reward_", None), "combine", None)
    values = read_measurements(y) if combine is None else combine(y)
    designs = read_designs(X)
    check_lengths(designs, values)
    return designs, values
