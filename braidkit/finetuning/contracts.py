"""What fine-tuning needs of rewards, judges and selections, and the one scale on which it reads a reward."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import InvalidParameterError


class ConservativeReward(Protocol):
    """What fine-tuning needs of a fitted reward; see `braidkit.rewards`.

    A reward of the user's own may have ``lower(x)``, in y's units, in place of `standardised`; its penalty is then
    that of its ``mean_and_penalty(x)``, or 0 if it has none.
    """

    y_mean_: float
    y_std_: float

    def standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """r_hat and g_hat (n,) of points for y of mean 0 and deviation 1; differentiable for solvers that need it."""


class Judge(Protocol):
    """What a run is judged by: a reward of other rows, which knows how little it knows; see `GPBonusReward`."""

    y_mean_: float
    y_std_: float

    def standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards of points for y of mean 0 and deviation 1, and a penalty that is not looked at."""

    def mean_difference(self, x: Tensor, other: Tensor) -> tuple[float, float]:
        """How much better points are than others of the same noise, on average, and its standard deviation."""


class CheckpointSelection(Protocol):
    """What picks the checkpoint to keep instead of objective and judge; see `braidkit.evaluation.BudgetedSelection`."""

    n_rounds: int
    n_designs: int

    def open_run(self, run: object, n_done: int, n_to_come: int) -> None:
        """Promise a run its rounds, `n_done` of which an earlier process has had, or raise."""

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
    """Raise unless a fitted reward tells its scale, and the space of its designs."""
    for name in ("y_mean_", "y_std_", "space_"):
        if not hasattr(reward, name):
            raise InvalidParameterError(
                f"reward has no {name} after fit; its fit must set y_mean_ and y_std_, the mean and standard deviation "
                "of y, and space_, the space of its designs."
            )


def check_selection(selection: Any) -> None:
    """Raise unless a selection can be asked."""
    missing = [name for name in ("open_run", "query", "n_rounds", "n_designs") if not hasattr(selection, name)]
    if selection is not None and missing:
        raise InvalidParameterError(
            f"selection must be a BudgetedSelection or None; got {selection!r}, without {', '.join(missing)}."
        )
