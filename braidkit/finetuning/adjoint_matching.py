"""Adjoint matching: regression onto the reward's gradient, carried back along the pretrained chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel, sample_path
from braidkit.exceptions import IncompatibleModelError
from braidkit.finetuning.solver import Solver


class AdjointMatchingSolver(Solver):
    """Match each policy's shift to the lean adjoint, on chains of Gaussian policies with constant deviations.

    Along a trajectory of the model, the adjoint starts as the reward's gradient at the design over alpha, and is
    carried back by the pretrained means alone, ``a_t = (d mean_pre(x_t) / d x_t)^T a_{t-1}``. The model's mean is then
    regressed onto ``mean_pre + std^2 a_{t-1}``. No graph is longer than one step, so the memory for gradients does not
    grow with their number.

    This is the *lean* adjoint: it ignores how the model's own shift, and its KL, depend on the state. At the pretrained
    weights the update is the gradient of (6), path by path. Away from them it differs from the gradient, but has the
    same optimum if the policies can represent it. Adding normal noise of deviation 0.1 to each weight changes the
    update by 14 % of the gradient's norm on vectors and 5 % on bridges; noise of 0.3 by 77 % and 90 %
    (``benchmarks/lean_adjoint.py``).

    References
    ----------
    Domingo-Enrich et al. (2025), "Adjoint matching", ICLR, equations (37) to (39): in discrete time, so that on linear
    policies its fixed point is the best chain of the pretrained deviations, at any number of steps.
    """

    needs_gradient: ClassVar[bool] = True
    splits_batches: ClassVar[bool] = True

    def check(self, model: DiffusionModel) -> None:
        if not model.constant_std:
            raise IncompatibleModelError(
                "adjoint matching needs Gaussian policies of constant deviation, which this "
                f"{type(model).__name__} does not have; pass "
                'solver="direct", "policy_gradient" or "trajectory_balance", or, for a SimplexDiffusion of letters, '
                'pretrained.with_steps(25, "bridge").'
            )

    def update(self, i: int) -> dict[str, float]:
        """Draw trajectories, carry the adjoint back along them and regress."""
        problem = self.problem
        path = sample_path(self.model, self.draw_noise(i))
        design = path[0].requires_grad_(True)
        reward = problem.reward(problem.model.readout(design))
        (adjoint,) = torch.autograd.grad(reward.sum() / problem.alpha, design)

        def losses() -> Iterator[Tensor]:
            nonlocal adjoint
            for t in range(1, problem.model.n_steps + 1):
                state = path[t].requires_grad_(True)
                reference = self.pretrained.policy(state, t)
                target = reference.shifted(adjoint).mapped(Tensor.detach)
                # Deviations are constant, so a draw has the gradient of its mean, whatever its noise.
                mean = reference.rsample(torch.zeros_like(state))
                (adjoint,) = torch.autograd.grad(mean, state, adjoint)
                policy = self.model.policy(path[t].detach(), t)
                # Equation (38): regress the mean onto the target. For Gaussian policies this squared error is the KL
                # to the target policy; alpha puts it on the scale of the objective (6).
                yield problem.alpha * policy.kl(target).mean()

        self.descend(losses())
        return {"lower": float(reward.detach().mean())}
