"""Theorem 2 and the finite form of Corollary 1, where their conditions hold and where they do not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.theory import (
    concentrability,
    corollary_bound,
    effective_dimension,
    expectation,
    kl_divergence,
    linear_penalty,
    regret_bound,
    relative_condition_number,
    self_normalised_beta,
    soft_regret,
    soft_value,
    tilted,
)
from tests.theory.finite_worlds import random_law

SEEDS = st.integers(0, 2**31)


def doubles(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def moment(log_p, features):
    """E[phi phi^T]."""
    return features.T @ (log_p.exp()[:, None] * features)


class World:
    """Designs with a true reward inside the band mean +- penalty, and laws on them, some with zeros."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        self.n = int(torch.randint(2, 9, (1,), generator=self.generator))
        self.pretrained, self.off, pi = (self.law(zeros) for zeros in (0.2, 0.3, 0.3))
        # A comparator that the pretrained model cannot make has J = -inf; nothing is claimed of it.
        pi = pi.masked_fill(self.pretrained == -torch.inf, -torch.inf)
        self.pi = pi.log_softmax(dim=-1) if pi.max() > -torch.inf else self.pretrained
        self.mean = torch.randn(self.n, generator=self.generator, dtype=torch.float64)
        self.penalty = self.uniform()
        self.reward = self.mean + (2 * self.uniform() - 1) * self.penalty
        self.alpha = 0.01 * 100 ** float(self.uniform()[0])
        self.designs = tilted(self.pretrained, self.mean - self.penalty, self.alpha)

    def law(self, zeros):
        return random_law(self.n, generator=self.generator, zeros=zeros)

    def uniform(self):
        return torch.rand(self.n, generator=self.generator, dtype=torch.float64)

    def regret(self, log_p):
        return soft_regret(self.pi, log_p, self.reward, self.pretrained, self.alpha)


@pytest.mark.theorem
@settings(max_examples=200)
@given(SEEDS)
def test_theorem_2(seed):
    world = World(seed)
    bound = regret_bound(world.pi, world.off, world.penalty)
    assert world.regret(world.designs) <= bound.on_comparator + 1e-10
    assert bound.on_comparator <= bound.by_coverage + 1e-10
    # The corollary in Theorem 2: rewards alone, with the comparator's KL on the right.
    gain = expectation(world.pi, world.reward) - expectation(world.designs, world.reward)
    assert gain <= world.alpha * kl_divergence(world.pi, world.pretrained) + bound.on_comparator + 1e-10


@pytest.mark.theorem
@settings(max_examples=200)
@given(SEEDS)
def test_theorem_2_of_a_model_that_falls_short(seed):
    """A law p instead of the tilted one adds alpha KL(p || tilted), and what it loses is exactly that."""
    world = World(seed)
    p = world.law(0.2).masked_fill(world.pretrained == -torch.inf, -torch.inf)
    p = p.log_softmax(dim=-1) if p.max() > -torch.inf else world.pretrained
    shortfall = float(world.alpha * kl_divergence(p, world.designs))
    lower = world.mean - world.penalty
    lost = soft_regret(world.designs, p, lower, world.pretrained, world.alpha)
    assert math.isclose(lost, shortfall, abs_tol=1e-10)
    bound = regret_bound(world.pi, world.off, world.penalty, shortfall=shortfall)
    assert world.regret(p) <= bound.on_comparator + 1e-10
    assert bound.on_comparator <= bound.by_coverage + 1e-10


def test_soft_value_is_largest_at_the_tilted_law():
    world = World(0)
    best = tilted(world.pretrained, world.reward, world.alpha)
    value = soft_value(best, world.reward, world.pretrained, world.alpha)
    log_c = (world.pretrained + world.reward / world.alpha).logsumexp(dim=0)
    assert math.isclose(value, world.alpha * log_c, abs_tol=1e-10)
    assert world.regret(best) <= 0


