"""The optimum of small spaces: every design is scored, and none is sampled or trained on."""

from __future__ import annotations

from typing import ClassVar

import torch

from braidkit.diffusion import DiffusionModel
from braidkit.diffusion.enumerated import EnumeratedDiffusion
from braidkit.exceptions import IncompatibleModelError
from braidkit.finetuning.solver import Solver

ROWS_AT_ONCE = 4096


class ExactSolver(Solver):
    """Tilt the law of an `EnumeratedDiffusion` by ``exp(reward / alpha)``: the optimum of (6), in one update.

    References
    ----------
    BRAID (Uehara et al., 2024), equation (7).
    """

    n_updates: ClassVar[int | None] = 1
    splits_batches: ClassVar[bool] = True  # it has none: all processes do the same

    def check(self, model: DiffusionModel) -> None:
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
        table.tilt.copy_(reward / self.problem.alpha)
        return {"lower": float(table.log_probs().exp() @ reward)}
