"""Policies against torch.distributions."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import one_hot

from braidkit.diffusion import Categorical, Fixed, Gaussian

SEEDS = st.integers(0, 10_000)


@given(SEEDS)
def test_gaussian_kl_and_log_prob_are_those_of_independent_normals(seed):
    g = torch.Generator().manual_seed(seed)
    mean, other = torch.randn(2, 3, 4, 2, generator=g)
    std = torch.rand(3, 4, 2, generator=g) + 0.1
    policy, twin = Gaussian(mean, std), Gaussian(other, std)
    expected = kl_divergence(Normal(mean, std), Normal(other, std)).sum(dim=(1, 2))
    assert torch.allclose(policy.kl(twin), expected, rtol=1e-4, atol=1e-5)
    assert (policy.kl(twin) >= 0).all() and torch.equal(policy.kl(policy), torch.zeros(3))
    x = torch.randn(3, 4, 2, generator=g)
    assert torch.allclose(policy.log_prob(x), Normal(mean, std).log_prob(x).sum(dim=(1, 2)), rtol=1e-4, atol=1e-4)


def test_gaussian_log_prob_with_one_deviation_for_all_entries():
    policy = Gaussian(torch.zeros(2, 5), torch.tensor(2.0))
    expected = Normal(torch.zeros(2, 5), 2.0).log_prob(torch.ones(2, 5)).sum(dim=1)
    assert torch.allclose(policy.log_prob(torch.ones(2, 5)), expected)


def test_gaussian_draws_pass_gradients_to_the_mean():
    mean = torch.zeros(2, 3, requires_grad=True)
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    draw = Gaussian(mean, torch.tensor(0.5)).rsample(noise)
    assert torch.allclose(draw, 0.5 * noise)
    draw.sum().backward()
    assert torch.equal(mean.grad, torch.ones(2, 3))


@given(SEEDS)
def test_categorical_kl_and_log_prob_are_those_of_independent_letters(seed):
    g = torch.Generator().manual_seed(seed)
    logits, other = 2 * torch.randn(2, 3, 5, 4, generator=g)
    policy, twin = Categorical(logits), Categorical(other)
    expected = kl_divergence(TorchCategorical(logits=logits), TorchCategorical(logits=other)).sum(dim=1)
    assert torch.allclose(policy.kl(twin), expected, rtol=1e-4, atol=1e-5)
    x = torch.randint(4, (3, 5), generator=g)
    assert torch.allclose(
        policy.log_prob(one_hot(x, 4)), TorchCategorical(logits=logits).log_prob(x).sum(dim=1), atol=1e-4
    )


def test_categorical_of_one_position_needs_no_axis_for_it():
    logits, other = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = Categorical(logits[:, None]).kl(Categorical(other[:, None]))
    assert torch.equal(Categorical(logits).kl(Categorical(other)), expected)


def test_categorical_draws_have_the_right_frequencies():
    probabilities = torch.tensor([0.1, 0.2, 0.7])
    n = 20_000
    noise = torch.randn(n, 1, 3, generator=torch.Generator().manual_seed(0))
    draws = Categorical(probabilities.log().expand(n, 1, 3)).rsample(noise)
    assert torch.equal(draws.sum(dim=-1), torch.ones(n, 1)) and set(draws.unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(draws.mean(dim=(0, 1)), probabilities, atol=4 * 0.5 / n**0.5)


def test_categorical_draws_pass_the_gradient_of_the_softmax_of_the_same_noise():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=g).requires_grad_(True)
    noise, weight = torch.randn(2, 2, 3, 4, generator=g)
    draw = Categorical(logits).rsample(noise)
    assert torch.equal(draw, Categorical(logits.detach()).rsample(noise))
    (gradient,) = torch.autograd.grad((weight * draw).sum(), logits)
    gumbel = -(-torch.special.ndtr(noise).log()).log()
    (expected,) = torch.autograd.grad((weight * (logits + gumbel).softmax(dim=-1)).sum(), logits)
    assert torch.allclose(gradient, expected, atol=1e-6)


def test_a_fixed_state_costs_nothing():
    state = torch.ones(2, 3)
    policy = Fixed(state)
    assert policy.rsample(torch.zeros(2, 5)) is state
    assert torch.equal(policy.kl(Fixed(state)), torch.zeros(2)) and torch.equal(policy.log_prob(state), torch.zeros(2))
