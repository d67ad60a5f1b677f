import gpytorch
import numpy as np
import pytest
import torch
from scipy.optimize import check_grad

from braidkit.rewards import evidence
from braidkit.rewards.evidence import fit_scale_and_noise, fit_variances, select_groups


def rank_one(n, seed):
    x = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.outer(x, x), x


def test_log_evidence_is_that_of_gpytorch():
    (gram, x), (other, z) = rank_one(30, 0), rank_one(30, 1)
    y = x + 0.3 * z
    found = fit_variances(torch.stack([gram, other]), y)
    covariance = found.parts[0] * gram + found.parts[1] * other + 1.0 + found.noise * torch.eye(30)
    law = gpytorch.distributions.MultivariateNormal(torch.zeros(30, dtype=torch.float64), covariance)
    logs = torch.cat([found.parts, torch.tensor([found.noise])]).log()
    prior = 0.5 * ((logs - evidence.PRIOR_MEAN) / evidence.PRIOR_STD).square().sum()
    assert found.log_evidence == pytest.approx(float(law.log_prob(y) - prior))
    noise = gpytorch.distributions.MultivariateNormal(torch.zeros(30).double(), 1.0 + torch.eye(30).double())
    assert found.gain == pytest.approx(float(law.log_prob(y) - noise.log_prob(y)))


def test_gradient_of_the_evidence_is_exact(monkeypatch):
    losses = []

    def capture(loss, start, **kwargs):
        losses.append((loss, start))
        return scipy_minimize(loss, start, **kwargs)

    scipy_minimize = evidence.minimize
    monkeypatch.setattr(evidence, "minimize", capture)
    (gram, x), (other, _) = rank_one(20, 0), rank_one(20, 1)
    fit_variances(torch.stack([gram, other]), x, max_iter=1)
    loss, start = losses[0]
    assert check_grad(lambda t: loss(t)[0], lambda t: loss(t)[1], start) < 1e-4


def test_the_part_that_the_data_have_gets_the_variance_and_the_rest_is_noise():
    rng = np.random.default_rng(0)
    x, z = (torch.from_numpy(rng.normal(size=(400, 20))) for _ in range(2))
    y = x @ torch.from_numpy(rng.normal(size=20)) / 20**0.5 + 0.5 * torch.from_numpy(rng.normal(size=400))
    found = fit_variances(torch.stack([x @ x.T / 20, z @ z.T / 20]), y)
    assert float(found.parts[0]) == pytest.approx(1.0, rel=0.6)
    assert found.parts[1] < 0.1
    assert found.noise == pytest.approx(0.25, rel=0.2)


def test_scale_and_noise_have_the_largest_evidence_of_a_grid():
    rng = np.random.default_rng(1)
    phi = torch.from_numpy(rng.normal(size=(300, 10)))
    y = phi @ torch.from_numpy(rng.normal(size=10)) * 0.5 + 0.7 * torch.from_numpy(rng.normal(size=300))
    s, vectors = torch.linalg.eigh(phi.T @ phi)
    scale, noise = fit_scale_and_noise(s, vectors.T @ phi.T @ y, float(y @ y), 300)

    def log_evidence(scale, noise):  # and the scale's prior
        covariance = scale * phi @ phi.T + noise * torch.eye(300)
        law = torch.distributions.MultivariateNormal(torch.zeros(300).double(), covariance)
        return float(law.log_prob(y)) - 0.5 * (np.log(scale) / evidence.SCALE_STD) ** 2

    best = log_evidence(scale, noise)
    for factor in (0.8, 1.25):
        assert best > log_evidence(scale * factor, noise)
        assert best > log_evidence(scale, noise * factor)
    assert noise == pytest.approx(0.49, rel=0.15)


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_parts_are_added_only_where_evidence_is_strong(seed):
    """An additive function needs no other group; a product of two columns needs the group that has it."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(150, 4)))
    gram = x @ x.T / 4
    other = torch.from_numpy(rng.normal(size=(150, 9)))
    grams = {"linear": gram, "square": gram**2, "cube": gram**3, "other": other @ other.T / 9}
    groups = [["square", "absent"], ["cube"], ["other"]]
    noise = 0.5 * torch.from_numpy(rng.normal(size=150))

    def selected(f, **kwargs):
        y = f + noise
        return select_groups(grams, groups, (y - y.mean()) / y.std(), **kwargs)

    assert selected(x[:, 0] - x[:, 1])[0] == ["linear"]
    names, found = selected(x[:, 0] * x[:, 1])
    assert names == ["linear", "square"]
    assert found.parts[1] > found.parts[0]
    assert selected(x[:, 0] - x[:, 1], least_gain=-np.inf)[0] == list(grams)


def test_some_group_is_used_where_no_part_is_outside_of_groups():
    x = torch.linspace(-1.7, 1.7, 50, dtype=torch.float64)
    grams = {"linear": torch.outer(x, x), "square": torch.outer(x**2, x**2)}
    assert "linear" in select_groups(grams, [["linear"], ["square"]], torch.zeros_like(x))[0]
