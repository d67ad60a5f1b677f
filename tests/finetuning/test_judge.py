"""A judge may be trusted as far as it says: deviations by backtests, and a rate of false vetoes over whole runs."""

import math

import numpy as np
import pytest
import torch

from braidkit import GPBonusReward
from braidkit.finetuning.choice import FALSE_ALARM_RATE, HighestObjective, sure_deviations
from braidkit.finetuning.judge import N_DIRECTIONS, CalibratedJudge, _solve, backtest_spread
from braidkit.finetuning.measurement import Evaluation
from braidkit.rewards._linear_posterior import LinearPosterior

N_FEATURES, N_EVALUATIONS = 6, 21


def bend(X):
    """A truth that a linear judge cannot follow beyond its rows."""
    return 3 * np.tanh(X[:, 0]) - 0.5 * X[:, 0] ** 2 + X[:, 1:3].sum(axis=1)


def world(truth, seed, n=400):
    """A linear judge of some rows, other rows, and its spread."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2 * n, N_FEATURES))
    y = truth(X) + 0.5 * rng.normal(size=2 * n)
    judge = GPBonusReward(torch.nn.Flatten(), random_state=0).fit(X[:n], y[:n])
    points = judge.space_.points(X)
    parts = [(points.take(rows), y[rows]) for rows in (np.arange(n), np.arange(n, 2 * n))]
    return judge, backtest_spread(judge, *parts[0], *parts[1], seed)


def test_the_spread_is_about_one_where_the_model_is_right_and_large_where_it_is_not():
    right = [world(lambda X: X.sum(axis=1), seed, n=2000)[1] for seed in range(4)]
    wrong = [world(bend, seed, n=2000)[1] for seed in range(4)]
    assert min(right) >= 1 and max(right) < 2 < min(wrong), (right, wrong)


def test_the_spread_multiplies_deviations_and_nothing_else():
    judge, spread = world(bend, 0)
    x, other = (torch.randn(50, N_FEATURES, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    difference, std = judge.mean_difference(x, other)
    assert CalibratedJudge(judge, spread).mean_difference(x, other) == (difference, pytest.approx(spread * std))
    assert torch.equal(CalibratedJudge(judge, 3.0).standardised(x)[0], judge.standardised(x)[0])
    assert (judge.y_mean_, judge.y_std_) == (CalibratedJudge(judge).y_mean_, CalibratedJudge(judge).y_std_)


def test_so_many_deviations_are_sure_of_all_pairs():
    assert sure_deviations(2, math.inf) == pytest.approx(1.96, abs=1e-3)  # of one pair, in either order
    assert sure_deviations(21, math.inf) == pytest.approx(3.675, abs=1e-2)
    assert sure_deviations(21, 20) > sure_deviations(21, math.inf) > sure_deviations(5, math.inf)


@pytest.mark.parametrize("n", [4, 30])
def test_a_backtest_solves_the_posterior_by_either_gram_matrix(n):
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(n, 9, generator=generator, dtype=torch.float64)
    vector, y = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (9, n))
    posterior = LinearPosterior.from_batches([(phi, y)], n_features=9, lam=0.7)
    solved = _solve(phi, 0.7, vector)
    torch.testing.assert_close(solved @ (phi.T @ y), posterior.mean(vector[None])[0])
    torch.testing.assert_close(0.7 * solved @ vector, posterior.variance(vector[None])[0])


class Errors:
    """A judge of equal checkpoints: all that it sees is its own errors, of a deviation that it had to estimate."""

    y_mean_, y_std_ = 0.0, 1.0

    def __init__(self, rng, correlated):
        steps = rng.normal(size=(N_EVALUATIONS, 8))
        self.features = steps.cumsum(axis=0) / 4 if correlated else steps
        self.errors = self.features @ rng.normal(size=8)
        self.estimate = math.sqrt(rng.chisquare(N_DIRECTIONS) / N_DIRECTIONS)

    def mean_difference(self, x, other):
        k, j = int(x[0, 0]), int(other[0, 0])
        std = np.linalg.norm(self.features[k] - self.features[j])
        return self.errors[k] - self.errors[j], self.estimate * std


@pytest.mark.parametrize("correlated", [False, True])
def test_false_rejections_of_the_judge_stay_below_the_stated_rate(correlated):
    """21 equal checkpoints: two deviations, and no correction for the favourite, would veto in most runs."""
    rng = np.random.default_rng(0)
    rates = []
    for sure in (None, 2.0):
        n_vetoes = 0
        for _ in range(200):
            judge = Errors(rng, correlated)
            choice = HighestObjective(judge, N_EVALUATIONS)
            choice.sure = sure or choice.sure
            seen = [
                choice(Evaluation(k, torch.full((1, 1), float(k)), rng.normal(), judge.errors[k], {}))
                for k in range(N_EVALUATIONS)
            ]
            n_vetoes += any(verdict.is_worse for verdict in seen)
        rates.append(n_vetoes / 200)
    assert rates[0] <= FALSE_ALARM_RATE and rates[1] > 0.2


def test_a_judge_without_rows_of_its_own_forbids_nothing():
    choice = HighestObjective(CalibratedJudge(world(bend, 0)[0], math.inf), N_EVALUATIONS)
    for k, level in enumerate((0.0, 9.0, -9.0)):
        designs = torch.full((20, N_FEATURES), level)
        assert choice(Evaluation(k, designs, float(k), level, {})).is_best
