"""What is known of the noise of rows: weights are repeated rows, standard errors are variances of the noise."""

import gpytorch
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from braidkit import BootstrapReward, GPBonusReward
from braidkit.exceptions import InvalidTargetError
from braidkit.finetuning.judge import backtest_spread
from braidkit.rewards import sum_kernel
from braidkit.rewards.evidence import fit_variances
from braidkit.rewards.parts import parts_for
from braidkit.rewards.row_noise import RowNoise, merge_rows
from braidkit.rewards.sum_kernel import SumKernelProcess
from braidkit.spaces import VectorSpace

RNG = np.random.default_rng(0)


SPACE = VectorSpace(3)  # of columns as they are


def data(n=40, d=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, X[:, 0] - 0.5 * X[:, 1] + 0.3 * rng.normal(size=n), rng


class Unscaled(nn.Module):
    """Features that no scale is taken from, since their mean square norm on any row is 1."""

    def forward(self, x):
        angle = x.sum(dim=1, keepdim=True)
        return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


@pytest.mark.parametrize("kernel", [None, gpytorch.kernels.RBFKernel().requires_grad_(False)])
@pytest.mark.parametrize("lam", [0.5, "auto"])
def test_a_weight_is_so_many_rows_in_weight_space(kernel, lam):
    X, y, rng = data()
    weights = rng.integers(0, 4, size=40)
    settings = {"features": Unscaled(), "kernel": kernel, "lam": lam, "validation_fraction": 0.0, "space": SPACE}
    weighted = GPBonusReward(**settings).fit(X, y, sample_weight=weights)
    repeated = GPBonusReward(**settings).fit(X.repeat(weights, axis=0), y.repeat(weights))
    for one, other in zip(weighted.predict(X, return_std=True), repeated.predict(X, return_std=True), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert weighted.noise_ == pytest.approx(repeated.noise_, rel=1e-6)
    assert np.ptp(weighted.predict(X) - GPBonusReward(**settings).fit(X, y).predict(X)) > 1e-2
    if lam == "auto":  # ratios alone count
        tenfold = GPBonusReward(**settings).fit(X, y, sample_weight=10 * weights)
        np.testing.assert_allclose(tenfold.predict(X), weighted.predict(X), rtol=1e-6)


def test_in_weight_space_it_is_weighted_ridge():
    X, y, rng = data()
    weights = rng.uniform(0.1, 3, size=40)
    reward = GPBonusReward(Unscaled(), lam=0.7, validation_fraction=0.0, space=SPACE)
    reward.fit(X, y, sample_weight=weights)
    mean = np.average(y, weights=weights)
    std = np.average((y - mean) ** 2, weights=weights) ** 0.5
    with torch.no_grad():
        phi = np.c_[Unscaled()(torch.from_numpy(X)).numpy(), np.ones(40)]
    A = (weights[:, None] * phi).T @ phi + 0.7 * np.eye(3)
    expected = mean + std * phi @ np.linalg.solve(A, phi.T @ (weights * (y - mean) / std))
    np.testing.assert_allclose(reward.predict(X), expected, rtol=1e-5)


@pytest.mark.parametrize("kernel", [None, gpytorch.kernels.RBFKernel().requires_grad_(False)])
def test_standard_errors_are_variances_of_rows_beside_lam(kernel):
    X, y, rng = data()
    errors = rng.uniform(0.05, 2, size=40)
    reward = GPBonusReward(Unscaled(), kernel=kernel, lam=0.2, validation_fraction=0.0, space=SPACE)
    reward.fit(X, y, y_error=errors)
    with torch.no_grad():
        f = Unscaled()(torch.from_numpy(X)).double()
        K = (f @ f.T + 1 if kernel is None else kernel.double()(f).to_dense()).numpy()
    A = K + np.diag(0.2 + (errors / y.std()) ** 2)
    mean, std = reward.predict(X, return_std=True)
    np.testing.assert_allclose(mean, y.mean() + K @ np.linalg.solve(A, y - y.mean()), rtol=1e-4)
    variance = np.diag(K - K @ np.linalg.solve(A, K)) * y.var()
    np.testing.assert_allclose(std, variance**0.5, rtol=1e-3, atol=1e-4)


def process_of(x, y, noise):
    space = VectorSpace(x.shape[1])
    return SumKernelProcess(parts_for(space, x)).fit(x, y, None, row_noise=noise, random_state=np.random.RandomState(0))


def kernel_of(process, x):
    with torch.no_grad():
        views = process._views(x, None)
        return process._kernel(views, views)


def test_a_sum_of_kernels_solves_with_the_noise_of_each_row():
    X, y, rng = data(60)
    x, y = torch.from_numpy(X), torch.from_numpy((y - y.mean()) / y.std())
    noise = RowNoise.read(50, rng.uniform(0.2, 3, 50), rng.uniform(0.1, 1.5, 50))
    process = process_of(x[:50], y[:50], noise)
    K = kernel_of(process, x)
    variances = process.noise / noise.weights + noise.known
    A = K[:50, :50] + torch.from_numpy(variances).diag()
    with torch.no_grad():
        mean, variance = process(x)
    expected = K[:, :50] @ torch.linalg.solve(A, y[:50])
    share = float(expected @ mean / expected.square().sum())  # one factor, by rows left out
    assert 0.5 < share <= 1 + 1e-9
    torch.testing.assert_close(mean, share * expected, rtol=0, atol=1e-6)
    joint = (K - K[:, :50] @ torch.linalg.solve(A, K[:50])).diagonal()
    torch.testing.assert_close(variance, joint, rtol=0, atol=1e-6)
    torch.testing.assert_close(process.linear_features(x) @ process.coefficients, mean, rtol=0, atol=1e-6)


def test_points_that_stand_for_all_rows_see_their_noise(monkeypatch):
    X, y, rng = data(50)
    x, y = torch.from_numpy(X), torch.from_numpy((y - y.mean()) / y.std())
    noise = RowNoise.read(50, rng.uniform(0.2, 3, 50), rng.uniform(0.1, 1.5, 50))
    exact = process_of(x, y, noise)
    monkeypatch.setattr(sum_kernel, "MAX_POINTS", 0)
    monkeypatch.setattr(sum_kernel, "SOME_POINTS", 50)
    some = process_of(x, y, noise)
    with torch.no_grad():
        (one, variance), (other, other_variance) = exact(x), some(x)
    torch.testing.assert_close(one / one.norm(), other / other.norm(), rtol=0, atol=1e-5)
    torch.testing.assert_close(variance, other_variance, rtol=0, atol=1e-5)


def test_variances_of_parts_are_fitted_on_more_rows_than_choose_the_parts(monkeypatch):
    X, y, rng = data(400)
    x, y = torch.from_numpy(X), torch.from_numpy((y - y.mean()) / y.std())
    all_rows = process_of(x, y, RowNoise.read(400))
    monkeypatch.setattr(sum_kernel, "SELECTION_ROWS", 40)
    refitted = process_of(x, y, RowNoise.read(400))
    monkeypatch.setattr(sum_kernel, "EVIDENCE_ROWS", 40)
    few_rows = process_of(x, y, RowNoise.read(400))
    assert abs(np.log(refitted.noise / all_rows.noise)) < abs(np.log(few_rows.noise / all_rows.noise)) / 2


def test_the_evidence_of_merged_rows_is_that_of_all():
    X, y, rng = data(30)
    space = VectorSpace(3)
    counts = rng.integers(1, 4, size=30)
    y = (y - y.mean()).repeat(counts) + 0.5 * rng.normal(size=counts.sum())
    x = space.points(X.repeat(counts, axis=0))
    groups = np.arange(30).repeat(counts)
    merged, means, noise, _ = merge_rows(x, y, RowNoise.read(len(y)), groups)
    assert len(merged) == 30 and noise.weights.tolist() == counts.tolist()

    def grams(points):
        return torch.stack([f @ f.T for f in (points[:].double(), torch.sin(3 * points[:].double()))])

    found, of_all = (
        fit_variances(grams(merged), torch.from_numpy(means), row_noise=noise),
        fit_variances(grams(x), torch.from_numpy(y)),
    )
    assert found.noise == pytest.approx(of_all.noise, rel=1e-3)
    # The two differ by what no variance changes.
    assert found.log_evidence + 0.5 * np.log(counts).sum() * -1 - 0.5 * np.log(2 * np.pi) * (
        len(y) - 30
    ) == pytest.approx(of_all.log_evidence, abs=1e-4)


def test_the_evidence_is_that_of_a_normal_law_with_each_row_s_noise():
    X, y, rng = data(30)
    y = torch.from_numpy(y - y.mean())
    gram = torch.from_numpy(X @ X.T)
    noise = RowNoise.read(30, None, rng.uniform(0.1, 1.5, 30))
    found = fit_variances(gram[None], y, row_noise=noise)
    covariance = found.parts[0] * gram + 1.0 + torch.from_numpy(found.noise + noise.known).diag()
    alone = 1.0 + torch.from_numpy(max(1 - noise.known.mean(), 1e-4) + noise.known).diag()
    log_densities = [MultivariateNormal(torch.zeros(30).double(), c).log_prob(y) for c in (covariance, alone)]
    assert found.gain == pytest.approx(float(log_densities[0] - log_densities[1]))


@pytest.mark.parametrize("kind", [GPBonusReward, BootstrapReward])
def test_a_reward_looks_away_from_rows_that_are_known_to_be_poor(kind):
    X, y, rng = data(200)
    errors = np.where(rng.random(200) < 0.5, 0.05, 5.0)
    y = y + errors * rng.normal(size=200)
    new, truth, _ = data(200, seed=1)
    settings = {"max_iter": 60, "random_state": 0}
    scores = [
        kind(**settings).fit(X, y, **told).score(new, truth)
        for told in ({}, {"y_error": errors}, {"sample_weight": 1 / (0.1 + errors**2)})
    ]
    assert min(scores[1:]) > scores[0] + 0.1, scores


def test_known_noise_is_not_charged_to_a_calibrated_bound():
    X, y, rng = data(400)
    errors = rng.uniform(1, 3, size=400)
    y = y + errors * rng.normal(size=400)
    settings = {"features": nn.Flatten(), "c": "calibrated", "random_state": 0}
    of_measurements = GPBonusReward(**settings).fit(X, y)
    of_rewards = GPBonusReward(**settings).fit(X, y, y_error=errors)
    assert of_rewards.c_ < 0.5 * of_measurements.c_


def test_replicates_tell_the_noise_and_are_one_row():
    X, y, rng = data(60)
    values = y[:, None] + 0.8 * rng.normal(size=(60, 4))
    reward = GPBonusReward(random_state=0).fit(X.repeat(4, axis=0), values.ravel())
    assert reward.noise_ == pytest.approx(0.8, rel=0.15)
    assert len(reward.process_.weights) == 60


WRONG = [
    (
        {"sample_weight": [1, -2, 1] + [1] * 37},
        InvalidTargetError,
        r"sample_weight: row 1 is -2 \(1 such rows\); pass 0",
    ),
    ({"sample_weight": [1, np.nan] + [1] * 38}, InvalidTargetError, "sample_weight contains NaN: row 1 is nan"),
    ({"sample_weight": np.zeros(40)}, InvalidTargetError, "sample_weight is zero in all rows; pass a weight above 0"),
    ({"sample_weight": [1, 2]}, InvalidTargetError, "sample_weight has 2 entries for 40 rows; pass one for each row"),
    ({"y_error": [0.0] + [1.0] * 39}, InvalidTargetError, "y_error: row 0 is 0 .* nothing is exact: pass a standard"),
    ({"y_error": ["a"] + [1.0] * 39}, InvalidTargetError, "y_error: row 0 is 'a', which is not a number"),
]


@pytest.mark.parametrize(("told", "error", "text"), WRONG)
@pytest.mark.parametrize("kind", [GPBonusReward, BootstrapReward])
def test_weights_and_errors_that_cannot_be_are_refused(kind, told, error, text):
    X, y, _ = data()
    with pytest.raises(error, match=text):
        kind().fit(X, y, **told)


def test_backtests_of_the_judge_weigh_its_rows():
    X, y, rng = data(400)
    judge = GPBonusReward(nn.Flatten(), random_state=0).fit(X[:200], y[:200])
    x = judge.space_.points(X)
    parts = (x.take(np.arange(200)), y[:200].copy(), x.take(np.arange(200, 400)), y[200:])
    parts[1][:100] += 5 * rng.normal(size=100)
    told = RowNoise.read(200, None, np.repeat([5.0, 1e-9], 100))
    assert backtest_spread(judge, *parts, 0, told) < 0.6 * backtest_spread(judge, *parts, 0)
