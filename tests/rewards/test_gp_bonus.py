import gpytorch
import numpy as np
import pytest
import torch
from torch import nn

from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.kernels._backend import launch
from braidkit.rewards import GPBonusReward, lower_coverage


def design_matrix(reward, X):
    """Features of the posterior: the scaled layer and a constant; float64."""
    with torch.no_grad():
        layer = reward.process_.features(reward.space_.encode(X)).double() / reward.process_.scale
    return torch.cat([layer, torch.ones(len(X), 1, dtype=torch.float64)], dim=1)


def standardised(reward, y):
    return torch.from_numpy((y - reward.y_mean_) / reward.y_std_)


NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU())


@pytest.mark.parametrize("features", [None, NETWORK], ids=["default", "own"])
@pytest.mark.parametrize("lam", [1e-2, 1.0])
def test_equals_gpytorch_exact_gp_with_a_linear_kernel(exact_gp, sequences, lam, features):
    X, y = sequences
    reward = GPBonusReward(features, lam=lam, max_iter=60, random_state=0).fit(X[:200], y[:200])
    kernel = gpytorch.kernels.LinearKernel()
    kernel.variance = 1.0
    phi, query = design_matrix(reward, X[:200]), design_matrix(reward, X[200:])
    expected_mean, expected_std = exact_gp(kernel, phi, standardised(reward, y[:200]), query, lam)
    mean, std = reward.predict(X[200:], return_std=True)
    np.testing.assert_allclose((mean - reward.y_mean_) / reward.y_std_, expected_mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(std / reward.y_std_, expected_std, rtol=0, atol=1e-6)


def test_more_features_than_rows_give_the_same_posterior_and_gradient(exact_gp, vectors, monkeypatch):
    X, y = vectors
    wide = nn.Sequential(nn.Linear(3, 400), nn.Tanh()).requires_grad_(False)
    reward = GPBonusReward(wide, lam=0.1, random_state=0).fit(X[:60], y[:60])
    assert reward.process_.inducing.width <= 61
    kernel = gpytorch.kernels.LinearKernel().double()
    kernel.variance = 1.0
    phi, query = (
        torch.cat([f, torch.ones_like(f[:, :1])], dim=1)
        for f in (reward.process_._scaled(reward.space_.encode(part)) for part in (X[:60], X[60:]))
    )
    expected_mean, expected_std = exact_gp(kernel, phi, standardised(reward, y[:60]), query, 0.1)
    mean, std = reward.predict(X[60:], return_std=True)
    np.testing.assert_allclose((mean - reward.y_mean_) / reward.y_std_, expected_mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(std / reward.y_std_, expected_std, rtol=0, atol=1e-5)
    monkeypatch.setattr("braidkit.rewards.layer.SUBSAMPLE", 59)  # all features, as for many rows
    full = GPBonusReward(wide, lam="auto", random_state=0).fit(X[:60], y[:60])
    monkeypatch.undo()
    few = GPBonusReward(wide, lam="auto", random_state=0).fit(X[:60], y[:60])
    assert full.process_.inducing is None and few.noise_ == pytest.approx(full.noise_, rel=1e-2)
    x = few.space_.encode(X[60:80]).requires_grad_()
    gradients = [torch.autograd.grad(one.lower(x).sum(), x)[0] for one in (few, full)]
    torch.testing.assert_close(*gradients, rtol=0.05, atol=0.02)


def test_equals_gpytorch_exact_gp_with_a_kernel_whose_inducing_points_are_the_data(exact_gp, vectors):
    X, y = vectors
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel()).requires_grad_(False)
    reward = GPBonusReward(nn.Identity(), kernel=kernel, lam=0.1, max_iter=1, random_state=0).fit(X[:100], y[:100])
    points = [reward.space_.encode(part).double() / reward.process_.scale for part in (X[:100], X[100:])]
    expected_mean, expected_std = exact_gp(kernel.double(), points[0], standardised(reward, y[:100]), points[1], 0.1)
    mean, std = reward.predict(X[100:], return_std=True)
    np.testing.assert_allclose((mean - reward.y_mean_) / reward.y_std_, expected_mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(std / reward.y_std_, expected_std, rtol=0, atol=1e-5)


def test_a_kernel_gives_the_same_penalty_and_gradient(sequences, triton_device, monkeypatch):
    X, y = sequences
    reward = GPBonusReward(NETWORK, c=1.0, lam=1.0, max_iter=20, device=triton_device, random_state=0).fit(
        X[:200], y[:200]
    )
    x = reward.space_.encode(X[200:220]).to(triton_device)
    launches = []

    def counted(*arguments, **constants):
        launches.append(arguments)
        launch(*arguments, **constants)

    def outcome():
        point = x.clone().requires_grad_()
        penalty = reward.mean_and_penalty(point)[1]
        return penalty, torch.autograd.grad(penalty.sum(), point)[0]

    monkeypatch.setattr("braidkit.kernels.posterior.launch", counted)
    found = outcome()
    assert len(launches) == 2  # forwards and backwards
    monkeypatch.setattr("braidkit.rewards._linear_posterior.has_kernels", lambda device: False)
    for ours, expected in zip(found, outcome(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5 * float(expected.detach().abs().max()))
    assert len(launches) == 2


def test_the_difference_of_two_averages_is_that_of_the_joint_posterior(exact_gp, sequences):
    X, y = sequences
    reward = GPBonusReward(lam=1.0, max_iter=60, random_state=0).fit(X[:200], y[:200])
    phi, one, other = (design_matrix(reward, part) for part in (X[:200], X[200:240], X[240:280]))
    difference, std = reward.mean_difference(*(reward.space_.encode(part) for part in (X[200:240], X[240:280])))
    pairs = reward.predict(X[200:240]) - reward.predict(X[240:280])
    assert difference == pytest.approx(pairs.mean() / reward.y_std_)
    # A linear function's average over points is its value at their average.
    kernel = gpytorch.kernels.LinearKernel()
    kernel.variance = 1.0
    query = (one - other).mean(dim=0, keepdim=True)
    _, of_means = exact_gp(kernel, phi, standardised(reward, y[:200]), query, 1.0)
    assert std**2 == pytest.approx(float(of_means[0]) ** 2 + pairs.var() / reward.y_std_**2 / 40, abs=1e-6)
    same = reward.space_.encode(X[200:240])
    assert reward.mean_difference(same, same) == (0.0, 0.0)


def test_a_kernel_is_fitted_on_a_copy(vectors):
    X, y = vectors
    kernel = gpytorch.kernels.RBFKernel()
    before = kernel.lengthscale.item()
    reward = GPBonusReward(kernel=kernel, n_inducing=40, max_iter=60, random_state=0).fit(X, y)
    assert kernel.lengthscale.item() == before
    assert kernel.lengthscale.dtype == torch.float32
    assert reward.process_.inducing.kernel.lengthscale.item() != before
    assert len(reward.process_.inducing.points) == 40
    assert reward.score(X, y) > 0.7


def test_few_inducing_points_leave_the_deviation_far_from_data(vectors):
    X, y = vectors
    kernel = gpytorch.kernels.RBFKernel().requires_grad_(False)
    reward = GPBonusReward(nn.Identity(), kernel=kernel, n_inducing=5, lam=1.0, max_iter=1, random_state=0).fit(X, y)
    _, std = reward.predict(X.mean(axis=0) + 100 * X.std(axis=0) * np.eye(3), return_std=True)
    np.testing.assert_allclose(std / reward.y_std_, 1.0, rtol=1e-6)


def test_few_sequences_are_told_by_the_part_of_the_kernel_that_they_ask_for():
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(800, 30))]
    noise = 0.2 * rng.normal(size=800)
    counts = np.array([row.count("TG") - row.count("CG") for row in X]) + noise
    letters = np.array([3.0 * (row[4] == "A") - (row[20] == "C") for row in X]) + noise
    for y, part in ((counts, "2-mers"), (letters, "letters")):
        reward = GPBonusReward(max_iter=50, random_state=0).fit(X[:200], y[:200])
        variances = reward.process_.variances
        assert max(variances, key=variances.get) == part
        assert reward.score(X[200:], y[200:]) > 0.7


def test_pure_noise_gives_no_predictive_power():
    rng = np.random.default_rng(0)
    found = []
    for seed in range(3):
        X = ["".join(row) for row in rng.choice(list("ACGT"), size=(1200, 15))]
        y = rng.normal(size=1200)
        found.append(GPBonusReward(random_state=seed).fit(X[:200], y[:200]).score(X[200:], y[200:]))
    assert np.mean(found) > -0.02


@pytest.mark.parametrize("kernel", [None, gpytorch.kernels.RBFKernel()], ids=["linear", "kernel"])
def test_noise_is_found_for_features_of_one_s_own(kernel):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    r = X @ [1.0, -1.0, 0.5, 0.0]
    y = r + 0.5 * rng.normal(size=400)
    reward = GPBonusReward(nn.Identity(), kernel=kernel, random_state=0).fit(X[:300], y[:300])
    assert reward.noise_ == pytest.approx(0.5, rel=0.3)
    mean, std = reward.predict(X[300:], return_std=True)
    assert 0.4 < np.sqrt(np.mean(((r[300:] - mean) / std) ** 2)) < 2.5


def test_the_penalty_grows_on_sequences_of_another_composition():
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(500, 30))]
    y = np.array([float(row.count("C")) for row in X]) + 0.2 * rng.normal(size=500)
    reward = GPBonusReward(max_iter=50, random_state=0).fit(X[:300], y[:300])
    usual = reward.predict(X[300:], return_std=True)[1]
    odd = reward.predict([letter * 30 for letter in "ACGT"], return_std=True)[1]
    assert odd.min() > 2 * usual.max()


