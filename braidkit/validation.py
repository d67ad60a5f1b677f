"""What every estimator checks before it starts: designs, measurements, parameters."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data
from torch import Tensor

from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError
from braidkit.spaces import Space, VectorSpace, infer_space, is_strings


def validate_training_data(
    estimator: Any, X: Any, y: Any, *, space: Space | None = None
) -> tuple[Space, Tensor, np.ndarray]:
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
    space : Space
    x : Tensor of shape (n_samples, \\*space.shape), float32
    y : ndarray of shape (n_samples,), float64

    Raises
    ------
    InvalidDesignError, InvalidTargetError
        Naming the row, the value and the remedy.
    """
    if isinstance(X, (list, tuple)) and len(X) == 0:
        raise InvalidDesignError("X is empty: pass a list of strings, or rows of numbers, with their measurements.")
    check_finite_target(y)
    if not is_strings(X) and (space is None or isinstance(space, VectorSpace)):
        X, y = validate_data(
            estimator, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2, multi_output=False
        )
        space = VectorSpace.from_data(X) if space is None else space
        x = space.encode(X)
    else:
        if y is None:
            raise InvalidTargetError(f"{type(estimator).__name__} needs measurements: y is None.")
        space = infer_space(X) if space is None else space
        y = column_or_1d(y, dtype=np.float64, warn=True)
        check_lengths(X, y)
        x = space.encode(X)
        if len(x) < 2:
            raise InvalidDesignError(f"X has {len(x)} sample; a minimum of 2 is required.")
        shape = np.shape(X)
        estimator.n_features_in_ = shape[1] if len(shape) == 2 else space.shape[0]
    y = np.asarray(y, dtype=np.float64)
    if np.ptp(y) <= 1e-12 * np.abs(y).max():
        raise InvalidTargetError(
            f"y is constant (every one of the {len(y):,} measurements is {y[0]:g}): there is nothing to learn; check "
            "the column, or pass measurements that differ."
        )
    return space, x, y


def validate_designs(estimator: Any, X: Any) -> Tensor:
    """Check designs that a fitted estimator is asked about; points of shape (n, \\*space_.shape)."""
    space: Space = estimator.space_
    if isinstance(space, VectorSpace) and not is_strings(X):
        X = validate_data(estimator, X, dtype=np.float64, reset=False)
    return space.encode(X)


def check_positive(estimator: Any, *names: str, allow_zero: bool = False) -> None:
    """Raise unless the named parameters of an estimator are finite numbers > 0 (or >= 0)."""
    for name in names:
        value = getattr(estimator, name)
        bound = ">= 0" if allow_zero else "> 0"
        fine = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        if not fine or value < 0 or (value == 0 and not allow_zero):
            raise InvalidParameterError(f"{name} must be a number {bound}; got {value!r}.")


def check_count(estimator: Any, *names: str, minimum: int = 1) -> None:
    """Raise unless the named parameters of an estimator are whole numbers of at least `minimum`."""
    for name in names:
        value = getattr(estimator, name)
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < minimum:
            raise InvalidParameterError(f"{name} must be a whole number of at least {minimum}; got {value!r}.")


def as_generator(random_state: Any) -> torch.Generator:
    """A CPU generator from what scikit-learn's users pass as random_state, or the generator itself."""
    if isinstance(random_state, torch.Generator):
        return random_state
    return torch.Generator().manual_seed(int(check_random_state(random_state).randint(2**31 - 1)))


def resolve_device(device: str | torch.device) -> torch.device:
    """The device to compute on; "auto" is the GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise InvalidParameterError(f'device must be "auto", "cpu" or "cuda"; got {device!r}.') from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise InvalidParameterError(f'device={str(device)!r}, but no GPU is to be seen; pass device="auto".')
    return resolved


def check_finite_target(y: Any) -> None:
    """Raise for missing or infinite measurements, naming the first."""
    try:
        values = np.asarray(y)
        values = values if np.iscomplexobj(values) else values.astype(np.float64)
    except (TypeError, ValueError):
        return  # not numbers: the checks that follow say so
    if y is None or np.isfinite(values).all():
        return
    bad = np.flatnonzero(~np.isfinite(values.reshape(-1)))
    value = values.reshape(-1)[bad[0]]
    what = "NaN" if np.isnan(value) else "infinity"
    raise InvalidTargetError(
        f"Input y contains {what}: row {bad[0]:,} is {value} ({len(bad):,} such rows); drop those rows."
    )


def check_lengths(X: Any, y: np.ndarray) -> None:
    """Raise unless there are as many designs as measurements."""
    try:
        check_consistent_length(X, y)
    except ValueError as error:
        raise InvalidDesignError(
            f"X has {len(X):,} designs, but y has {len(y):,} measurements; pass one measurement a design."
        ) from error
