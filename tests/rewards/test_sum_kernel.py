import gpytorch
import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from braidkit.networks import LatentFeatures
from braidkit.rewards import sum_kernel
from braidkit.rewards.cross_fitting import cross_fit
from braidkit.rewards.parts import parts_for
from braidkit.rewards.sum_kernel import NETWORK, SumKernelProcess, left_out_share
from braidkit.spaces import SequenceSpace, VectorSpace


def random_sequences(n, length, rng):
    return ["".join(row) for row in rng.choice(list("ACGT"), size=(n, length))]


def standardised(y):
    return torch.from_numpy((y - y.mean()) / y.std())


def fitted(space, x, y, seed=0, held_out=None, networks=None):
    process = SumKernelProcess(parts_for(space, x), networks)
    return process.fit(x, y, held_out, random_state=np.random.RandomState(seed))


def r2(process, x, y):
    with torch.no_grad():
        return float(1 - (process(x)[0] - y).square().mean() / y.var())


def test_equals_gpytorch_exact_gp_with_the_summed_kernel():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(120, 3)))
    y = standardised(np.sin(x[:, 0].numpy()) + 0.2 * rng.normal(size=120))
    process = fitted(VectorSpace(3), x[:100], y[:100])
    parts, names = process.parts, list(process.variances)

    class SumKernel(gpytorch.kernels.Kernel):
        def forward(self, a, b, **params):
            matrices = parts.matrices(parts.views(a), parts.views(b), names)
            return 1.0 + sum(process.variances[name] * matrices[name] for name in names)

    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.Positive())
    model = gpytorch.models.ExactGP(x[:100], y[:100], likelihood)
    model.forward = lambda a: gpytorch.distributions.MultivariateNormal(torch.zeros(len(a)).double(), SumKernel()(a))
    likelihood.noise = process.noise
    model.double().eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        expected = model(x[100:])
        mean, variance = process(x[100:])
    slope = float(expected.mean @ mean / expected.mean.square().sum())
    assert 0.9 < slope < 1.0 + 1e-6
    torch.testing.assert_close(mean, slope * expected.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(variance, expected.variance, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("n", "least"), [(60, -0.05), (200, -0.02)])
def test_pure_noise_is_not_explained(n, least):
    found = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        space = SequenceSpace("DNA", 10)
        x = space.encode(random_sequences(n + 1000, 10, rng))
        y = torch.from_numpy(rng.normal(size=n + 1000))
        found.append(r2(fitted(space, x[:n], (y[:n] - y[:n].mean()) / y[:n].std()), x[n:], y[n:]))
    assert np.mean(found) > least


def test_left_out_predictions_are_those_of_fits_without_the_row():
    rng = np.random.default_rng(0)
    phi = torch.from_numpy(rng.normal(size=(12, 3)))
    y = torch.from_numpy(rng.normal(size=12))
    covariance = phi @ phi.T + 0.5 * torch.eye(12)
    left_out = torch.stack(
        [
            covariance[i, others] @ torch.linalg.solve(covariance[others][:, others], y[others])
            for i, others in ((i, [j for j in range(12) if j != i]) for i in range(12))
        ]
    )
    inverse = torch.linalg.inv(covariance)
    y = y + 2 * left_out  # so that they tell something
    slope = float(left_out @ y / left_out.square().sum())
    variance = float((y - slope * left_out).square().sum() / 11 / left_out.square().sum())
    expected = min(max(slope, 0), 1) * slope**2 / (slope**2 + variance)
    weights = (y - left_out) * inverse.diagonal()
    assert left_out_share(y, weights, inverse.diagonal()) == pytest.approx(expected)


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_deviations_are_those_of_fresh_rows(noise):
    rng = np.random.default_rng(0)
    space = SequenceSpace("DNA", 12)
    X = random_sequences(1500, 12, rng)
    r = np.array([row.count("GC") + 2.0 * (row[3] == "A") * (row[4] == "C") for row in X])
    mean, deviation = r.mean(), r.std()
    r = torch.from_numpy((r - mean) / deviation)
    y = r + noise * torch.from_numpy(rng.normal(size=1500))
    x = space.encode(X)
    process = fitted(space, x[:400], y[:400])
    with torch.no_grad():
        mean, variance = process(x[400:])
    # Interactions of single rows and noise cannot be told apart: some of it counts as the function's.
    assert abs(process.noise - noise**2) < 0.5 * noise**2 + 0.03
    z = (r[400:] - mean) / variance.sqrt()
    assert 0.5 < float(z.square().mean().sqrt()) < 1.4


def test_a_choice_of_points_comes_close_to_the_exact_process(monkeypatch):
    rng = np.random.default_rng(0)
    space = SequenceSpace("DNA", 8)
    X = random_sequences(500, 8, rng)
    y = standardised(np.array([row.count("GC") + (row[3] == "A") for row in X]) + 0.3 * rng.normal(size=500))
    x = space.encode(X)
    exact = fitted(space, x[:300], y[:300])
    monkeypatch.setattr(sum_kernel, "MAX_POINTS", 250)
    monkeypatch.setattr(sum_kernel, "SOME_POINTS", 200)
    some = fitted(space, x[:300], y[:300])
    assert len(some.weights) == 200
    assert r2(some, x[300:], y[300:]) > r2(exact, x[300:], y[300:]) - 0.03
    with torch.no_grad():
        ratio = some(x[300:])[1] / exact(x[300:])[1]
    assert 0.7 < float(ratio.median()) < 2.0


def test_a_network_that_has_learnt_something_is_used_and_its_spread_added():
    rng = np.random.default_rng(0)
    space = VectorSpace(40)
    x = torch.from_numpy(rng.normal(size=(600, 40))).float()
    y = torch.sin(x.sum(dim=1)).double()

    class Waves(nn.Module):
        """Features in which y is linear, beside others."""

        def forward(self, x):
            total = x.sum(dim=1, keepdim=True)
            return torch.cat([torch.sin(k * total) for k in (0.5, 1.0, 2.0)] + [x], dim=1)

    networks, held_out, *_ = cross_fit(
        Waves(), space, x[:300], y[:300], max_iter=200, learning_rate=3e-2, random_state=np.random.RandomState(0)
    )
    process = fitted(space, x[:300], y[:300], held_out=held_out, networks=networks)
    without = fitted(space, x[:300], y[:300])
    assert process.variances[NETWORK] > 0.1
    assert r2(process, x[300:], y[300:]) > 0.8 > 0.3 > r2(without, x[300:], y[300:])
    with torch.no_grad():
        mean, variance = process(x[300:])
        spread = networks(x[300:])[..., 0].var(dim=0)
        process.networks.networks = nn.ModuleList([networks.networks[0]] * 5)  # which agree with each other
        _, agreed = process(x[300:])
    odd = spread.argmax()
    assert variance[odd] > agreed[odd]


def test_a_network_of_noise_is_left_out():
    rng = np.random.default_rng(0)
    space = SequenceSpace("DNA", 8)
    X = random_sequences(200, 8, rng)
    y = standardised(np.array([row.count("G") for row in X]) + 0.1 * rng.normal(size=200))
    held_out = torch.from_numpy(rng.normal(size=(200, 1)))
    process = fitted(space, space.encode(X), y, held_out=held_out, networks=torch.nn.Identity())
    assert NETWORK not in process.variances
    assert process.networks is None
    assert list(process.variances) == ["letters"] or "1-mers" in process.variances


def test_gradients_are_finite_at_relaxed_points():
    rng = np.random.default_rng(0)
    space = SequenceSpace("DNA", 8)
    X = random_sequences(100, 8, rng)
    y = standardised(np.array([row.count("G") for row in X]) + 0.1 * rng.normal(size=100))
    process = fitted(space, space.encode(X), y)
    x = torch.softmax(torch.randn(5, 8, 4), dim=2).requires_grad_()
    mean, variance = process(x)
    for value in (mean, variance):
        (gradient,) = torch.autograd.grad(value.sum(), x, retain_graph=True)
        assert torch.isfinite(gradient).all() and (gradient.flatten(1).abs().amax(dim=1) > 0).all()


def test_effects_that_add_up_and_saturate_are_learnt_by_latent_networks():
    rng = np.random.default_rng(0)
    space = SequenceSpace("DNA", 30)
    effects = rng.normal(size=(30, 4))
    x = space.encode(random_sequences(3000, 30, rng)).float()
    latent = (x.numpy() * effects).sum(axis=(1, 2))
    y = standardised(1 / (1 + np.exp(-1.5 * (latent - latent.mean() - 4))))  # most rows are near 0
    found = cross_fit(
        LatentFeatures(30, 4), space, x[:900], y[:900], learning_rate=6e-3, random_state=np.random.RandomState(0)
    )
    with torch.no_grad():
        predicted = found.networks(x[900:]).mean(dim=0)[:, 0]
    added = torch.from_numpy(Ridge().fit(x[:900].flatten(1), y[:900]).predict(x[900:].flatten(1)))
    errors = [float((mean - y[900:]).square().mean() / y[900:].var()) for mean in (predicted, added)]
    assert errors[0] < 0.2 < 0.4 < errors[1], errors


def test_only_tables_of_a_thousand_sequences_have_latent_networks_too():
    space = SequenceSpace("DNA", 5)
    x = space.encode(random_sequences(1000, 5, np.random.default_rng(0))).float()
    for n, n_kinds in ((999, 1), (1000, 2)):
        found = cross_fit(None, space, x[:n], x[:n, 0, 0].double(), max_iter=2, random_state=np.random.RandomState(0))
        assert {len(fold) for fold in found.networks.networks} == {n_kinds}


def test_held_out_predictions_are_by_networks_that_have_not_seen_the_row():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(100, 5))).float()
    y = torch.from_numpy(rng.normal(size=100))  # nothing to learn: only memory could correlate
    found = cross_fit(
        None, VectorSpace(5), x, y, max_iter=100, learning_rate=1e-2, random_state=np.random.RandomState(0)
    )
    assert abs(np.corrcoef(found.held_out[:, 0], y)[0, 1]) < 0.3
    again = cross_fit(
        None, VectorSpace(5), x, y, max_iter=100, learning_rate=1e-2, random_state=np.random.RandomState(0)
    )
    assert torch.equal(again.held_out, found.held_out)