def test_theorem_2_fails_without_calibration():
    """The prediction praises the worse design and is sure of it: the regret is far above either bound."""
    half = doubles(0.5, 0.5).log()
    mean, reward, penalty, alpha = doubles(1, 0), doubles(0, 1), doubles(0.1, 0.1), 0.05
    designs = tilted(half, mean - penalty, alpha)
    pi = doubles(0, 1).log()
    bound = regret_bound(pi, half, penalty)
    assert ((reward - mean).abs() > penalty).all()
    assert soft_regret(pi, designs, reward, half, alpha) > 0.9 > max(bound)


def test_mass_outside_the_data_breaks_the_bound_as_printed():
    """pi is half on a design that the data lack. Over the support of p_off the paper's C_pi is 1."""
    off, pi, pretrained = (doubles(*p).log() for p in ((0.5, 0.5, 0), (0.5, 0, 0.5), (0.3, 0.3, 0.4)))
    mean, penalty, alpha = doubles(0, 0, 0), doubles(0.01, 0.01, 1), 0.05
    reward = doubles(0, 0, 1)
    assert ((reward - mean).abs() <= penalty).all()
    regret = soft_regret(pi, tilted(pretrained, mean - penalty, alpha), reward, pretrained, alpha)
    printed_c = (pi.exp() / off.exp())[off > -torch.inf].max()
    printed = 2 * (printed_c * expectation(off, penalty**2)).sqrt()
    assert printed_c == 1 and regret > 0.4 > 0.021 > printed
    assert concentrability(pi, off) == torch.inf
    bound = regret_bound(pi, off, penalty)
    assert regret <= bound.on_comparator and bound.by_coverage == torch.inf


def test_no_penalty_on_the_data_does_not_make_an_infinite_bound_nan():
    off, pi = doubles(1, 0).log(), doubles(0, 1).log()
    assert regret_bound(pi, off, doubles(0, 1)).by_coverage == torch.inf


class LinearWorld:
    """Designs with d features, offline rows drawn from half of them, and a ridge fit of noisy measurements."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.d, self.n = (int(torch.randint(*limits, (1,), generator=generator)) for limits in ((1, 5), (3, 60)))
        self.features = normal(20, self.d)
        self.rows = torch.randint(10, (self.n,), generator=generator)
        self.off = (torch.bincount(self.rows, minlength=20).double() / self.n).log()
        self.lam = float(normal(1).exp())
        theta = normal(self.d)
        self.phi = self.features[self.rows]
        y = self.phi @ theta + 0.5 * normal(self.n)
        gram = self.phi.T @ self.phi + self.lam * torch.eye(self.d, dtype=torch.float64)
        estimate = torch.linalg.solve(gram, self.phi.T @ y)
        # The smallest calibrated beta: |phi^T (estimate - theta)| <= |estimate - theta|_A sqrt(phi^T A^-1 phi).
        self.beta = float(((estimate - theta) @ gram @ (estimate - theta)).sqrt())
        self.reward, self.mean = self.features @ theta, self.features @ estimate
        self.penalty = linear_penalty(self.features, self.phi, self.lam, self.beta)
        self.S = moment(self.off, self.features)
        self.pretrained = random_law(20, generator=generator)
        self.pi = random_law(20, generator=generator, zeros=0.3)
        self.pi_on_data = random_law(20, generator=generator).masked_fill(self.off == -torch.inf, -torch.inf)
        self.pi_on_data = self.pi_on_data.log_softmax(dim=-1)


@pytest.mark.theorem
@settings(max_examples=100)
@given(SEEDS)
def test_corollary_1_in_its_finite_form(seed):
    """Regret <= 2 E_pi[g] <= 2 beta sqrt(Cbar d_eff / n), for comparators with mass outside the data as well."""
    world = LinearWorld(seed)
    assert ((world.reward - world.mean).abs() <= world.penalty + 1e-10).all()
    alpha = 0.1
    designs = tilted(world.pretrained, world.mean - world.penalty, alpha)
    for pi in (world.pi, world.pi_on_data):
        bound = corollary_bound(moment(pi, world.features), world.S, world.lam, world.n, world.beta)
        on_comparator = regret_bound(pi, world.off, world.penalty).on_comparator
        assert soft_regret(pi, designs, world.reward, world.pretrained, alpha) <= on_comparator + 1e-10
        assert on_comparator <= bound * (1 + 1e-8)


@pytest.mark.theorem
@settings(max_examples=100)
@given(SEEDS)
def test_corollary_1_is_theorem_2_with_a_smaller_constant(seed):
    """E_off[g^2] = beta^2 d_eff / n, E_pi[g^2] <= Cbar E_off[g^2], and Cbar <= C_pi."""
    world = LinearWorld(seed)
    d_eff = effective_dimension(world.S, world.lam, world.n)
    assert 0 < d_eff < world.d
    on_data = expectation(world.off, world.penalty.square())
    assert math.isclose(on_data, world.beta**2 * d_eff / world.n, rel_tol=1e-8)
    for pi in (world.pi, world.pi_on_data):
        c_bar = relative_condition_number(moment(pi, world.features), world.S)
        assert expectation(pi, world.penalty.square()) <= c_bar * on_data * (1 + 1e-8)
        assert c_bar <= concentrability(pi, world.off) * (1 + 1e-8)
    assert math.isclose(relative_condition_number(world.S, world.S), 1, rel_tol=1e-8)


@settings(max_examples=50)
@given(SEEDS)
def test_relative_condition_number_is_the_largest_ratio(seed):
    """No direction exceeds it, and the best of many comes near; it does not depend on the features' basis."""
    world = LinearWorld(seed)
    M = moment(world.pi_on_data, world.features)
    c_bar = relative_condition_number(M, world.S)
    generator = torch.Generator().manual_seed(seed)
    kappa = torch.randn(1000, world.d, generator=generator, dtype=torch.float64)
    ratios = ((kappa @ M) * kappa).sum(dim=1) / ((kappa @ world.S) * kappa).sum(dim=1).clamp(min=1e-12)
    assert ratios.max() <= c_bar * (1 + 1e-6)
    mix = torch.randn(world.d, world.d, generator=generator, dtype=torch.float64)
    mix = torch.linalg.qr(mix).Q * torch.linspace(1, 2, world.d, dtype=torch.float64)
    mixed = relative_condition_number(mix.T @ M @ mix, mix.T @ world.S @ mix)
    assert math.isclose(mixed, c_bar, rel_tol=1e-5)


