"""Parameters of estimators: what is checked of them, and what they resolve to."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from sklearn.utils import check_random_state

from braidkit.exceptions import InvalidParameterError


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


def check_fraction(estimator: Any, name: str, *, allow_zero: bool = False) -> None:
    """Raise unless a parameter is a number between 0 and 1, both left out (0 taken, if allowed)."""
    value = getattr(estimator, name)
    if not isinstance(value, numbers.Real) or not (0 < float(value) < 1 or (allow_zero and value == 0)):
        bound = ">= 0" if allow_zero else "> 0"
        raise InvalidParameterError(f"{name} must be a number {bound} and < 1; got {value!r}.")


def check_whole_seed(random_state: Any, who: str, why: str) -> None:
    """Raise unless random_state is a whole number."""
    if not isinstance(random_state, numbers.Integral):
        raise InvalidParameterError(f"{who} needs a whole number as random_state, {why}; got {random_state!r}.")


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
    if resolved.type == "meta":  # it holds no numbers
        raise InvalidParameterError(f'device must be "auto", "cpu" or "cuda"; got {str(device)!r}.')
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise InvalidParameterError(f'device={str(device)!r}, but no GPU is to be seen; pass device="auto".')
    return resolved