def test_features_without_anything_to_learn_are_not_trained(vectors):
    X, y = vectors
    reward = GPBonusReward(nn.Flatten(), random_state=0).fit(X, y)
    assert reward.n_iter_ == 0
    assert reward.score(X, y) > 0.5


def test_the_layer_has_mean_square_norm_one_on_the_rows(sequences):
    X, y = sequences
    reward = GPBonusReward(lam=1.0, max_iter=60, random_state=0).fit(X, y)
    assert design_matrix(reward, X)[:, :-1].square().sum(dim=1).mean().item() == pytest.approx(1.0, rel=1e-6)


def test_the_penalty_is_c_times_the_deviation(vectors):
    X, y = vectors
    reward = GPBonusReward(c=1.5, max_iter=60, random_state=0).fit(X, y)
    mean, std = reward.predict(X, return_std=True)
    np.testing.assert_allclose(reward.predict_lower(X), mean - 1.5 * std, rtol=1e-12)
    assert (std > 0).all()


def test_a_larger_c_never_raises_the_bound(vectors):
    X, y = vectors
    bounds = [GPBonusReward(c=c, max_iter=5, random_state=0).fit(X, y).predict_lower(X) for c in (0.0, 0.1, 1.0, 10.0)]
    assert all((tighter <= looser).all() for looser, tighter in zip(bounds, bounds[1:], strict=False))