def test_c_bar_is_finite_beyond_the_data_and_infinite_beyond_their_features():
    """Rows at x = -1, 0, 1 with features (1, x, 0); a design at x = 3, and one with a new feature."""
    features = doubles(1, -1, 0, 1, 0, 0, 1, 1, 0, 1, 3, 0, 1, 0, 1).reshape(5, 3)
    off = doubles(1 / 3, 1 / 3, 1 / 3, 0, 0).log()
    S = moment(off, features)
    far, new = doubles(0, 0, 0, 1, 0).log(), doubles(0.999, 0, 0, 0, 0.001).log()
    assert concentrability(far, off) == concentrability(new, off) == torch.inf
    # One design: the largest ratio is phi^T S^+ phi = 1 + 9 / (2/3).
    assert math.isclose(relative_condition_number(moment(far, features), S), 14.5, rel_tol=1e-12)
    assert relative_condition_number(moment(new, features), S) == torch.inf
    assert corollary_bound(moment(new, features), S, 1.0, 3, 1.0) == torch.inf
    assert math.isfinite(corollary_bound(moment(far, features), S, 1.0, 3, 1.0))


@settings(max_examples=30)
@given(SEEDS)
def test_linear_penalty_is_example_1_with_c_beta_over_root_lam(seed):
    """c sqrt(k(x, x) - k(x)^T (K + lam I)^-1 k(x)), in the n x n form of the paper."""
    world = LinearWorld(seed)
    kernel = world.features @ world.phi.T
    K = world.phi @ world.phi.T + world.lam * torch.eye(world.n, dtype=torch.float64)
    variance = world.features.square().sum(dim=1) - (kernel * torch.linalg.solve(K, kernel.T).T).sum(dim=1)
    c = world.beta / math.sqrt(world.lam)
    assert torch.allclose(world.penalty, c * variance.clamp(min=0).sqrt(), rtol=1e-4, atol=1e-6)


