"""Guided chains against laws that guidance shifts by known amounts."""

import copy

import numpy as np
import pytest
import torch

from braidkit import (
    ConservativeDiffusionFinetuner,
    GPBonusReward,
    MaskedDiffusion,
    SequenceSpace,
    SimplexDiffusion,
    TabularDiffusion,
)
from braidkit.diffusion import GuidedDiffusion
from braidkit.exceptions import IncompatibleModelError
from braidkit.finetuning import rollout
from tests.worlds import exact_chain, normal_chain

STRENGTH = 2.5


def number(chain, time):
    """t of times t / n_steps."""
    return round(float(time[0]) * chain.n_steps)


def slopes_and_stds(chain):
    """x_{t-1} = slope_t x_t + std_t z, for t = 1, ..., n_steps."""
    policies = [chain.policy(torch.ones(1, 1), t) for t in range(1, chain.n_steps + 1)]
    return [float(policy.mean) for policy in policies], [float(policy.std) for policy in policies]


@pytest.mark.theorem
def test_a_linear_log_likelihood_shifts_a_gaussian_chain_by_the_known_amount():
    """x_0 moves by sum_t (slope_1 ... slope_{t-1}) strength std_t^2 g_t for the same noise, and no more."""
    chain = exact_chain(n_features=1, n_steps=12)
    slopes, stds = slopes_and_stds(chain)
    gradient = np.linspace(-1.0, 2.0, chain.n_steps)
    noise = chain.draw_noise(50, torch.Generator().manual_seed(0))
    guided = GuidedDiffusion(chain, lambda x, time: gradient[number(chain, time) - 1] * x[:, 0], strength=STRENGTH)
    reach = np.concatenate([[1.0], np.cumprod(slopes)[:-1]])
    shift = STRENGTH * np.sum(reach * np.square(stds) * gradient)
    assert torch.allclose(guided.sample_points(noise), chain.sample_points(noise) + shift, atol=1e-4)


@pytest.mark.theorem
def test_the_likelihood_of_a_linear_reward_tilts_normal_designs_exactly():
    """N(0, 1) tilted by exp(s x_0) is N(s, 1); the initial draw is left alone, and its share of the shift missing."""
    chain = exact_chain(n_features=1, n_steps=12)
    slopes, _ = slopes_and_stds(chain)
    reach = np.concatenate([[1.0], np.cumprod(slopes)])
    # log E[exp(x_0) | x_{t-1}] is linear in x_{t-1}, of slope reach[t - 1].
    noise = chain.draw_noise(50, torch.Generator().manual_seed(0))
    guided = GuidedDiffusion(chain, lambda x, time: reach[number(chain, time) - 1] * x[:, 0], strength=STRENGTH)
    shift = STRENGTH * (1 - reach[-1] ** 2)
    assert reach[-1] < 0.1
    assert torch.allclose(guided.sample_points(noise), chain.sample_points(noise) + shift, atol=1e-4)


@pytest.mark.theorem
@pytest.mark.parametrize("kind", ["masked", "tabular"])
def test_a_linear_log_likelihood_tilts_tokens_exactly(kind):
    """p(letter) exp(strength w), normalised, at every step."""
    space = SequenceSpace("ACG", length=2)
    chain = MaskedDiffusion(space, n_hidden=8) if kind == "masked" else TabularDiffusion(space, n_steps=3)
    chain.fit(["AC", "CG", "GG", "GA"] * 10, max_iter=10, random_state=0)
    weight = torch.randn(space.shape, generator=torch.Generator().manual_seed(0))
    x = chain.noised(space.encode(["AC", "GA", "GG"]), chain.n_steps, torch.Generator().manual_seed(0))
    guide = GuidedDiffusion(chain, lambda x, time: (x * weight).flatten(1).sum(dim=1), strength=STRENGTH)
    guided = guide.policy(x, chain.n_steps)
    gain = weight if kind == "masked" else (chain.designs * weight).flatten(1).sum(dim=1)
    law = chain.policy(x, chain.n_steps).logits.softmax(dim=-1) * (STRENGTH * gain).exp()
    assert torch.allclose(guided.logits.softmax(dim=-1), law / law.sum(dim=-1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize("scheme", ["euler", "bridge"])
def test_states_of_the_simplex_move_by_their_own_variance(scheme):
    chain = SimplexDiffusion(SequenceSpace("DNA", length=3), n_steps=5, scheme=scheme)
    chain.fit(["ACG", "TTT", "GCA"] * 10, max_iter=2, random_state=0)
    x = chain.initial(4).rsample(torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0)))
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    guided = GuidedDiffusion(chain, lambda x, time: (x * weight).flatten(1).sum(dim=1), strength=STRENGTH)
    state = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad((chain.as_points(state, 5) * weight).sum(), state)
    plain, moved = chain.policy(x, 5).normal, guided.policy(x, 5)
    assert torch.equal(moved.std, plain.std)
    assert torch.allclose(moved.mean - plain.mean, STRENGTH * plain.std.square() * slope, atol=1e-5)


def test_a_pathwise_gradient_passes_through_the_guide():
    """The gradient of designs in the states is that of finite differences, also where the guide's own slope changes."""
    chain = normal_chain(n_features=2, n_steps=4).double()
    guided = GuidedDiffusion(chain, lambda x, time: (2 * x).sin().sum(dim=1), strength=STRENGTH)
    noise = chain.draw_noise(3, torch.Generator().manual_seed(0)).double()
    direction = torch.zeros_like(noise)
    direction[:, 0] = 1e-5  # the first states alone: the noise of steps is a constant

    def objective(noise):
        return rollout(guided, chain, noise).point.sum()

    (gradient,) = torch.autograd.grad(objective(noise.requires_grad_()), noise)
    with torch.no_grad():
        change = objective(noise + direction) - objective(noise - direction)
    assert float(change) == pytest.approx(2 * float((gradient * direction).sum()), rel=1e-4)


@pytest.mark.parametrize("solver", ["direct", "adjoint_matching", "trajectory_balance"])
def test_a_guided_chain_is_a_pretrained_model(solver):
    """Fine-tuning starts from guided designs, holds to them by its KL, and changes nothing of the chain given."""
    X = np.random.default_rng(0).normal(size=(100, 2))
    guided = GuidedDiffusion(normal_chain(n_features=2, n_steps=5), lambda x, time: x.sum(dim=1), strength=1.0)
    before = copy.deepcopy(guided.chain.state_dict())
    settings = {"reward": GPBonusReward(torch.nn.Flatten()), "max_iter": 2, "batch_size": 16, "random_state": 0}
    finetuner = ConservativeDiffusionFinetuner(guided, solver=solver, **settings)
    finetuner.fit(X, X.sum(axis=1))
    assert isinstance(finetuner.model_, GuidedDiffusion) and finetuner.model_.guide is guided.guide
    assert finetuner.history_["kl"][0] == 0
    assert finetuner.history_["mean"][0] > X.sum(axis=1).mean() + 0.5
    assert all(torch.equal(value, before[name]) for name, value in guided.chain.state_dict().items())


def test_guided_chain_that_cannot_be_saved_or_trained_says_so(tmp_path):
    guided = GuidedDiffusion(exact_chain(), lambda x, time: x[:, 0])
    with pytest.raises(IncompatibleModelError, match="guided by a function cannot be saved"):
        guided.save_pretrained(tmp_path / "guided")
    with pytest.raises(IncompatibleModelError, match="trained already"):
        guided.fit(np.zeros((3, 1)))
