"""Scales of columns by evidence, and what they give the default reward on vectors."""

import numpy as np
import pytest
import torch

from braidkit import GPBonusReward
from braidkit.rewards.column_scales import fit_scales, rough, smooth
from braidkit.rewards.evidence import CONSTANT, Variances, better_left_out, fit_variances, left_out_score
from braidkit.rewards.parts import VectorParts
from braidkit.rewards.row_noise import RowNoise


def rows(n, d, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


def standardised(y):
    return (y - y.mean()) / y.std()


def friedman(X):
    return 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]


def r2(reward, X, y):
    return 1 - np.mean((reward.predict(X) - y) ** 2) / y.var()


@pytest.mark.parametrize("kernel", [smooth, rough])
def test_columns_that_matter_have_the_largest_scales(kernel):
    x = rows(150, 12)
    noise = 0.3 * rows(150, 1, seed=1)[:, 0]
    y = standardised(torch.sin(2 * x[:, 3]) + (x[:, 7] > 0) + noise)
    scales = fit_scales(kernel, x, y)
    others = np.delete(scales.numpy(), [3, 7])
    assert min(scales[3], scales[7]) > 5 * others.max()


def test_a_constant_column_keeps_its_scale():
    x = rows(60, 3)
    x[:, 1] = 0.0
    start = torch.tensor([0.5, 0.7, 0.5], dtype=torch.float64)
    assert float(fit_scales(smooth, x, standardised(x[:, 0]), start=start)[1]) == pytest.approx(0.7)


def test_rows_of_next_to_no_weight_do_not_set_scales():
    x = rows(200, 6)
    y = torch.where(torch.arange(200) < 100, x[:, 0], x[:, 1]).mul(2).cos()
    weights = np.where(np.arange(200) < 100, 1.0, 1e-6)
    scales = fit_scales(smooth, x, standardised(y), RowNoise.read(200, weights))
    assert scales[0] > 5 * scales[1]


def test_a_reward_finds_the_columns_of_a_function():
    """Half of the columns do nothing; kernels that treat all alike have an R2 of 0.8."""
    X = np.random.default_rng(0).random((1200, 10))
    y = friedman(X)
    noisy = y + 0.25 * y.std() * np.random.default_rng(1).normal(size=len(y))
    reward = GPBonusReward(random_state=0).fit(X[:200], noisy[:200])
    assert r2(reward, X[200:], y[200:]) > 0.92
    assert (y[200:] >= reward.predict_lower(X[200:])).mean() > 0.7


def test_a_reward_of_hundreds_of_columns_does_not_explain_noise():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 200)), rng.normal(size=300)
    reward = GPBonusReward(random_state=0).fit(X[:100], y[:100])
    assert r2(reward, X[100:], y[100:]) > -0.1


def test_a_reward_has_steps_and_products():
    X = np.random.default_rng(0).random((900, 4))
    for y in (2.0 * (X[:, 0] > 0.5) + (X[:, 1] > 0.3) * (X[:, 2] > 0.6), (X[:, 0] - X[:, 1]) * X[:, 2]):
        reward = GPBonusReward(random_state=0).fit(X[:300], y[:300])
        assert r2(reward, X[300:], y[300:]) > 0.85


def test_the_rough_part_sees_the_columns_that_matter_among_hundreds():
    x = rows(150, 100)
    parts = VectorParts(x, learns_scales=True)
    parts.learn(x, standardised(x[:, 90] + x[:, 95]), RowNoise.read(150))
    assert {90, 95} <= set(parts.rough_columns.tolist())


def test_left_out_rows_are_predicted_from_the_others():
    x = rows(25, 2)
    y = standardised(x[:, 0])
    gram = x @ x.T / 2
    found = Variances(torch.tensor([0.8], dtype=torch.float64), 0.3, 0.0, 0.0)
    covariance, expected = 0.8 * gram + CONSTANT + 0.3 * torch.eye(25), 0.0
    for fold in range(5):
        own = torch.arange(25) % 5 == fold
        solve = torch.linalg.solve(covariance[~own][:, ~own], covariance[~own][:, own]).T
        mean = solve @ y[~own]
        variance = (covariance[own][:, own] - solve @ covariance[~own][:, own]).diagonal()
        expected += float(torch.distributions.Normal(mean, variance.sqrt()).log_prob(y[own]).sum())
    assert left_out_score(gram[None], found, y, RowNoise.read(25)) == pytest.approx(expected)


def test_a_part_that_predicts_left_out_rows_no_better_is_dropped():
    x = rows(100, 2)
    y = standardised(x[:, 0] + 0.3 * rows(100, 1, seed=1)[:, 0])
    luck = rows(100, 1, seed=2)
    grams = {"linear": x @ x.T / 2, "doubted": luck @ luck.T}
    for doubted, kept in (("doubted", ["linear"]), ("linear", ["linear", "doubted"])):
        found = fit_variances(torch.stack(list(grams.values())), y)
        assert better_left_out(grams, doubted, found, y, RowNoise.read(100))[0] == kept
