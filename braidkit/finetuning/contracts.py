"""Interfaces that fine-tuning needs from rewards, judges and selections, and the scale on which it reads a reward."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import InvalidParameterError


class ConservativeReward(Protocol):
    """Interface of a fitted reward; see `braidkit.rewards`.

    A reward of the user's own may have ``lower(x)``, in y's units, instead of `standardised`. Its penalty then comes
    from its ``mean_and_penalty(x)``, and is 0 if it has no such method.
    """

    y_mean_: float
    y_std_: float

    def standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """r_hat and g_hat (n,) of points for y of mean 0 and deviation 1; differentiable for solvers that need it."""


class Judge(Protocol):
    """A reward fitted on other rows that gives the standard deviation of a difference; see `GPBonusReward`."""

    y_mean_: float
    y_std_: float

    def standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards of points for y of mean 0 and deviation 1, and a penalty that is not used."""

    def mean_difference(self, x: Tensor, other: Tensor) -> tuple[float, float]:
        """Mean difference between points and others drawn from the same noise, and its standard deviation."""

    def posterior_difference(self, x: Tensor, other: Tensor) -> tuple[float, float]:
        """The same with the posterior's own deviation, before any calibration."""


class CheckpointSelection(Protocol):
    """A rule that chooses the checkpoint by true measurements; see `braidkit.evaluation.BudgetedSelection`."""

    n_rounds: int
    n_designs: int

    def open_run(self, run: object, n_done: int, n_to_come: int) -> None:
        """Reserve rounds for a run, or raise; an earlier process has already used `n_done` of them."""

    def query(self, run: object, X: Any) -> np.ndarray:
        """True rewards of the first `n_designs` of X, of the kind that `fit` saw: one round."""


def standardised(reward: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and penalty (n,) of points by a fitted reward, for y of mean 0 and deviation 1, float64."""
    if hasattr(reward, "standardised"):
        mean, penalty = reward.standardised(x)
        return mean.double(), penalty.double()
    if hasattr(reward, "mean_and_penalty"):
        mean, penalty = reward.mean_and_penalty(x)
    else:
        mean = reward.lower(x)
        penalty = torch.zeros_like(mean)
    return (mean.double() - reward.y_mean_) / reward.y_std_, penalty.double() / reward.y_std_


def check_scale(reward: Any) -> None:
    """Raise unless a fitted reward has the scale of y and the space of its designs."""
    for name in ("y_mean_", "y_std_", "space_"):
        if not hasattr(reward, name):
            raise InvalidParameterError(
                f"reward has no {name} after fit; its fit must set y_mean_ and y_std_, the mean and standard deviation "
                "of y, and space_, the space of its designs."
            )


def check_selection(selection: Any) -> None:
    """Raise unless a selection has the methods of `CheckpointSelection`."""
    missing = [name for name in ("open_run", "query", "n_rounds", "n_designs") if not hasattr(selection, name)]
    if selection is not None and missing:
        raise InvalidParameterError(
            f"selection must be a BudgetedSelection or None; got {selection!r}, without {', '.join(missing)}."
        )