def test_without_a_penalty_the_bound_is_the_mean(vectors):
    X, y = vectors
    reward = GPBonusReward(c=0, max_iter=60, random_state=0).fit(X, y)
    np.testing.assert_array_equal(reward.predict_lower(X), reward.predict(X))


def test_the_deviation_grows_away_from_the_data(vectors):
    X, y = vectors
    reward = GPBonusReward(max_iter=60, random_state=0).fit(X, y)
    centre, scale = X.mean(axis=0), X.std(axis=0)
    _, std = reward.predict(centre + scale * np.array([[0.0], [10.0], [100.0]]), return_std=True)
    assert std[0] < std[1] < std[2]


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_a_calibrated_bound_holds_on_new_rows(level):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 2))
    y = X[:, 0] + 0.5 * rng.standard_t(4, size=3000)
    reward = GPBonusReward(c="calibrated", level=level, max_iter=20, random_state=0).fit(X[:600], y[:600])
    # 60 rows calibrate: the coverage is Beta-distributed with a deviation of at most 0.06.
    assert lower_coverage(reward, X[600:], y[600:])["overall"] == pytest.approx(level, abs=0.08)
    assert reward.c_ > 1.0


def test_with_known_noise_the_calibrated_bound_is_of_the_noiseless_reward():
    # A linear truth that two hidden layers fit well: nearly all of the held-out error is noise, in y's units.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2))
    r = 10 * X[:, 0]
    y = r + 5 * rng.normal(size=600)
    settings = {"c": "calibrated", "max_iter": 100, "random_state": 0}
    cautious, informed = (GPBonusReward(**settings, noise=noise).fit(X, y) for noise in (0.0, 4.5))
    assert informed.c_ < 0.8 * cautious.c_
    assert np.mean(r >= informed.predict_lower(X)) > 0.9


def test_calibration_rows_are_seen_by_nothing_else(vectors):
    X, y = vectors
    reward = GPBonusReward(c="calibrated", lam=1.0, max_iter=60, random_state=0).fit(X, y)
    n_seen = reward.process_.posterior.gram[-1, -1].item()  # the constant's square, summed over rows
    assert n_seen == len(X) - 20
    by_evidence = GPBonusReward(c="calibrated", max_iter=60, random_state=0).fit(X, y)
    assert len(by_evidence.process_.weights) == len(X) - 20
    fixed = GPBonusReward(lam=1.0, max_iter=60, random_state=0).fit(X, y)
    assert fixed.process_.posterior.gram[-1, -1].item() == len(X)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"c": -0.1}, r"c must be a number >= 0 or .calibrated.; got -0.1"),
        ({"noise": -1}, "noise must be a number >= 0; got -1"),
        ({"c": "conformal"}, r'c must be a number >= 0 or "calibrated"; got \'conformal\''),
        ({"lam": 0.0}, "lam must be a number > 0 or .auto.; got 0.0"),
        ({"level": 1.0}, "level must be a number > 0 and < 1; got 1.0"),
        ({"n_inducing": 0}, "n_inducing must be a whole number of at least 1; got 0"),
        ({"kernel": "rbf"}, "kernel must be a gpytorch kernel or None; got 'rbf'"),
        (
            {"c": "calibrated", "validation_fraction": 0.05},
            "needs 380 different designs, of which 0.05.* there are 200",
        ),
        ({"c": "calibrated", "validation_fraction": 0.5}, "leaves fewer than 2 of 200 different designs to train on"),
    ],
)
def test_parameters_are_checked_before_training(vectors, parameters, message):
    X, y = vectors
    with pytest.raises(InvalidParameterError, match=message):
        GPBonusReward(max_iter=10**9).set_params(**parameters).fit(X, y)


def test_a_kernel_of_another_width_is_refused(vectors):
    X, y = vectors
    kernel = gpytorch.kernels.RBFKernel(ard_num_dims=7)
    with pytest.raises(IncompatibleModelError, match="kernel cannot be applied to 3 features"):
        GPBonusReward(nn.Identity(), kernel=kernel, max_iter=1).fit(X, y)
