"""Theorems 1 and 3 and equations (3) to (8) on finite worlds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.theory import (
    FiniteChain,
    expectation,
    gap,
    initial_bias,
    kl_divergence,
    objective,
    optimal_chain,
    path_kl,
    soft_values,
    tilted,
)
from tests.theory.finite_worlds import (
    enumerated_kl,
    path_law,
    random_chain,
    random_law,
    random_rival,
    random_world,
)

SEEDS = st.integers(0, 2**31)


def assert_same_law(log_p, log_q, tolerance=1e-10):
    """Equal supports, and equal logarithms on them."""
    support = log_p > -torch.inf
    assert torch.equal(support, log_q > -torch.inf)
    assert torch.allclose(log_p[support], log_q[support], rtol=0, atol=tolerance)


def total_variation(log_p, log_q):
    return float((log_p.exp() - log_q.exp()).abs().sum() / 2)


@pytest.mark.theorem
def test_theorem_1_on_a_thousand_random_worlds():
    """Designs of the optimal policies follow the law proportional to exp(reward / alpha) p_pre."""
    for seed in range(1000):
        chain, reward, alpha, _ = random_world(seed)
        p_pre = chain.log_marginals()[0].exp()
        weights = p_pre * ((reward - reward.max()) / alpha).exp()
        induced = optimal_chain(chain, reward, alpha).log_marginals()[0].exp()
        assert (induced - weights / weights.sum()).abs().max() < 1e-10, f"world {seed}"


@pytest.mark.theorem
@settings(max_examples=50)
@given(SEEDS)
def test_theorem_3(seed):
    """Marginals are exp(v_t / alpha) / C times the pretrained ones; posteriors do not change."""
    chain, reward, alpha, _ = random_world(seed)
    optimum = optimal_chain(chain, reward, alpha)
    values, value = soft_values(chain, reward, alpha)
    for v, before, after in zip(values, chain.log_marginals(), optimum.log_marginals(), strict=True):
        assert_same_law(after, before + (v - value) / alpha)
    for before, after in zip(chain.log_posteriors(), optimum.log_posteriors(), strict=True):
        assert_same_law(after, before)


@settings(max_examples=30)
@given(SEEDS)
def test_posteriors_are_those_of_the_enumerated_paths(seed):
    chain, _, _, _ = random_world(seed)
    law = path_law(chain).exp()  # (S_T, ..., S_0)
    levels = list(range(chain.n_steps, -1, -1))
    for t, posterior in enumerate(chain.log_posteriors(), start=1):
        others = [axis for axis, level in enumerate(levels) if level not in (t, t - 1)]
        joint = (law.sum(dim=others) if others else law).T  # (S_{t-1}, S_t)
        reached = joint.sum(dim=1) > 0
        expected = joint[reached] / joint[reached].sum(dim=1, keepdim=True)
        assert torch.allclose(posterior.exp()[reached], expected, atol=1e-12)
        assert (posterior[~reached] == -torch.inf).all()


@settings(max_examples=50)
@given(SEEDS)
def test_equation_8_soft_values_are_log_moments_of_the_designs(seed):
    """v_t(x_t) = alpha log E[exp(reward / alpha) | x_t], by products of the tables."""
    chain, reward, alpha, _ = random_world(seed)
    values, value = soft_values(chain, reward, alpha)
    shift = reward.max()
    moment = ((reward - shift) / alpha).exp()
    for t, v in enumerate(values):
        if t:
            moment = chain.log_policies[t - 1].exp() @ moment
        assert torch.allclose(v, shift + alpha * moment.log(), atol=1e-10 + 1e-10 * alpha)
    assert math.isclose(value, shift + alpha * (chain.log_initial.exp() @ moment).log(), abs_tol=1e-9)


@settings(max_examples=50)
@given(SEEDS)
def test_equation_7_beats_every_other_policy(seed):
    """The optimum's objective is alpha log C; another chain's is lower by alpha times its path KL to the optimum."""
    chain, reward, alpha, generator = random_world(seed)
    _, value = soft_values(chain, reward, alpha)
    optimum = optimal_chain(chain, reward, alpha)
    assert math.isclose(objective(optimum, chain, reward, alpha), value, abs_tol=1e-9)
    assert abs(gap(optimum, chain, reward, alpha)) < 1e-9
    for rival in (chain, random_rival(chain, generator), random_rival(optimum, generator)):
        distance = gap(rival, chain, reward, alpha)
        assert distance >= -1e-12
        assert math.isclose(
            objective(rival, chain, reward, alpha), value - alpha * distance, rel_tol=1e-9, abs_tol=1e-9
        )
        designs = rival.log_marginals()[0]
        assert kl_divergence(designs, tilted(chain.log_marginals()[0], reward, alpha)) <= distance + 1e-9


@settings(max_examples=50)
@given(SEEDS)
def test_summed_kl_is_the_kl_of_the_enumerated_paths(seed):
    chain, _, _, generator = random_world(seed)
    rival = random_rival(chain, generator)
    assert path_kl(chain, rival) >= 0
    assert math.isclose(path_kl(rival, chain), enumerated_kl(path_law(rival), path_law(chain)), abs_tol=1e-10)
    assert path_kl(chain, chain) == 0


@settings(max_examples=50)
@given(SEEDS)
def test_kl_between_chains_of_other_supports_is_that_of_the_paths(seed):
    """Zeros in either chain: inf where mass leaves the support, never NaN."""
    chain, reward, alpha, generator = random_world(seed)
    sizes = [len(v) for v in soft_values(chain, reward, alpha)[0]]
    other = random_chain(sizes, generator, zeros=0.3)
    expected = enumerated_kl(path_law(other), path_law(chain))
    assert math.isclose(path_kl(other, chain), expected, rel_tol=1e-10, abs_tol=1e-10)
    if expected == math.inf:
        assert objective(other, chain, reward, alpha) == -torch.inf
        assert gap(other, chain, reward, alpha) == torch.inf


@settings(max_examples=50)
@given(SEEDS)
def test_initial_bias_is_the_gap_of_an_untilted_start(seed):
    """KL(p_pre_{T+1} || p*_{T+1}) = log C - E_pre[v_T] / alpha; and no chain with that start does better."""
    chain, reward, alpha, generator = random_world(seed)
    values, value = soft_values(chain, reward, alpha)
    bias = initial_bias(chain, reward, alpha)
    assert math.isclose(bias, (value - expectation(chain.log_initial, values[-1])) / alpha, abs_tol=1e-9)
    untilted = optimal_chain(chain, reward, alpha, tilt_initial=False)
    assert math.isclose(gap(untilted, chain, reward, alpha), bias, abs_tol=1e-9)
    rival = random_rival(chain, generator)
    rival = FiniteChain(chain.log_initial, rival.log_policies)
    assert gap(rival, chain, reward, alpha) >= bias - 1e-9


@settings(max_examples=20)
@given(SEEDS)
def test_a_memoryless_start_needs_no_tilt(seed):
    """If x_T is independent of x_0, v_T is constant: no bias, whatever the reward."""
    chain, reward, alpha, generator = random_world(seed)
    row = random_law(len(chain.log_initial), generator=generator)
    forgetful = random_law(1, len(row), generator=generator).expand(3, -1)
    chain = FiniteChain(random_law(3, generator=generator), [*chain.log_policies, forgetful])
    assert abs(initial_bias(chain, reward, alpha)) < 1e-10
    untilted = optimal_chain(chain, reward, alpha, tilt_initial=False)
    assert_same_law(untilted.log_marginals()[0], tilted(chain.log_marginals()[0], reward, alpha))


def test_a_start_that_remembers_biases_an_untilted_chain():
    """x_0 copies x_T nine times of ten: with the start left alone, designs miss the tilted law for good."""
    half = torch.tensor([0.5, 0.5]).log()
    chain = FiniteChain(half, [torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()])
    reward, alpha = torch.tensor([0.0, 2.0]), 1.0
    aim = tilted(chain.log_marginals()[0], reward, alpha)
    assert math.isclose(aim[1].exp(), math.exp(2) / (1 + math.exp(2)), abs_tol=1e-7)
    assert total_variation(optimal_chain(chain, reward, alpha).log_marginals()[0], aim) < 1e-12
    untilted = optimal_chain(chain, reward, alpha, tilt_initial=False)
    assert total_variation(untilted.log_marginals()[0], aim) > 0.1
    assert initial_bias(chain, reward, alpha) > 0.1


@settings(max_examples=50)
@given(SEEDS)
def test_a_larger_alpha_lowers_reward_and_kl_of_the_optimum(seed):
    chain, reward, alpha, _ = random_world(seed)
    weak, strong = (optimal_chain(chain, reward, a) for a in (2 * alpha, alpha))
    assert expectation(weak.log_marginals()[0], reward) <= expectation(strong.log_marginals()[0], reward) + 1e-10
    assert path_kl(weak, chain) <= path_kl(strong, chain) + 1e-10
    assert soft_values(chain, reward, 2 * alpha)[1] <= soft_values(chain, reward, alpha)[1] + 1e-10


@settings(max_examples=50)
@given(SEEDS)
def test_a_larger_c_lowers_the_value_and_the_penalty_of_the_optimum(seed):
    chain, mean, alpha, generator = random_world(seed)
    penalty = torch.rand(len(mean), generator=generator, dtype=torch.float64)
    mild, strict = mean - 0.5 * penalty, mean - 2.0 * penalty
    assert soft_values(chain, strict, alpha)[1] <= soft_values(chain, mild, alpha)[1] + 1e-10
    designs = [optimal_chain(chain, lower, alpha).log_marginals()[0] for lower in (mild, strict)]
    assert expectation(designs[1], penalty) <= expectation(designs[0], penalty) + 1e-10


def test_forbidden_designs():
    """A reward of -inf: no NaN, no mass, and states that lead nowhere else are not visited."""
    policy = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]).log()
    chain = FiniteChain(torch.tensor([0.5, 0.5]).log(), [policy])
    reward = torch.tensor([1.0, 0.0, -torch.inf])
    optimum = optimal_chain(chain, reward, 1.0)
    assert optimum.log_initial.exp().tolist() == [1.0, 0.0]
    assert_same_law(optimum.log_marginals()[0], tilted(chain.log_marginals()[0], reward, 1.0), 1e-7)
    assert initial_bias(chain, reward, 1.0) == torch.inf
    assert objective(chain, chain, reward, 1.0) == -torch.inf
    everything = torch.full((3,), -torch.inf)
    with pytest.raises(ValueError, match="on every design .*; allow at least one"):
        soft_values(chain, everything, 1.0)
    with pytest.raises(ValueError, match="allow at least one state"):
        tilted(chain.log_marginals()[0], everything, 1.0)


def test_rewards_far_larger_than_alpha_do_not_overflow():
    chain, reward, _, _ = random_world(3)
    designs = optimal_chain(chain, 1e6 * reward, 1e-3).log_marginals()[0]
    support = chain.log_marginals()[0] > -torch.inf
    assert designs.argmax() == reward.masked_fill(~support, -torch.inf).argmax()
    assert not designs.isnan().any()


def test_errors_name_the_rule_and_the_value():
    half = torch.tensor([0.5, 0.5]).log()
    policy = half.expand(2, 2)
    with pytest.raises(ValueError, match="sum to 1; off by 1"):
        FiniteChain(torch.zeros(2), [policy])
    with pytest.raises(ValueError, match=r"log_policies\[0\] must have shape .S_1, S_0. with S_1 = 2; got .3, 2."):
        FiniteChain(half, [half.expand(3, 2)])
    with pytest.raises(ValueError, match="at least one policy"):
        FiniteChain(half, [])
    chain = FiniteChain(half, [policy])
    with pytest.raises(ValueError, match="`alpha` must be > 0; got 0"):
        soft_values(chain, torch.zeros(2), 0.0)
    with pytest.raises(ValueError, match="reward must have shape .2,., one entry a design; got .3,."):
        soft_values(chain, torch.zeros(3), 1.0)
    with pytest.raises(ValueError, match="not NaN"):
        soft_values(chain, torch.tensor([0.0, math.nan]), 1.0)
