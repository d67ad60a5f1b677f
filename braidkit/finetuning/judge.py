"""Calibrate the judge's standard deviations by backtests, because it has to judge designs beyond its data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from torch import Tensor

from braidkit.rewards import GPBonusReward
from braidkit.rewards.features import PREDICT_BATCH
from braidkit.rewards.row_noise import RowNoise
from braidkit.spaces import Points

# Most rows used on each side, number of directions, and shares of the rows that a backtest is fitted on.
_MOST_ROWS = 3000
N_DIRECTIONS = 20
_SHARES = (0.5, 0.6, 0.7, 0.8)
# A judge whose error on unseen rows is more times the reward's has too few rows to contradict it.
MAX_ERROR_RATIO = 1.2


class CalibratedJudge:
    """A judge whose standard deviations of differences are multiplied by a factor that backtests found.

    The posterior's deviations would be right if its features and its `lam` were right. They are not. A predicted
    difference between designs and data may be wrong by several deviations, and by more of them with more rows.

    Parameters
    ----------
    reward : fitted GPBonusReward
    spread : float, default=1.0
        From `backtest_spread`.
    """

    def __init__(self, reward: GPBonusReward, spread: float = 1.0) -> None:
        self.reward = reward
        self.spread = spread
        self.y_mean_, self.y_std_ = reward.y_mean_, reward.y_std_

    def standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The judge's mean and penalty (n,) of points, for y of mean 0 and deviation 1."""
        return self.reward.standardised(x)

    def mean_difference(self, x: Tensor, other: Tensor) -> tuple[float, float]:
        """Mean difference between points and others, and its standard deviation, in standard deviations of y."""
        difference, std = self.posterior_difference(x, other)
        return difference, self.spread * std

    def posterior_difference(self, x: Tensor, other: Tensor) -> tuple[float, float]:
        """The same with the posterior's own deviation."""
        return self.reward.mean_difference(x, other)


def knows_enough(estimator: Any) -> bool:
    """Whether the judge of an estimator predicts unseen rows about as well as the reward does.

    A judge of few rows falls back to their mean beyond them. Then it finds the best designs far worse than the reward
    does, also where the reward is right. A frozen reward may have seen the judge's rows, so that nothing is known of
    its error.
    """
    if isinstance(estimator.reward, FrozenEstimator):
        return True
    own, of_reward = (1 - check["r2"] for check in (estimator.judge_check_, estimator.reward_check_))
    return own <= MAX_ERROR_RATIO**2 * of_reward


@torch.no_grad()
def backtest_spread(
    reward: GPBonusReward,
    x: Points,
    y: np.ndarray,
    other_x: Points,
    other_y: np.ndarray,
    seed: int,
    row_noise: RowNoise | None = None,
) -> float:
    """Estimate the factor by which a judge's standard deviations are too small beyond its rows.

    The rows are ordered along a direction in the features. The posterior is solved again on the lower rows of the judge
    alone. It then predicts how much better the highest quarter of the other rows is than the lower ones. The error of
    this prediction, divided by its deviation, has a mean square of 1 if the deviation is right. One direction is that
    of the judge's mean, cut at several places; the others are random. The larger of the two mean squares is used.

    Parameters
    ----------
    reward : fitted GPBonusReward
        The judge.
    x, y : Tensor of shape (n, \\*space.shape), ndarray of shape (n,)
        Its rows.
    other_x, other_y
        Rows that it has not seen.
    seed : int
    row_noise : RowNoise, optional
        Noise of the judge's rows, in y's units.

    Returns
    -------
    spread : float
        At least 1.
    """
    rng = np.random.RandomState(seed)
    row_noise = RowNoise.read(len(y)) if row_noise is None else row_noise
    roots = row_noise.over(reward.y_std_).root_precision(reward.process_.noise)
    (phi, target, some), (other_phi, other_target, _) = (
        _sample(reward, points, values, rng) for points, values in ((x, y), (other_x, other_y))
    )
    root = roots[some].to(phi)
    random = (
        torch.from_numpy(rng.normal(size=(phi.shape[1], N_DIRECTIONS))).to(phi)
        / phi.std(dim=0).clamp_min(1e-9)[:, None]
    )
    cuts = (
        [(reward.process_.coefficients, share) for share in _SHARES],
        [(random[:, i], 0.7) for i in range(N_DIRECTIONS)],
    )
    squares = [
        [_squared_error(reward.process_.noise, phi, target, root, other_phi, other_target, *cut) for cut in kind]
        for kind in cuts
    ]
    return max(1.0, *(float(np.mean(kind)) for kind in squares)) ** 0.5


def _sample(
    reward: GPBonusReward, x: Points, y: np.ndarray, rng: np.random.RandomState
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Features (n, d) and standardised measurements (n,) of some rows, and the numbers of these."""
    rows = rng.permutation(len(y))[:_MOST_ROWS]
    parts = np.array_split(rows, math.ceil(len(rows) / PREDICT_BATCH))
    phi = torch.cat([reward.process_.linear_features(x[part].float().to(reward.device_)) for part in parts])
    return phi, torch.from_numpy((y[rows] - reward.y_mean_) / reward.y_std_).to(phi), rows


def _squared_error(
    lam: float,
    phi: Tensor,
    y: Tensor,
    root: Tensor,
    other_phi: Tensor,
    other_y: Tensor,
    direction: Tensor,
    share: float,
) -> float:
    """Squared error of a predicted difference beyond a cut, divided by its variance; includes the noise of the rows.

    Rows times `root` (n,) have noise of variance `lam`.
    """
    # Designs lie beyond the data in the direction of a high reward. So cut the rows there, and predict beyond the cut.
    place, other_place = phi @ direction, other_phi @ direction
    cut = place.quantile(share)
    lower, rest = place <= cut, other_place <= cut
    top = other_place >= other_place.quantile(0.75)
    if top.sum() < 2 or rest.sum() < 2:
        return 1.0
    contrast = other_phi[top].mean(dim=0) - other_phi[rest].mean(dim=0)
    below = root[lower, None] * phi[lower]
    solved = _solve(below, lam, contrast)
    error = solved @ (below.T @ (root[lower] * y[lower])) - (other_y[top].mean() - other_y[rest].mean())
    # Measured averages have an error of their own, which the judge's deviation does not contain.
    noise = other_y[top].var() / top.sum() + other_y[rest].var() / rest.sum()
    return float(error.square() / (lam * contrast @ solved + noise))


def _solve(phi: Tensor, lam: float, vector: Tensor) -> Tensor:
    """(Phi^T Phi + lam I)^-1 v (d,) for features (n, d), by the smaller of the two Gram matrices."""
    n, d = phi.shape
    if n >= d:
        gram = phi.T @ phi + lam * torch.eye(d).to(phi)
        return torch.cholesky_solve(vector[:, None], torch.linalg.cholesky(gram))[:, 0]
    gram = phi @ phi.T + lam * torch.eye(n).to(phi)
    inner = torch.cholesky_solve((phi @ vector)[:, None], torch.linalg.cholesky(gram))[:, 0]
    return (vector - phi.T @ inner) / lam
