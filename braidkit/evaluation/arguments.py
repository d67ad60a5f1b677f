"""Checks of arguments that functions of this package share: each names the argument, its value and the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from braidkit.data import check_lengths, read_measurements
from braidkit.exceptions import InvalidParameterError
from braidkit.spaces import ImageSpace, is_strings, read_designs

_SLOW_DRAWS = 50


def check_fitted(estimator: Any, *attributes: str) -> None:
    """Raise unless an estimator is fitted and has the attributes that are read from it."""
    if isinstance(estimator, type) or not hasattr(estimator, "__sklearn_tags__"):
        raise InvalidParameterError(f"estimator must be a fitted estimator of braidkit; got {estimator!r:.60}.")
    check_is_fitted(estimator, attributes[:1] or None)
    for attribute in attributes[1:]:
        if not hasattr(estimator, attribute):
            raise InvalidParameterError(f"estimator has no {attribute}; pass a fitted ConservativeDiffusionFinetuner.")


def usual_draws(estimator: Any, n: int) -> int:
    """How many of n designs to look at: at most 50 of pictures and language models, which take far longer to draw."""
    slow = draws_slowly(estimator) or isinstance(getattr(estimator, "space_", None), ImageSpace)
    return min(n, _SLOW_DRAWS) if slow else n


def draws_slowly(estimator: Any) -> bool:
    """Whether the chain of an estimator says that its draws take long, as those of a language model do."""
    return bool(getattr(getattr(estimator, "model_", None), "draws_slowly", False))


def read_measured(X: Any, y: Any, estimator: Any = None) -> tuple[Any, np.ndarray]:
    """Designs as a plain array, and their measurements as finite float64, one a design.

    Rows are indexed by position afterwards, also where X and y came from filtered tables. Where the estimator has an
    objective of several quantities, y is of these, and the objective of each row takes the place of a measurement.
    Designs must be in the estimator's space; sequences come back as it writes them.
    """
    combine = getattr(getattr(estimator, "reward_", None), "combine", None)
    values = read_measurements(y) if combine is None else combine(y)
    designs = read_designs(X)
    check_lengths(designs, values)
    if estimator is None:
        return designs, values
    space = estimator.space_
    points = space.points(designs)
    return designs if space.alphabet is None else np.array(space.letters.write(points.rows), dtype=object), values


def check_table(table: Any, name: str, *, texts: Sequence[str] = (), numbers: Sequence[str] = ()) -> None:
    """Raise unless a table has these columns, of texts and of finite numbers."""
    if not isinstance(table, pd.DataFrame):
        raise InvalidParameterError(f"{name} must be a table of design_table or select; got {table!r:.60}.")
    missing = [column for column in (*texts, *numbers) if column not in table]
    if missing:
        raise InvalidParameterError(f"{name} has no column {missing[0]!r}; pass a table of design_table or select.")
    for column in numbers:
        read_measurements(table[column], f"{name}, column {column!r}")
    for column in texts:
        if len(table) and not is_strings(table[column]):
            raise InvalidParameterError(
                f"{name}, column {column!r} must hold texts; got {table[column].iloc[0]!r:.60}."
            )


def read_array(name: str, values: Any, *shape: int | None) -> np.ndarray:
    """Finite numbers of a shape, in which None is any length but 0, as float64; refused by name."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"{name} must hold numbers ({error}).") from error
    fits = array.ndim == len(shape)
    fits = fits and all(n > 0 if size is None else n == size for n, size in zip(array.shape, shape, strict=True))
    if not fits or not np.isfinite(array).all():
        words = ", ".join("n" if size is None else str(size) for size in shape)
        raise InvalidParameterError(
            f"{name} must be finite numbers of shape ({words}); got shape {array.shape} with "
            f"{int((~np.isfinite(array)).sum())} that are not finite."
        )
    return array


def read_values(values: Any) -> dict[Any, np.ndarray]:
    """Numbers by name as arrays, none of them empty; refused by the name."""
    if not isinstance(values, Mapping):
        raise InvalidParameterError(f"values must be a dictionary of lists of numbers; got {values!r:.60}.")
    arrays = {}
    for name, value in values.items():
        try:
            arrays[name] = np.asarray(value, dtype=float).reshape(-1)
        except (TypeError, ValueError) as error:
            raise InvalidParameterError(f"{name!r} must have numbers ({error}).") from error
        wrong = int((~np.isfinite(arrays[name])).sum())
        if wrong or not len(arrays[name]):
            raise InvalidParameterError(
                f"{name!r} must have at least one value, all finite; got {len(arrays[name])} with {wrong} not finite."
            )
    if not arrays:
        raise InvalidParameterError("values is empty; pass at least one group.")
    return arrays
