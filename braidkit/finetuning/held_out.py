"""Hold rows out for the judge, and check the reward on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator

from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.rows import MeasuredRows
from braidkit.rewards.calibration import lower_coverage
from braidkit.spaces import Points, design_groups


def n_for_judge(n_designs: int, fraction: float) -> int:
    """Number of designs that are held out for the judge."""
    return max(2, round(fraction * n_designs))


def check_enough_designs(reward: Any, x: Points, fraction: float) -> None:
    """Raise if too few designs are left for the reward after the judge's share is held out."""
    if not hasattr(reward, "_check_designs") or isinstance(reward, FrozenEstimator):
        return
    n_designs = int(design_groups(x).max()) + 1
    try:
        reward._check_designs(n_designs - n_for_judge(n_designs, fraction))
    except InvalidParameterError as error:
        raise InvalidParameterError(
            f"{error} These are the designs left for the reward, of {n_designs:,}, after the judge's share."
        ) from error


def split_for_judge(
    y: np.ndarray,
    fraction: float,
    seed: int,
    groups: np.ndarray | None = None,
    designs: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers between reward and judge, with similar distributions of y.

    All rows of a group stay together; groups (n,) are numbered from 0, and so are designs (n,), by default all
    different. With too few rows, or one design left for the reward, both get all of them.
    """
    groups = np.arange(len(y)) if groups is None else groups
    centred = y - y[0]  # sums of large numbers would lose small differences to rounding
    means = np.bincount(groups, weights=centred) / np.bincount(groups)
    blocks = np.array_split(np.argsort(means, kind="stable"), n_for_judge(len(means), fraction))
    random = np.random.RandomState(seed)
    chosen = [random.choice(block) for block in blocks if len(block)]
    for_judge = np.flatnonzero(np.isin(groups, chosen))
    for_reward = np.setdiff1d(np.arange(len(y)), for_judge)
    designs = np.arange(len(y)) if designs is None else designs
    too_few = len(for_reward) < 2 or np.ptp(designs[for_reward]) == 0
    if too_few or np.ptp(y[for_reward]) == 0 or np.ptp(y[for_judge]) == 0:
        return np.arange(len(y)), np.arange(len(y))
    return for_reward, for_judge


def check_reward(reward: Any, rows: MeasuredRows) -> dict[str, float]:
    """Compute R2 and the coverage of the lower bound on rows that the reward has not seen."""
    weights = {name: values for name, values in rows.noise.items() if name == "sample_weight"}
    check = {"r2": float(reward.score(rows.X, rows.measured, **weights))} | lower_coverage(reward, rows.X, rows.y)
    if rows.targets is not None:
        parts = {name: part.score(rows.X, rows.targets[name], **weights) for name, part in reward.rewards_.items()}
        check |= {f"r2_{name}": float(r2) for name, r2 in parts.items()}
    return check


def describe_reward(reward: Any, check: dict[str, float]) -> str:
    """The result of `check_reward` in one line."""
    c = getattr(reward, "c_", None)
    bound = "lower bound" if c is None else f"lower bound (c = {c:.3g})"
    return (
        f"reward: held-out R2 {check['r2']:.2f}; {bound} holds for {100 * check['overall']:.1f} % of held-out rows "
        f"({100 * check['top_decile']:.0f} % of the top decile)"
        + "".join(f"; R2 of {name[3:]} {value:.2f}" for name, value in check.items() if name.startswith("r2_"))
    )
