"""Choose a solver by name, or by chain and reward, and check that the reward has the gradient that it needs."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor

from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.adjoint_matching import AdjointMatchingSolver
from braidkit.finetuning.contracts import standardised
from braidkit.finetuning.defaults import MAX_RARITY, N_EFFECTIVE
from braidkit.finetuning.direct import DirectSolver
from braidkit.finetuning.exact import ExactSolver
from braidkit.finetuning.path_tempering import PathTemperingSolver
from braidkit.finetuning.policy_gradient import PolicyGradientSolver
from braidkit.finetuning.solver import Solver
from braidkit.finetuning.tempering import TemperingSolver
from braidkit.finetuning.trajectory_balance import TrajectoryBalanceSolver

SOLVERS: dict[str, type[Solver]] = {
    "direct": DirectSolver,
    "adjoint_matching": AdjointMatchingSolver,
    "policy_gradient": PolicyGradientSolver,
    "trajectory_balance": TrajectoryBalanceSolver,
    "tempering": TemperingSolver,
    "path_tempering": PathTemperingSolver,
    "exact": ExactSolver,
}
_FOR_ANY_REWARD = 'solver="policy_gradient" or solver="trajectory_balance"'


def check_solver(solver: str | Solver) -> None:
    """Raise unless it names a solver or is one."""
    if not isinstance(solver, Solver) and not (isinstance(solver, str) and solver in ("auto", *SOLVERS)):
        raise InvalidParameterError(f"solver must be auto, one of {', '.join(SOLVERS)}, or a Solver; got {solver!r}.")


def as_solver(solver: str | Solver, model: DiffusionModel, reward: Any = None, *, choose_alpha: bool = False) -> Solver:
    """A new solver: by name, as a clone of an instance, or with "auto" the one that suits the chain and the reward.

    With `choose_alpha`, the solvers that can may raise alpha.
    """
    check_solver(solver)
    if isinstance(solver, Solver):
        return clone(solver)
    if solver == "auto":
        solver = model.default_solver
        if SOLVERS[solver].needs_gradient and is_black_box(reward):
            solver = "trajectory_balance"
    if choose_alpha and solver == "exact":
        return ExactSolver(n_effective=N_EFFECTIVE)
    kind = SOLVERS[solver]
    if choose_alpha and issubclass(kind, TemperingSolver):
        return kind(n_effective=N_EFFECTIVE, max_rarity=MAX_RARITY)
    return kind()


def may_temper(solver: str | Solver) -> bool:
    """Whether a finetuner with this `solver` tempers a chain that allows it."""
    return isinstance(solver, TemperingSolver) or solver in ("auto", "tempering")


def is_black_box(reward: Any) -> bool:
    """Whether a reward has no gradient: it has no ``lower(x)``."""
    return reward is not None and not hasattr(reward, "lower")


def check_solver_reward(solver: Solver, reward: Any) -> None:
    """Raise if the solver needs a gradient and the reward has none."""
    if solver.needs_gradient and is_black_box(reward):
        raise InvalidParameterError(
            f"reward is a {type(reward).__name__} without lower(x): a black box, which {type(solver).__name__} cannot "
            f"differentiate; pass {_FOR_ANY_REWARD}, or a reward of braidkit."
        )


def check_reward_gradient(reward: Any, pretrained: DiffusionModel, seed: int) -> None:
    """Raise unless the reward's gradient at pretrained designs is finite and not zero everywhere."""
    noise = pretrained.draw_noise(16, torch.Generator().manual_seed(seed))
    gradients = [_gradient(reward, pretrained, part) for part in noise.split(min(16, pretrained.rows_at_once))]
    found = [part for part in gradients if part is not None]
    gradient = torch.cat(found) if found else None
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        state = "none" if gradient is None else "not finite" if not gradient.isfinite().all() else "zero"
        raise InvalidParameterError(
            f"the reward's gradient at designs of the pretrained model is {state}; its lower(x) must be "
            "differentiable: look for no_grad, rounding or a clamp in its features. For a black box pass "
            f"{_FOR_ANY_REWARD}."
        )


def _gradient(reward: Any, pretrained: DiffusionModel, noise: Tensor) -> Tensor | None:
    """Gradient of the reward's lower bound at the designs that noise makes; None if it has none."""
    point = pretrained.sample_points(noise).requires_grad_(True)
    mean, penalty = standardised(reward, pretrained.space.discretise(point))
    lower = mean - penalty
    return torch.autograd.grad(lower.sum(), point, allow_unused=True)[0] if lower.requires_grad else None