@pytest.mark.parametrize(("n_rows", "n_networks"), [(60, 5), (1000, 10), (4999, 10), (5000, 3)])
def test_tables_of_thousands_of_rows_have_most_networks(n_rows, n_networks):
    x = torch.randn(n_rows, 2, generator=torch.Generator().manual_seed(0))
    found = cross_fit(None, VectorSpace(2), x, x[:, 0].double(), max_iter=2, random_state=np.random.RandomState(0))
    assert len(found.networks.networks) == n_networks
    assert (found.held_out != 0).all()  # each row was held out by one of them


def test_a_design_s_rows_are_in_one_fold():
    # Four rows of each design: a network that had seen one of them could tell the others.
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.repeat(rng.normal(size=(40, 5)), 4, axis=0)).float()
    y = torch.from_numpy(np.repeat(rng.normal(size=40), 4))
    given = {"max_iter": 150, "learning_rate": 1e-2}
    held_out = [
        cross_fit(None, VectorSpace(5), x, y, groups=groups, random_state=np.random.RandomState(0), **given).held_out[
            :, 0
        ]
        for groups in (None, np.repeat(np.arange(40), 4))
    ]
    leaked, honest = (np.corrcoef(prediction, y)[0, 1] for prediction in held_out)
    assert leaked > 0.5 and abs(honest) < 0.4


def test_difference_of_averages_is_that_of_the_joint_posterior():
    rng = np.random.default_rng(0)
    space = SequenceSpace("DNA", 8)
    X = random_sequences(160, 8, rng)
    y = standardised(np.array([row.count("GC") for row in X]) + 0.3 * rng.normal(size=160))
    x = space.encode(X)
    process = fitted(space, x[:100], y[:100])
    one, other = x[100:130], x[130:]
    with torch.no_grad():
        pairs, variance = process.difference(one, other)
        torch.testing.assert_close(pairs, process(one)[0] - process(other)[0])
        torch.testing.assert_close(process.linear_features(one) @ process.coefficients, process(one)[0])
        views = process._views(x, None)
        K = process._kernel(views, views)
    inverse = torch.linalg.inv(K[:100, :100] + process.noise * torch.eye(100))
    joint = K[100:, 100:] - K[100:, :100] @ inverse @ K[:100, 100:]
    average = torch.cat([torch.full((30,), 1 / 30), torch.full((30,), -1 / 30)]).double()
    assert float(variance) == pytest.approx(float(average @ joint @ average), rel=1e-6)
    with torch.no_grad():
        assert float(process.difference(one, one)[1]) == pytest.approx(0.0, abs=1e-12)
