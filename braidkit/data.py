"""Designs and measurements as every estimator reads them: plain arrays, by position, checked before any work."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import validate_data
from torch import Tensor

from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError
from braidkit.spaces import Points, Space, infer_space, is_strings, read_designs
from braidkit.spaces.reading import check_readable, given_array, tensor_entries

# Bounds of points come out in float32, which ends at 3e38.
LARGEST, SMALLEST = 1e30, 1e-30


class TrainingData(NamedTuple):
    """Designs with their measurements.

    Attributes
    ----------
    space : Space
    X : ndarray
        Designs as `read_designs` gives them, one entry or row a design.
    x : Points of shape (n, \\*space.shape)
    y : ndarray of shape (n,), float64
    """

    space: Space
    X: np.ndarray
    x: Points
    y: np.ndarray


def read_training_data(estimator: Any, X: Any, y: Any, *, space: Space | None = None) -> TrainingData:
    """Check designs and measurements that an estimator is fitted on.

    Sets ``n_features_in_`` (and ``feature_names_in_``) of the estimator.

    Parameters
    ----------
    estimator : BaseEstimator
    X : designs
        Strings, or anything that `space` encodes.
    y : array-like of shape (n_samples,)
    space : Space, optional
        Inferred from `X` by default.

    Returns
    -------
    data : TrainingData

    Raises
    ------
    InvalidDesignError, InvalidTargetError, InvalidParameterError
        Naming the row, the value and the remedy.
    """
    check_space(space)
    if y is None:
        raise InvalidTargetError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is None: pass one measurement a "
            "design."
        )
    designs = read_designs(X)
    if len(designs) == 0 and not hasattr(X, "shape"):
        raise InvalidDesignError("X is empty: pass a list of strings, or rows of numbers, with their measurements.")
    y = read_measurements(y)
    if not is_strings(designs) and (designs.ndim <= 2 if space is None else space.has_columns):
        designs = _validated(estimator, X, designs, ensure_min_samples=2)
    if space is None:
        space = infer_space(designs)
        names = list(getattr(estimator, "feature_names_in_", ()))
        if names and all(names) and len(set(names)) == len(names):
            space = space.named(names)
    check_lengths(designs, y)
    x = space.points(designs)
    check_enough_rows(designs)
    estimator.n_features_in_ = designs.shape[1] if designs.ndim == 2 else space.shape[0]
    check_spread(y)
    return TrainingData(space, designs, x, y)


def read_new_designs(estimator: Any, X: Any) -> Points:
    """Check designs that a fitted estimator is asked about; points of shape (n, \\*space_.shape)."""
    designs = read_designs(X)
    if estimator.space_.has_columns and not is_strings(designs):
        designs = _validated(estimator, X, designs, reset=False)
    return estimator.space_.points(designs)


def read_measurements(y: Any, name: str = "y") -> np.ndarray:
    """Measurements as a float64 array of shape (n,), from any container of numbers; errors call them by a name.

    Raises
    ------
    InvalidTargetError
        For values that are missing, infinite, too large or no numbers, by row, and for more than one column.
    """
    array = _as_array(y, name)
    if array.ndim == 2 and array.shape[1] == 1:
        if not hasattr(y, "columns"):
            warnings.warn(
                f"A column-vector {name} was passed when a 1d array was expected; pass {name}.ravel().",
                DataConversionWarning,
                stacklevel=4,
            )
        array = array[:, 0]
    if array.ndim != 1:
        several = " Several quantities need an objective of them (see ObjectiveReward)." if name == "y" else ""
        raise InvalidTargetError(
            f"{name} should be a 1d array, one number a design; got an array of shape {array.shape} instead.{several}"
        )
    if array.dtype.kind in "Mm":
        raise InvalidTargetError(f"{name} holds dates or durations (row 0 is {array[0]}); pass numbers.")
    if array.dtype.kind == "c":
        raise InvalidTargetError(f"Complex data not supported: {name} has complex numbers; pass real ones.")
    values = (
        array.astype(np.float64)
        if array.dtype.kind in "fiub"
        else np.array([_number(value, row, name) for row, value in enumerate(array.astype(object))], dtype=np.float64)
    )
    _check_finite(values, name)
    return values


def read_targets(y: Any) -> tuple[list[str], np.ndarray]:
    """Names (n_targets,) and columns (n, n_targets), float64, of measurements of one or of several quantities.

    Columns of a table have its names, a named column its own; those of an array are "y0", "y1", ..., and one is "y".

    Raises
    ------
    InvalidTargetError
        Naming the column and the row.
    """
    if y is None:
        raise InvalidTargetError(
            "An objective requires y to be passed, but the target y is None: pass a column of measurements for each "
            "quantity."
        )
    names, columns = _named_columns(y, "y")
    return names, np.column_stack([read_measurements(part, name) for name, part in zip(names, columns, strict=True)])


def read_target_errors(y_error: Any, names: list[str], n: int) -> list[np.ndarray | None]:
    """Standard errors (n,) of each of several targets; None where they are not known: a column of missing values.

    Columns of a table are found by the targets' names, those of an array by their order.

    Raises
    ------
    InvalidTargetError
        Naming the column and the row.
    """
    if y_error is None:
        return [None] * len(names)
    found, columns = _named_columns(y_error, "y_error")
    if len(found) != len(names) or (_is_table(y_error) and set(found) != set(names)):
        raise InvalidTargetError(
            f"y_error must have a column for each of {', '.join(names)}, by their names if it is a table; it has "
            f"{', '.join(found)}."
        )
    flat = [np.ravel(column) for column in columns]  # of one target an array may have one column
    by_name = dict(zip(found if _is_table(y_error) else names, flat, strict=True))
    return [
        None if pd.isna(by_name[name]).all() else read_errors(by_name[name], n, f"y_error of {name!r}")
        for name in names
    ]


def read_weights(sample_weight: Any, n: int) -> np.ndarray:
    """Weights of n rows as float64: finite, none negative and not all zero.

    Raises
    ------
    InvalidTargetError
        Naming the row and the value.
    """
    weights = _read_beside_y(sample_weight, n, "sample_weight")
    _refuse_rows(weights < 0, weights, "sample_weight", "pass 0, for a row that does not count, or larger")
    if not weights.any():
        raise InvalidTargetError("sample_weight is zero in all rows; pass a weight above 0 for rows that count.")
    return weights


def read_errors(y_error: Any, n: int, name: str = "y_error") -> np.ndarray:
    """Standard errors of n measurements as float64, all above 0.

    Raises
    ------
    InvalidTargetError
        Naming the row and the value.
    """
    errors = _read_beside_y(y_error, n, name)
    remedy = "nothing is exact: pass a standard error above 0, such as the median of the others"
    _refuse_rows(errors <= 0, errors, name, remedy)
    _refuse_rows(errors < SMALLEST, errors, name, "too little to compute with: pass measurements in a smaller unit")
    return errors


def _read_beside_y(values: Any, n: int, name: str) -> np.ndarray:
    """Numbers as float64, one for each of n rows."""
    array = read_measurements(values, name)
    if len(array) != n:
        raise InvalidTargetError(f"{name} has {len(array):,} entries for {n:,} rows; pass one for each row.")
    return array


def _is_table(y: Any) -> bool:
    """Whether these are columns with names, of pandas, polars or pyarrow."""
    return hasattr(y, "columns") or hasattr(y, "column_names")


def _named_columns(y: Any, name: str) -> tuple[list[str], list[Any]]:
    """Columns with their names, from a table; from an array with the name and numbers from 0, if there are several."""
    if _is_table(y):
        keys = list(getattr(y, "column_names", None) or y.columns)
        names = [str(key) for key in keys]
        repeated = [one for one in names if names.count(one) > 1]
        if repeated or not names:
            why = f"has the column {repeated[0]!r} twice" if repeated else "has no column"
            raise InvalidTargetError(f"{name} {why}.")
        return names, [_as_array(y[key], named) for key, named in zip(keys, names, strict=True)]
    array = _as_array(y, name)
    if array.ndim == 2 and array.shape[1] != 1:
        return [f"{name}{i}" for i in range(array.shape[1])], list(array.T)
    return [str(getattr(y, "name", None) or name)], [array]


def _as_array(y: Any, name: str) -> np.ndarray:
    """Any container as an array."""
    check_readable(name, y, InvalidTargetError)
    if isinstance(y, Tensor):
        return tensor_entries(name, y, InvalidTargetError)
    if hasattr(y, "__array__"):
        return given_array(name, y, InvalidTargetError)
    if hasattr(y, "to_pylist"):
        y = y.to_pylist()
    try:
        return np.asarray(y)
    except ValueError as error:
        raise InvalidTargetError(f"{name} must hold one number a row, and its rows differ in length.") from error


def check_space(space: Any) -> None:
    """Raise unless `space` is a design space or None."""
    if space is not None and not isinstance(space, Space):
        alphabet = space if isinstance(space, str) else "DNA"
        raise InvalidParameterError(
            f'space must be a design space of braidkit, such as SequenceSpace("{alphabet}", length=50), or None; got '
            f"{space!r}."
        )


def check_lengths(X: Any, y: np.ndarray) -> None:
    """Raise unless there are as many designs as measurements."""
    if len(X) != len(y):
        raise InvalidDesignError(
            f"X has {len(X):,} designs, but y has {len(y):,} measurements (inconsistent numbers of samples); pass one "
            "measurement a design."
        )


def check_enough_rows(X: np.ndarray) -> None:
    """Raise unless there are two designs to learn from."""
    if len(X) < 2:
        raise InvalidDesignError(f"X has {len(X)} sample; a minimum of 2 is required.")
    if X.size and (X[1:] == X[0]).all():
        raise InvalidDesignError(f"X holds one design, {len(X):,} times; pass designs that differ.")


def _validated(estimator: Any, X: Any, designs: np.ndarray, **settings: Any) -> np.ndarray:
    """Vectors as scikit-learn checks them: columns by number and name."""
    named = X if hasattr(X, "columns") else designs
    return validate_data(estimator, named, dtype=np.float64, **settings)


def _number(value: Any, row: int, name: str) -> float:
    """An entry of a column as a number; missing values as NaN."""
    if value is None or value is pd.NA or value is pd.NaT:
        return math.nan
    try:
        if isinstance(value, str) and "_" in value:
            raise ValueError("Python's digit separator")
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        comma = isinstance(value, str) and value.count(",") == 1 and value.replace(",", "").strip("+- ").isdigit()
        remedy = "write decimals with a point" if comma else "drop or correct such rows"
        raise InvalidTargetError(f"{name}: row {row:,} is {value!r:.60}, which is not a number; {remedy}.") from error


def _check_finite(values: np.ndarray, name: str) -> None:
    """Raise for numbers that are missing, infinite or huge, naming the first."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        value = values[bad[0]]
        what = "NaN" if np.isnan(value) else "infinity"
        raise InvalidTargetError(
            f"Input {name} contains {what}: row {bad[0]:,} is {value} ({len(bad):,} such rows); drop those rows."
        )
    remedy = f"too large to compute with: drop such rows, or pass {name} in a larger unit"
    _refuse_rows(np.abs(values) > LARGEST, values, name, remedy)


def _refuse_rows(wrong: np.ndarray, values: np.ndarray, name: str, why: str) -> None:
    """Raise if any row is wrong, naming the first."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        raise InvalidTargetError(f"{name}: row {rows[0]:,} is {values[rows[0]]:g} ({len(rows):,} such rows); {why}.")


def check_spread(y: np.ndarray, name: str = "y") -> None:
    """Raise for measurements that are all alike, but for rounding."""
    spread, size = np.ptp(y), np.abs(y).max()
    if spread <= 1e-12 * size:
        alike = f"every one of the {len(y):,} measurements is {y[0]:g}"
        reason = alike if spread == 0 else f"the {len(y):,} measurements differ from {y[0]:g} by rounding errors only"
        raise InvalidTargetError(
            f"{name} is constant ({reason}): there is nothing to learn; check the column, or pass measurements that "
            "differ."
        )
    if spread < SMALLEST:
        raise InvalidTargetError(
            f"{name} varies by {spread:g} only, too little to compute with; pass it in a smaller unit, such as y / "
            f"{size:g}."
        )
