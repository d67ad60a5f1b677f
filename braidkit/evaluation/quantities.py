"""Designs by each quantity of an objective: means, the bounds that count, judges, and conditions that may fail."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidkit.rewards import ObjectiveReward


def reward_of_quantities(estimator: Any) -> ObjectiveReward | None:
    """The estimator's reward where it is one of several quantities, else None."""
    reward = getattr(estimator, "reward_", None)
    return reward if hasattr(reward, "predict_parts") else None


def columns_of(quantity: str) -> list[str]:
    """Names of the columns that tables may have of a quantity."""
    return [f"{quantity}_{what}" for what in ("mean", "lower", "upper", "judge")]


def quantity_columns(estimator: Any, designs: Any) -> dict[str, np.ndarray]:
    """Columns of designs: of each quantity "<name>_mean", "<name>_lower" or "<name>_upper", and "<name>_judge".

    The bound is the one that makes the objective's conservative, or both where either may.
    """
    reward = reward_of_quantities(estimator)
    if reward is None:
        return {}
    columns = {}
    judged = estimator.judge_.predict_parts(designs)
    for name, part in reward.predict_parts(designs).items():
        direction = reward.objective_.direction(name)
        columns[f"{name}_mean"] = part.mean.numpy()
        if direction >= 0:
            columns[f"{name}_lower"] = part.low.numpy()
        if direction <= 0:
            columns[f"{name}_upper"] = part.high.numpy()
        columns[f"{name}_judge"] = judged[name].mean.numpy()
    return columns


def unsure_conditions(estimator: Any, designs: Any) -> dict[str, np.ndarray]:
    """Whether each design's bound fails a condition of the objective, by the words of a flag."""
    reward = reward_of_quantities(estimator)
    if reward is None:
        return {}
    unmet = reward.objective_.unmet(reward.predict_parts(designs))
    return {f"not sure to have {text}": fails.numpy() for text, fails in unmet.items()}
