"""Linear-Gaussian chains against one-step formulas, quadrature and rollouts."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.theory import LinearGaussianChain, Quadratic

SEEDS = st.integers(0, 2**31)


def random_problem(seed, d=2):
    """A chain of 1 to 5 steps, a reward that curves down, and an alpha."""
    generator = torch.Generator().manual_seed(seed)
    n_steps = int(torch.randint(1, 6, (1,), generator=generator))

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    chain = LinearGaussianChain(
        normal(n_steps, d), normal(n_steps, d).exp(), normal(d).exp(), normal(n_steps, d), normal(d)
    )
    reward = Quadratic(normal(d), normal(d).exp(), normal(1)[0])
    return chain, reward, float(normal(1).exp()), generator


def random_rival(chain, generator):
    """Another chain of as many steps and entries."""

    def scaled(x, size):
        return x * (size * torch.randn(x.shape, generator=generator, dtype=torch.float64)).exp()

    return LinearGaussianChain(
        scaled(chain.slope, 0.3),
        scaled(chain.std, 0.3),
        scaled(chain.initial_std, 0.3),
        chain.offset + 0.3 * torch.randn(chain.offset.shape, generator=generator),
        scaled(chain.initial_mean, 0.3),
    )


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def stationary_chain(n_steps, horizon=4.0):
    """Steps N(rho x, 1 - rho^2) with rho = exp(-horizon / n_steps), which keep a standard normal law."""
    rho = math.exp(-horizon / n_steps)
    return LinearGaussianChain(torch.full((n_steps,), rho, dtype=torch.float64), math.sqrt(1 - rho**2))


@pytest.mark.theorem
@settings(max_examples=50)
@given(SEEDS)
def test_theorem_1_for_gaussians(seed):
    """The designs' law is the pretrained one times exp(reward / alpha), completed to a square."""
    chain, reward, alpha, _ = random_problem(seed)
    means, stds = chain.marginals()
    precision = stds[0] ** -2 + reward.curvature / alpha
    tilted_means, tilted_stds = chain.optimum(reward, alpha).marginals()
    assert torch.allclose(tilted_stds[0], precision**-0.5, rtol=1e-9)
    expected = (means[0] * stds[0] ** -2 + reward.linear / alpha) / precision
    assert torch.allclose(tilted_means[0], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.theorem
@settings(max_examples=50)
@given(SEEDS)
def test_theorem_3_for_gaussians(seed):
    """Marginals of the optimum: log p*_t - log p_t = (v_t - alpha log C) / alpha at every point."""
    chain, reward, alpha, generator = random_problem(seed)
    values, value = chain.soft_values(reward, alpha)
    before, after = chain.marginals(), chain.optimum(reward, alpha).marginals()
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    for t, v in enumerate(values):
        laws = [torch.distributions.Normal(means[t], stds[t]) for means, stds in (before, after)]
        logs = [law.log_prob(x).sum(dim=1) for law in laws]
        assert torch.allclose(logs[1] - logs[0], (v(x) - value) / alpha, rtol=1e-6, atol=1e-6)


def test_equation_8_by_quadrature():
    """alpha log C and v_1 of a two-step chain, by integrals on a grid."""
    chain = LinearGaussianChain(double(0.8, -0.5), double(0.6, 0.9), 1.3, double(0.2, 0.1), 0.4)
    reward, alpha = Quadratic(0.7, 1.5, 0.3), 0.8
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    tilt = (reward(x) / alpha).exp()
    values, value = chain.soft_values(reward, alpha)

    def integral(mean, std):
        density = torch.distributions.Normal(mean, std).log_prob(x[:, 0]).exp()
        return alpha * torch.trapezoid(density * tilt, x[:, 0]).log()

    means, stds = chain.marginals()
    assert math.isclose(integral(means[0, 0], stds[0, 0]), value, abs_tol=1e-9)
    for point in (-1.0, 0.0, 2.0):
        at = torch.tensor([[point]], dtype=torch.float64)
        assert math.isclose(integral(*(part.squeeze() for part in chain.policy(1, at))), values[1](at), abs_tol=1e-9)


@settings(max_examples=50)
@given(SEEDS)
def test_equation_7_beats_every_other_gaussian_chain(seed):
    chain, reward, alpha, generator = random_problem(seed)
    _, value = chain.soft_values(reward, alpha)
    optimum = chain.optimum(reward, alpha)
    assert abs(optimum.gap(chain, reward, alpha)) < 1e-9
    for rival in (chain, optimum, random_rival(chain, generator), random_rival(optimum, generator)):
        distance = rival.gap(chain, reward, alpha)
        assert distance >= -1e-9
        scale = abs(value) + alpha * distance + alpha * rival.path_kl(chain)
        assert abs(value - rival.objective(chain, reward, alpha) - alpha * distance) < 1e-9 * (1 + scale)


@settings(max_examples=50)
@given(SEEDS)
def test_variance_floor_is_the_gap_of_the_best_chain_of_pretrained_variances(seed):
    """And its means are best: others of the same variances have a larger gap."""
    chain, reward, alpha, generator = random_problem(seed)
    best = chain.best_fixed_std(reward, alpha)
    floor = chain.variance_floor(reward, alpha)
    assert torch.equal(best.std, chain.std) and torch.equal(best.initial_std, chain.initial_std)
    assert math.isclose(best.gap(chain, reward, alpha), floor, rel_tol=1e-8, abs_tol=1e-8)
    moved = random_rival(best, generator)
    moved = LinearGaussianChain(moved.slope, chain.std, chain.initial_std, moved.offset, moved.initial_mean)
    assert moved.gap(chain, reward, alpha) >= floor - 1e-8


@pytest.mark.parametrize(("curvature", "floor"), [(1.0, 0.013), (10.0, 0.37), (100.0, 6.2)])
def test_variance_floor_of_fifty_steps(curvature, floor):
    """Steps N(rho x, 1 - rho^2), rho = e^-0.08, reward -k x^2 / 2 at alpha = 1."""
    chain = stationary_chain(50)
    found = chain.variance_floor(Quadratic(curvature=curvature), 1.0)
    assert f"{float(found):.2g}" == f"{floor:.2g}"


def test_variance_floor_falls_as_one_over_the_number_of_steps():
    floors = [float(stationary_chain(n).variance_floor(Quadratic(curvature=10.0), 1.0)) for n in (200, 400, 800, 1600)]
    ratios = [coarse / fine for coarse, fine in zip(floors, floors[1:], strict=False)]
    assert [abs(ratio - 2) for ratio in ratios] == sorted((abs(ratio - 2) for ratio in ratios), reverse=True)
    assert 1.98 < ratios[-1] < 2.02


@settings(max_examples=20)
@given(SEEDS)
def test_a_linear_reward_needs_no_other_variance(seed):
    chain, reward, alpha, _ = random_problem(seed)
    reward = Quadratic(reward.linear)
    assert chain.variance_floor(reward, alpha) == 0
    assert torch.equal(chain.optimum(reward, alpha).std, chain.std)
    assert abs(chain.best_fixed_std(reward, alpha).gap(chain, reward, alpha)) < 1e-9


@settings(max_examples=30)
@given(SEEDS)
def test_an_untilted_start_loses_the_kl_of_the_initial_draw(seed):
    chain, reward, alpha, _ = random_problem(seed)
    tilted = chain.optimum(reward, alpha)
    untilted = chain.optimum(reward, alpha, tilt_initial=False)
    start = torch.distributions.Normal(chain.initial_mean, chain.initial_std)
    aim = torch.distributions.Normal(tilted.initial_mean, tilted.initial_std)
    bias = torch.distributions.kl_divergence(start, aim).sum()
    assert math.isclose(untilted.gap(chain, reward, alpha), bias, rel_tol=1e-8, abs_tol=1e-9)
    forgetful = LinearGaussianChain(
        torch.cat([chain.slope[:-1], torch.zeros(1, 2)]), chain.std, chain.initial_std, chain.offset, chain.initial_mean
    )
    assert abs(forgetful.optimum(reward, alpha, tilt_initial=False).gap(forgetful, reward, alpha)) < 1e-9


@pytest.mark.parametrize("horizon", [0.5, 1.0, 4.0])
def test_an_untilted_start_loses_the_squared_correlation_of_start_and_design(horizon):
    """For a linear reward, as a share of the KL that the whole tilt takes."""
    chain, reward = stationary_chain(20, horizon), Quadratic(3.0)
    bias = chain.optimum(reward, 0.5, tilt_initial=False).gap(chain, reward, 0.5)
    whole = chain.optimum(reward, 0.5).path_kl(chain)
    assert math.isclose(bias / whole, math.exp(-horizon) ** 2, rel_tol=1e-9)


def test_step_kl_over_rollouts_is_the_path_kl():
    """A rival's gap by Monte Carlo, within four standard errors; against itself it is exactly 0."""
    chain, reward, alpha, generator = random_problem(5, d=3)
    optimum, rival = chain.optimum(reward, alpha), random_rival(chain, generator)
    assert rival.n_steps >= 2
    x = torch.zeros(20_000, 3, dtype=torch.float64)
    total, own = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64)
    for t in range(rival.n_steps + 1, 0, -1):
        mean, std = rival.policy(t, x)
        total += optimum.step_kl(t, x, mean, std)
        own += rival.step_kl(t, x, mean, std)
        x = mean + std * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    error = total.std() / len(x) ** 0.5
    assert abs(total.mean() - rival.gap(chain, reward, alpha)) < 4 * error < 0.1 * total.mean()
    assert torch.equal(own, torch.zeros_like(own))


