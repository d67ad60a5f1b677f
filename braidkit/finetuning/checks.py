"""Checks before the long work of a fine-tuning run, and the split of its rows."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.adjoint_matching import AdjointMatchingSolver
from braidkit.finetuning.contracts import standardised
from braidkit.finetuning.direct import DirectSolver
from braidkit.finetuning.exact import ExactSolver
from braidkit.finetuning.policy_gradient import PolicyGradientSolver
from braidkit.finetuning.solver import Solver
from braidkit.finetuning.trajectory_balance import TrajectoryBalanceSolver
from braidkit.rewards.calibration import lower_coverage
from braidkit.spaces import Points, design_groups

SOLVERS: dict[str, type[Solver]] = {
    "direct": DirectSolver,
    "adjoint_matching": AdjointMatchingSolver,
    "policy_gradient": PolicyGradientSolver,
    "trajectory_balance": TrajectoryBalanceSolver,
    "exact": ExactSolver,
}
_FOR_ANY_REWARD = 'solver="policy_gradient" or solver="trajectory_balance"'


def check_solver(solver: str | Solver) -> None:
    """Raise unless it names a solver or is one."""
    if not isinstance(solver, Solver) and solver != "auto" and (not isinstance(solver, str) or solver not in SOLVERS):
        raise InvalidParameterError(f"solver must be auto, one of {', '.join(SOLVERS)}, or a Solver; got {solver!r}.")


def as_solver(solver: str | Solver, model: DiffusionModel, reward: Any = None) -> Solver:
    """A fresh solver: from its name, as a clone of an instance, or the one that suits a chain and a reward."""
    check_solver(solver)
    if isinstance(solver, Solver):
        return clone(solver)
    if solver == "auto":
        solver = model.default_solver
        if SOLVERS[solver].needs_gradient and is_black_box(reward):
            solver = "trajectory_balance"
    return SOLVERS[solver]()


def is_black_box(reward: Any) -> bool:
    """Whether a reward plainly has no gradient."""
    return reward is not None and not hasattr(reward, "lower")


def check_whole_seed(random_state: Any, who: str, why: str) -> None:
    """Raise unless random_state is a whole number."""
    if not isinstance(random_state, numbers.Integral):
        raise InvalidParameterError(f"{who} needs a whole number as random_state, {why}; got {random_state!r}.")


def check_solver_reward(solver: Solver, reward: Any) -> None:
    """Raise if a solver needs a gradient that the reward plainly does not give."""
    if solver.needs_gradient and is_black_box(reward):
        raise InvalidParameterError(
            f"reward is a {type(reward).__name__} without lower(x): a black box, which {type(solver).__name__} cannot "
            f"differentiate; pass {_FOR_ANY_REWARD}, or a reward of braidkit."
        )


def n_for_judge(n_designs: int, fraction: float) -> int:
    """How many of so many different designs the judge gets."""
    return max(2, round(fraction * n_designs))


def check_enough_designs(reward: Any, x: Points, fraction: float) -> None:
    """Raise unless a reward that is to be fitted gets enough of the designs, beside the judge's fraction."""
    if not hasattr(reward, "_check_designs") or isinstance(reward, FrozenEstimator):
        return
    n_designs = int(design_groups(x).max()) + 1
    try:
        reward._check_designs(n_designs - n_for_judge(n_designs, fraction))
    except InvalidParameterError as error:
        raise InvalidParameterError(
            f"{error} Those are what the judge leaves of {n_designs:,} for the reward."
        ) from error


def check_selection(selection: Any) -> None:
    """Raise unless a selection can be asked."""
    missing = [name for name in ("open_run", "query", "n_rounds", "n_designs") if not hasattr(selection, name)]
    if selection is not None and missing:
        raise InvalidParameterError(
            f"selection must be a BudgetedSelection or None; got {selection!r}, without {', '.join(missing)}."
        )


def split_for_judge(
    y: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for the reward and for the judge, alike in y; with too few rows both get all of them.

    Rows of one group (n,), numbered from 0, go to one side.
    """
    groups = np.arange(len(y)) if groups is None else groups
    centred = y - y[0]  # sums of large numbers would lose what tells them apart
    means = np.bincount(groups, weights=centred) / np.bincount(groups)
    blocks = np.array_split(np.argsort(means, kind="stable"), n_for_judge(len(means), fraction))
    random = np.random.RandomState(seed)
    chosen = [random.choice(block) for block in blocks if len(block)]
    for_judge = np.flatnonzero(np.isin(groups, chosen))
    for_reward = np.setdiff1d(np.arange(len(y)), for_judge)
    if len(for_reward) < 2 or np.ptp(y[for_reward]) == 0 or np.ptp(y[for_judge]) == 0:
        return np.arange(len(y)), np.arange(len(y))
    return for_reward, for_judge


def check_reward(reward: Any, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """How good a fitted reward and its bound are on rows that it has not seen."""
    return {"r2": float(reward.score(X, y))} | lower_coverage(reward, X, y)


def describe_reward(reward: Any, check: dict[str, float]) -> str:
    """What `check_reward` found, in a line."""
    c = getattr(reward, "c_", None)
    bound = "lower bound" if c is None else f"lower bound (c = {c:.3g})"
    return (
        f"reward: held-out R2 {check['r2']:.2f}; {bound} holds for {100 * check['overall']:.1f} % of held-out rows "
        f"({100 * check['top_decile']:.0f} % of the top decile)"
    )


def check_reward_gradient(reward: Any, pretrained: DiffusionModel, seed: int) -> None:
    """Raise unless the reward's gradient at pretrained designs is finite and somewhere not zero."""
    noise = pretrained.draw_noise(16, torch.Generator().manual_seed(seed))
    point = pretrained.sample_points(noise).requires_grad_(True)
    mean, penalty = standardised(reward, pretrained.space.discretise(point))
    lower = mean - penalty
    gradient = torch.autograd.grad(lower.sum(), point, allow_unused=True)[0] if lower.requires_grad else None
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        state = "none" if gradient is None else "not finite" if not gradient.isfinite().all() else "zero"
        raise InvalidParameterError(
            f"the reward's gradient at designs of the pretrained model is {state}; its lower(x) must be "
            "differentiable: look for no_grad, rounding or a clamp in its features. For a black box pass "
            f"{_FOR_ANY_REWARD}."
        )
