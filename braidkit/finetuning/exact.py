"""Compute the optimum of a small space by scoring every design."""

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
        Least effective number of designs, ``1 / sum p^2``, of the tilted law; at most half of that of the pretrained
        law. If the problem's alpha leaves fewer, alpha is raised until so many are left. An estimator with
        ``alpha="auto"`` asks for 200, which are enough to choose from. By default alpha is not changed.

    References
    ----------
    BRAID (Uehara et al., 2024), equation (7).
    """

    n_updates: ClassVar[int | None] = 1
    refits: ClassVar[bool] = True
    finds_alpha_again: ClassVar[bool] = True
    splits_batches: ClassVar[bool] = True  # there is no batch: all processes compute the same

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

    def is_settled(self) -> bool:
        return True

    @torch.no_grad()
    def update(self, i: int) -> dict[str, float]:
        """Score every design, and tilt its probability: equation (7) of a chain of one step."""
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

    def state_tensors(self) -> dict[str, Tensor]:
        """The alpha that is used: the update may have raised it."""
        return {"alpha": torch.tensor(self.problem.alpha, dtype=torch.float64)}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state_tensors` gave."""
        self.problem = dataclasses.replace(self.problem, alpha=float(tensors["alpha"]))


def alpha_for(log_probs: Tensor, reward: Tensor, alpha: float, n_effective: float) -> float:
    """The smallest alpha, not below a given one, that leaves `n_effective` designs; tensors (S,) cover all designs."""

    def n_left(alpha: float) -> float:
        return float(1 / (log_probs + reward / alpha).softmax(dim=0).square().sum())

    wanted = min(n_effective, 0.5 * n_left(float("inf")))
    # The effective number grows with alpha: double alpha until it is enough, then bisect.
    low = high = alpha
    while n_left(high) < wanted:
        low, high = high, 2 * high
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if n_left(middle) < wanted else (low, middle)
    return high
