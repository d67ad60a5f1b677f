"""What the exact answers are given, checked: the error names what is wrong, its value and what is asked for."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch
from torch import Tensor


def check_number(name: str, value: Any, *, least: float = 0.0, above: bool = True, whole: bool = False) -> None:
    """Raise unless a value is a finite number above `least`, or at least that; whole where asked."""
    kind = numbers.Integral if whole else numbers.Real
    fine = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or value < least or (above and value == least):
        what = "a whole number " if whole else "" if fine else "a finite number "
        raise ValueError(f"`{name}` must be {what}{'>' if above else '>='} {least:g}; got {value!r}.")


def check_tensor(name: str, x: Any, *shape: int | None) -> Tensor:
    """A tensor without NaN in float64; of a shape whose entries of None are free, where one is given."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a tensor; got {x!r:.60}.")
    if shape and (x.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, x.shape, strict=True))):
        expected = ", ".join("n" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} must have shape ({expected}{',' * (len(shape) == 1)}); got {tuple(x.shape)}.")
    if x.isnan().any():
        raise ValueError(f"{name} must hold numbers, not NaN, as at {tuple(x.isnan().nonzero()[0].tolist())}.")
    return x.double()


def check_law(name: str, log_p: Any, *shape: int | None) -> Tensor:
    """Log-probabilities in float64, whose rows (..., n_states) sum to 1 within rounding of float32 tables."""
    law = check_tensor(name, log_p, *shape)
    error = (law.detach().exp().sum(dim=-1) - 1).abs().max() if law.numel() else math.inf
    if not error <= 1e-5:
        raise ValueError(f"{name} must hold log-probabilities that sum to 1; off by {error:.3g}. Normalise it.")
    return law


def check_reward(reward: Any, n: int, alpha: float, of: str = "a design") -> Tensor:
    """Rewards (n,) in float64, checked together with alpha; -inf forbids."""
    check_number("alpha", alpha)
    values = check_tensor("reward", reward)
    if values.shape != (n,):
        raise ValueError(f"reward must have shape ({n},), one entry {of}; got {tuple(values.shape)}.")
    if not (values < torch.inf).all():
        raise ValueError(f"reward must be below +inf; -inf forbids {of}.")
    return values


def check_moment(name: str, moment: Any) -> Tensor:
    """A second moment (d, d) in float64: finite, symmetric, and not below zero but for rounding."""
    matrix = check_tensor(name, moment, None, None)
    if len(matrix) != matrix.shape[1] or not matrix.isfinite().all() or not torch.allclose(matrix, matrix.T):
        raise ValueError(f"{name} must be a symmetric matrix of finite numbers; got shape {tuple(matrix.shape)}.")
    least = float(torch.linalg.eigvalsh(matrix)[0])
    if least < -1e-6 * float(matrix.abs().max()):
        raise ValueError(f"{name} must have no eigenvalue below 0, as E[phi phi^T] has none; got {least:g}.")
    return matrix
