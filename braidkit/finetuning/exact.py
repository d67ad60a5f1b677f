"""The optimum of small spaces: every design is scored, and none is sampled or trained on."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel
from braidkit.diffusion.enumerated import EnumeratedDiffusion
from braidkit.exceptions import IncompatibleModelError
from braidkit.finetuning.solver import Solver
from braidkit.parameters import check_count

ROWS_AT_ONCE = 4096


class ExactSolver(Solver):
    """Tilt the law of an `EnumeratedDiffusion` by ``exp(reward / alpha)``: the optimum of (6), in one update.

    Parameters
    ----------
    n_effective : int, optional
        Designs that the tilted law is to have at least: ``1 / sum p^2``, or half of what the pretrained law has, if
        that is less. Where the problem's alpha leaves fewer, the smallest alpha that leaves so many takes its place.
        An estimator with ``alpha="auto"`` asks for 1,000, enough to choose from. By default alpha stays as it is.

    References
    ----------
    BRAID (Uehara et al., 2024), equation (7).
    """

    n_updates: ClassVar[int | None] = 1
    splits_batches: ClassVar[bool] = True  # it has none: all processes do the same

    def __init__(self, *, n_effective: int | None = None) -> None:
        self.n_effective = n_effective

    def check(self, model: DiffusionModel) -> None:
        if self.n_effective is not None:
            check_count(self, "n_effective")
        if not isinstance(model, EnumeratedDiffusion):
            raise IncompatibleModelError(
                f"{type(self).__name__} lists all designs of an EnumeratedDiffusion; a {type(model).__name__} needs "
                f'solver="{model.default_solver}".'
            )

    @torch.no_grad()
    def update(self, i: int) -> dict[str, float]:
        """Score every design, and tilt."""
        model = self.problem.model
        assert isinstance(model, EnumeratedDiffusion)
        numbers = torch.arange(model.n_designs, device=model.device).split(ROWS_AT_ONCE)
        reward = torch.cat([self.problem.reward(model.designs(part)) for part in numbers]).double()
        table = model.table()
        if self.n_effective is not None:
            alpha = alpha_for(table.log_probs(), reward, self.problem.alpha, self.n_effective)
            self.problem = dataclasses.replace(self.problem, alpha=alpha)
        table.tilt.copy_(reward / self.problem.alpha)
        return {"lower": float(table.log_probs().exp() @ reward)}


def alpha_for(log_probs: Tensor, reward: Tensor, alpha: float, n_effective: float) -> float:
    """The smallest alpha, from a given one on, whose tilt leaves so many designs; arguments (S,) are of all designs."""

    def n_left(alpha: float) -> float:
        return float(1 / (log_probs + reward / alpha).softmax(dim=0).square().sum())

    wanted = min(n_effective, 0.5 * n_left(float("inf")))
    low = high = alpha
    while n_left(high) < wanted:
        low, high = high, 2 * high
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if n_left(middle) < wanted else (low, middle)
    return high