@settings(max_examples=30)
@given(SEEDS)
def test_penalty_and_bounds_grow_with_c(seed):
    world = LinearWorld(seed)
    wider = linear_penalty(world.features, world.phi, world.lam, 2 * world.beta)
    assert (wider >= world.penalty).all()
    assert torch.allclose(wider, 2 * world.penalty)
    M = moment(world.pi_on_data, world.features)
    mild, strict = (corollary_bound(M, world.S, world.lam, world.n, c * world.beta) for c in (1, 2))
    assert mild <= strict
    pairs = zip(
        regret_bound(world.pi_on_data, world.off, world.penalty),
        regret_bound(world.pi_on_data, world.off, wider),
        strict=True,
    )
    assert all(before <= after for before, after in pairs)


def uncalibrated_share(phi, theta, beta, lam, noise, generator, n_repeats=4000):
    """Share of repeated measurements whose ridge fit leaves the band somewhere: |estimate - theta|_A > beta."""
    gram = phi.T @ phi + lam * torch.eye(phi.shape[1], dtype=torch.float64)
    errors = noise * torch.randn(len(phi), n_repeats, generator=generator, dtype=torch.float64)
    difference = torch.linalg.solve(gram, phi.T @ (phi @ theta[:, None] + errors)) - theta[:, None]
    return float(((difference * (gram @ difference)).sum(dim=0).sqrt() > beta).double().mean())


@pytest.mark.theorem
@pytest.mark.parametrize("delta", [0.05, 0.1, 0.5])
@pytest.mark.parametrize(("n", "d", "lam"), [(40, 2, 1.0), (200, 5, 0.1), (10, 8, 3.0)])
def test_self_normalised_beta_is_calibrated(n, d, lam, delta):
    """At all designs at once, in at least 1 - delta of the repetitions."""
    generator = torch.Generator().manual_seed(n)
    phi = torch.randn(n, d, generator=generator, dtype=torch.float64)
    theta = torch.randn(d, generator=generator, dtype=torch.float64)
    beta = self_normalised_beta(phi, lam, 0.5, float(theta.norm()), delta)
    assert uncalibrated_share(phi, theta, beta, lam, 0.5, generator) <= delta


def test_self_normalised_beta_of_one_feature():
    """R sqrt(log(1 + n / lam) + 2 log(1 / delta)) + sqrt(lam) B for n rows of phi = 1."""
    beta = self_normalised_beta(torch.ones(30, 1), 4.0, 0.5, 3.0, 0.1)
    assert math.isclose(beta, 0.5 * math.sqrt(math.log(8.5) + 2 * math.log(10)) + 6, rel_tol=1e-12)


def test_self_normalised_beta_is_not_idly_wide():
    """A third of it fails more often than delta."""
    generator = torch.Generator().manual_seed(0)
    phi = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    theta = torch.randn(5, generator=generator, dtype=torch.float64)
    beta = self_normalised_beta(phi, 1.0, 1.0, float(theta.norm()), 0.1)
    assert uncalibrated_share(phi, theta, beta / 3, 1.0, 1.0, generator) > 0.1


def test_features_chosen_by_the_measurements_are_not_calibrated():
    """The feature, of 1,000 of noise, that fits the noise best: the band is left in most repetitions."""
    generator = torch.Generator().manual_seed(0)
    n, lam, delta, failures = 40, 1.0, 0.1, 0
    for _ in range(200):
        candidates = torch.randn(n, 1000, generator=generator, dtype=torch.float64)
        y = torch.randn(n, generator=generator, dtype=torch.float64)  # theta = 0: nothing to be learned
        phi = candidates[:, [(candidates.T @ y).abs().argmax()]]
        gram = float(phi.square().sum() + lam)
        estimate = float((phi.T @ y)[0] / gram)
        failures += abs(estimate) * math.sqrt(gram) > self_normalised_beta(phi, lam, 1.0, 0.0, delta)
    assert failures / 200 > 0.5 > delta


def test_errors_name_the_rule_and_the_value():
    phi = torch.ones(3, 1)
    with pytest.raises(ValueError, match=r"`delta` must be in .0, 1.; got 1"):
        self_normalised_beta(phi, 1.0, 1.0, 1.0, 1)
    with pytest.raises(ValueError, match="`lam` must be > 0; got 0"):
        linear_penalty(phi, phi, 0, 1.0)
