"""Chains of angles against brute force on dense grids, and independent letters against enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.theory import AngleChain, letters_optimum, tilted

STD = torch.tensor([[0.3], [0.25], [0.4]])
POINTS = torch.tensor([[0.1], [0.7], [1.4]])
WEIGHTS = torch.tensor([0.2, 0.5, 0.3])


def towards_the_middle(theta, t):
    """Means between 0.2 and 1.3, of sin(theta)^2 and the time."""
    return 0.2 + 0.3 * t / 3 + 0.8 * theta.sin().square()


def a_step(theta):
    return (20 * (theta.sin().square() - 0.6)).double().sigmoid().sum(dim=-1)


def chain_of(d=1, **changes):
    settings = {"n_modes": 24} | changes
    start = torch.cartesian_prod(*[POINTS[:, 0]] * d).reshape(-1, d)
    weights = torch.cartesian_prod(*[WEIGHTS] * d).reshape(-1, d).prod(dim=1)
    return AngleChain(towards_the_middle, STD.expand(-1, d), start, weights, **settings)


def slow_value(alpha, kind):
    """The same three values on a grid of the real line, by the trapezoid rule and a search over means."""
    line = np.linspace(-2.5, 4.2, 1341)
    value = a_step(torch.from_numpy(line)[:, None]).numpy()

    def step(value, theta, t):
        mean = towards_the_middle(torch.from_numpy(theta), t).numpy()
        std = float(STD[t - 1, 0])

        def expected(values, means):
            weights = np.exp(-0.5 * ((line - means[:, None]) / std) ** 2)
            return weights @ values / weights.sum(axis=1)

        if kind == "soft":
            return alpha * np.log(expected(np.exp(value / alpha), mean))
        if kind == "pretrained":
            return expected(value, mean)
        grid = np.linspace(-0.5, 2.1, 521)
        values = expected(value, grid)
        return (values - alpha * (grid - mean[:, None]) ** 2 / (2 * std**2)).max(axis=1)

    inside = np.mod(line, math.pi)
    theta = np.minimum(inside, math.pi - inside)  # every value is even, with period pi
    for t in (1, 2):
        value = step(value, theta, t)
    return float(WEIGHTS.numpy() @ step(value, POINTS[:, 0].numpy(), 3))


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_values_are_those_of_a_dense_grid(alpha):
    chain = chain_of()
    assert float(chain.value(a_step, alpha)) == pytest.approx(slow_value(alpha, "pretrained"), abs=2e-3)
    assert float(chain.soft_value(a_step, alpha)) == pytest.approx(slow_value(alpha, "soft"), abs=3e-3)
    assert float(chain.best_fixed_std(a_step, alpha)) == pytest.approx(slow_value(alpha, "fixed"), abs=3e-3)


def test_independent_angles_add_up():
    """A sum of rewards over angles that do not see each other has a sum of values, whatever the policies."""
    one, two = chain_of(n_modes=12), chain_of(2, n_modes=12)
    for value in (AngleChain.value, AngleChain.soft_value, AngleChain.best_fixed_std):
        assert float(value(two, a_step, 0.5)) == pytest.approx(2 * float(value(one, a_step, 0.5)), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(alpha=st.floats(0.2, 5.0), shift=st.floats(-0.5, 0.5))
def test_no_policies_beat_the_soft_value_and_no_means_the_best_ones(alpha, shift):
    chain = chain_of()
    moved = chain.value(a_step, alpha, means=lambda theta, t: towards_the_middle(theta, t) + shift)
    best = chain.best_fixed_std(a_step, alpha)
    assert moved <= best + 1e-6
    assert best <= chain.soft_value(a_step, alpha) + 1e-6


def test_equation_6_of_moved_means_has_the_divergence_of_each_step():
    chain = chain_of()
    moved = chain.value(lambda theta: 0 * a_step(theta), 2.0, means=lambda theta, t: towards_the_middle(theta, t) + 0.1)
    assert float(moved) == pytest.approx(-2.0 * float((0.1**2 / (2 * STD**2)).sum()), abs=1e-6)


def test_gradients_of_a_value_flow_to_the_means():
    shift = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    chain = chain_of()

    def value(shift):
        return chain.value(a_step, 0.7, means=lambda theta, t: towards_the_middle(theta, t) + shift)

    (gradient,) = torch.autograd.grad(value(shift), shift)
    with torch.no_grad():
        difference = (value(shift + 1e-4) - value(shift - 1e-4)) / 2e-4
    assert float(gradient) == pytest.approx(float(difference), rel=1e-4)


def test_optimum_of_independent_letters_is_the_tilted_law_of_their_sequences():
    """Equation (5) by enumeration of the 27 sequences."""
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(3, 3, generator=generator, dtype=torch.float64).softmax(dim=-1)
    reward = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    optimum = letters_optimum(p, reward, alpha=0.5)
    rows = torch.tensor(list(itertools.product(range(3), repeat=3)))
    log_p, total, log_tilted = (
        torch.gather(table.T, 0, rows).sum(dim=1) for table in (p.log(), reward, optimum.log_tilted)
    )
    torch.testing.assert_close(log_tilted, tilted(log_p, total, 0.5))
    torch.testing.assert_close(optimum.log_c.sum(), (log_p + total / 0.5).logsumexp(dim=0))
    torch.testing.assert_close(optimum.gain.sum(), optimum.log_c.sum() - (log_p.exp() * total).sum() / 0.5)


def test_bad_input_of_an_angle_chain():
    with pytest.raises(ValueError, match="std must be > 0"):
        AngleChain(towards_the_middle, 0 * STD, POINTS, WEIGHTS)
    with pytest.raises(ValueError, match="sum to 1"):
        AngleChain(towards_the_middle, STD, POINTS, 2 * WEIGHTS)
    with pytest.raises(ValueError, match=r"std must have shape \(T, d\)"):
        AngleChain(towards_the_middle, STD[:, 0], POINTS, WEIGHTS)
    with pytest.raises(ValueError, match="alpha` must be > 0"):
        letters_optimum(torch.ones(2) / 2, torch.ones(2), 0.0)