def test_a_decoder_belongs_into_the_reward():
    """A last step x_0 = a x + b with almost no noise is the reward of a x + b."""
    a, b, w, k = 0.7, -0.4, 1.2, 0.5
    chain = LinearGaussianChain(double(0.9, 0.8), 0.6)
    decoded = LinearGaussianChain(double(a, 0.9, 0.8), double(1e-7, 0.6, 0.6), 1.0, double(b, 0, 0))
    folded = Quadratic(a * (w - k * b), a**2 * k, w * b - k * b**2 / 2)
    assert math.isclose(chain.soft_values(folded, 1.0)[1], decoded.soft_values(Quadratic(w, k), 1.0)[1], abs_tol=1e-9)
    x = torch.tensor([[0.3]])
    assert math.isclose(folded(x), Quadratic(w, k)(a * x + b), abs_tol=1e-6)


def test_errors_name_the_rule_and_the_value():
    chain = stationary_chain(3)
    with pytest.raises(ValueError, match="standard deviations must be > 0; got 0. Put a step without noise"):
        LinearGaussianChain(torch.ones(3), torch.tensor([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="infinite at alpha = 1; raise alpha"):
        chain.soft_values(Quadratic(curvature=-2.0), 1.0)
    with pytest.raises(ValueError, match="`alpha` must be > 0; got 0"):
        chain.optimum(Quadratic(1.0), 0)
    with pytest.raises(ValueError, match=r"t must be in 1, ..., 4; got 0"):
        chain.policy(0, torch.zeros(1, 1))
