"""Fit the reward, and the judge on rows that the reward never sees, before fine-tuning."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from braidkit.finetuning.held_out import check_reward, describe_reward, split_for_judge
from braidkit.finetuning.judge import backtest_spread
from braidkit.finetuning.rows import MeasuredRows
from braidkit.spaces import design_groups

# Rows of the reward, drawn at random, on which the judge is checked.
_N_CHECKED = 2000


def learn_reward_and_judge(
    estimator: Any, rows: MeasuredRows, split_seed: int, reward_seed: int, judge_seed: int, *, quiet: bool
) -> None:
    """Set ``reward_``, ``judge_`` and what belongs to them of an estimator."""
    replicates = rows.describe_replicates() if estimator.verbose and not quiet else ""
    if replicates:
        tqdm.write(replicates)
    designs = design_groups(rows.x)
    split = split_for_judge(rows.y, estimator.validation_fraction, split_seed, rows.groups, designs)
    for_reward, for_judge = map(rows.take, split)
    estimator.judge_rows_ = for_judge.numbers
    estimator.reward_ = estimator._fit_reward(
        estimator.reward, for_reward.X, for_reward.measured, reward_seed, for_reward.told, quiet=quiet
    )
    estimator.checked_reward_ = estimator.reward_
    estimator.reward_check_ = check_reward(estimator.reward_, for_judge)
    if estimator.verbose and not quiet:
        tqdm.write(describe_reward(estimator.reward_, estimator.reward_check_))
    estimator.judge_ = estimator._fit_reward(
        None, for_judge.X, for_judge.measured, judge_seed, for_judge.told, quiet=quiet
    )
    some = np.random.RandomState(judge_seed).permutation(len(for_reward))[:_N_CHECKED]
    estimator.judge_check_ = check_reward(estimator.judge_, for_reward.take(np.sort(some)))
    estimator.judge_spread_ = math.inf
    if len(for_judge) < len(rows):  # else there are no rows to test the judge on, and it forbids nothing
        estimator.judge_spread_ = _spread(estimator.judge_, for_judge, for_reward, judge_seed)


def _spread(judge: Any, rows: MeasuredRows, others: MeasuredRows, seed: int) -> float:
    """The factor that backtests find for a judge; with several quantities the largest of theirs."""
    if rows.targets is not None:
        parts = enumerate(judge.rewards_.values())
        return max(_spread(part, rows.of_target(i), others.of_target(i), seed) for i, part in parts)
    return backtest_spread(judge, rows.x, rows.y, others.x, others.y, seed, rows.row_noise().of_mean_weight())
