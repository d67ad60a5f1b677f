"""Parameters of estimators: what is checked of them, and what they resolve to."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import sklearn.utils
import torch

from braidkit.exceptions import InvalidParameterError

# Numbers beyond it overflow in float32, where networks compute.
LARGEST_NUMBER = 1e30
# Counts beyond it overflow in numpy or torch, or never end.
LARGEST_COUNT = 2**31 - 1


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
    fine = is_number(value, whole=whole)
    largest = LARGEST_COUNT if whole else LARGEST_NUMBER
    if fine and abs(value) > largest:
        low, high = max(low, -largest), min(high, largest)
    if not fine or value < low or value > high or (above and value == low):
        lower = "" if low == -math.inf else f"above {low:g}" if above else f"of at least {low:g}"
        limits = [lower, "" if high == math.inf else f"at most {high:,}" if whole else f"at most {high:g}"]
        text = " and ".join(limit for limit in limits if limit)
        raise InvalidParameterError(
            f"{name} must be a {'whole ' * whole}number{' ' * bool(text)}{text}; got {value!r:.60}."
        )


def is_number(value: Any, *, whole: bool = False) -> bool:
    """Whether a value is one finite number, and whole where asked; truth values are none."""
    if not isinstance(value, numbers.Integral if whole else numbers.Real) or isinstance(value, (bool, np.bool_)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of floats
        return whole


def is_word(value: Any, word: str) -> bool:
    """Whether a value is this string; arrays, which would be compared entry by entry, are not."""
    return isinstance(value, str) and value == word


def check_positive(estimator: Any, *names: str, allow_zero: bool = False, or_word: str = "") -> None:
    """Raise unless the named parameters of an estimator are finite numbers > 0 (or >= 0), or a word such as "auto"."""
    for name, value in _values(estimator, names, or_word):
        if not is_number(value) or value < 0 or (value == 0 and not allow_zero) or value > LARGEST_NUMBER:
            bound = ">= 0" if allow_zero else "> 0"
            bound += f" and at most {LARGEST_NUMBER:g}" * (is_number(value) and value > LARGEST_NUMBER)
            raise InvalidParameterError(f"{name} must be a number {bound}{_or(or_word)}; got {value!r:.60}.")


def check_count(estimator: Any, *names: str, minimum: int = 1, or_word: str = "") -> None:
    """Raise unless the named parameters of an estimator are whole numbers of at least `minimum`, or a word."""
    for name, value in _values(estimator, names, or_word):
        check_number(name, value, low=minimum, whole=True)


def check_fraction(estimator: Any, *names: str, allow_zero: bool = False, or_word: str = "") -> None:
    """Raise unless the named parameters are numbers between 0 and 1, both left out (0 taken, if allowed), or a word."""
    for name, value in _values(estimator, names, or_word):
        if not is_number(value) or not (0 < float(value) < 1 or (allow_zero and value == 0)):
            bound = ">= 0" if allow_zero else "> 0"
            raise InvalidParameterError(f"{name} must be a number {bound} and < 1{_or(or_word)}; got {value!r:.60}.")


def _values(estimator: Any, names: tuple[str, ...], or_word: str) -> Iterator[tuple[str, Any]]:
    """The named parameters that are not the word."""
    values = ((name, getattr(estimator, name)) for name in names)
    return ((name, value) for name, value in values if not (or_word and is_word(value, or_word)))


def _or(word: str) -> str:
    return f' or "{word}"' if word else ""


def check_choice(name: str, value: Any, choices: Iterable[str | None]) -> None:
    """Raise unless a value is one of some words, or None where that is one of the choices.

    Examples
    --------
    >>> check_choice("scheme", "Euler", ["bridge", "euler"])
    Traceback (most recent call last):
    braidkit.exceptions.InvalidParameterError: scheme must be "bridge" or "euler"; got 'Euler'.
    """
    allowed = list(choices)
    if not any(value is None if choice is None else is_word(value, choice) for choice in allowed):
        *others, last = ["None" if choice is None else f'"{choice}"' for choice in allowed]
        text = f"{', '.join(others)} or {last}" if others else last
        raise InvalidParameterError(f"{name} must be {text}; got {value!r:.60}.")


def check_whole_seed(random_state: Any, who: str, why: str) -> None:
    """Raise unless random_state is a whole number."""
    if not isinstance(random_state, numbers.Integral):
        raise InvalidParameterError(f"{who} needs a whole number as random_state, {why}; got {random_state!r}.")


def check_random_state(random_state: Any) -> np.random.RandomState:
    """What scikit-learn makes of a random_state; one that cannot be used is refused by name."""
    if isinstance(random_state, (bool, np.bool_)):
        random_state = repr(random_state)
    try:
        return sklearn.utils.check_random_state(random_state)
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(
            f"random_state must be None, a whole number from 0 to 2**32 - 1, or a numpy RandomState; got "
            f"{random_state!r}."
        ) from error


def as_generator(random_state: Any) -> torch.Generator:
    """A CPU generator from what scikit-learn's users pass as random_state, or the generator itself."""
    if isinstance(random_state, torch.Generator):
        return random_state
    return torch.Generator().manual_seed(int(check_random_state(random_state).randint(2**31 - 1)))


def resolve_device(device: str | torch.device) -> torch.device:
    """The device to compute on; "auto" is the GPU where there is one."""
    if is_word(device, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidParameterError(f'device must be "auto", "cpu" or "cuda"; got {device!r}.') from error
    if resolved.type == "meta":  # it holds no numbers
        raise InvalidParameterError(f'device must be "auto", "cpu" or "cuda"; got {str(device)!r}.')
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise InvalidParameterError(f'device={str(device)!r}, but no GPU is to be seen; pass device="auto".')
    try:
        torch.empty(0, device=resolved)
    except Exception as error:  # of a kind that depends on the device
        raise InvalidParameterError(
            f'device={str(device)!r} is not to be seen ({error!s:.80}); pass device="auto".'
        ) from error
    return resolved
