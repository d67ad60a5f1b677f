"""The simplex chain's steps, by either scheme, against the formulas, and its law against exact ones."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.diffusion._jacobi import break_sticks
from braidkit.diffusion.simplex import EPS, StationaryAngles, StationarySticks
from tests.diffusion.simplex_chains import DNA_STICKS, model_of, random_model


def test_stationary_sticks_are_beta():
    b = torch.tensor([3.0, 2.0, 1.0]).expand(4000, 1, 3)
    policy = StationarySticks(b)
    v = policy.rsample(torch.randn(4000, 1, 3, generator=torch.Generator().manual_seed(0)))
    for stick, b_stick in enumerate((3, 2, 1)):
        assert stats.kstest(v[:, 0, stick].numpy(), stats.beta(1, b_stick).cdf).pvalue > 1e-3
    expected = sum(stats.beta(1, 3 - stick).logpdf(v[:, 0, stick].numpy()) for stick in range(3))
    np.testing.assert_allclose(policy.log_prob(v), expected, rtol=1e-4, atol=1e-4)
    assert (policy.kl(policy) == 0).all()
    other = StationarySticks(torch.tensor([1.0, 2.0, 5.0]).expand(4000, 1, 3))
    estimate = policy.log_prob(v) - other.log_prob(v)
    assert policy.kl(other)[0].item() == pytest.approx(estimate.mean().item(), abs=5 * estimate.std().item() / 63)


def test_initial_draw_is_uniform_on_the_simplex():
    model = random_model("letters")
    noise = torch.randn(4000, *model.state_shape, generator=torch.Generator().manual_seed(0))
    x = break_sticks(model.initial(4000).rsample(noise))
    # A coordinate of the uniform law on the simplex of K letters is Beta(1, K - 1), whichever it is.
    for letter in range(4):
        assert stats.kstest(x[:, 0, letter].numpy(), stats.beta(1, 3).cdf).pvalue > 1e-3


@pytest.mark.parametrize("head", ["letters", "score"])
def test_policy_is_the_reverse_euler_step(head):
    model = random_model(head)
    v = 0.02 + 0.96 * torch.rand(6, *model.state_shape, generator=torch.Generator().manual_seed(1))
    t = 4
    clock = torch.tensor([model.times[t]])
    b = torch.tensor([3.0, 2.0, 1.0])
    s, h = 2 / (1 + b), model.times[t] - model.times[t - 1]
    x = break_sticks(v)
    if head == "letters":
        # math.md, section 3: the letters' average of the three conditional scores, position by position.
        evidence = model.law.evidence(v, t)
        likelihood = evidence.log_likelihoods()
        q = (likelihood + model.network(likelihood.softmax(dim=-1), clock)).softmax(dim=-1)
        zero = -(b - 1 + evidence.lineages_zero) / (1 - v)
        one = evidence.lineages_one / v - (b - 1) / (1 - v)
        stationary = -(b - 1) / (1 - v)
        score = torch.stack(
            [
                q[..., i + 1 :].sum(-1) * zero[..., i]
                + q[..., i] * one[..., i]
                + q[..., :i].sum(-1) * stationary[..., i]
                for i in range(3)
            ],
            dim=-1,
        )
    else:
        # gv_i = gx_i P_i - (sum_{j>i} gx_j x_j) / (1 - v_i) - (K - 2 - i) / (1 - v_i)
        gx = model.network(x, clock)
        gx = model.score_scale[t] * (gx - gx.mean(dim=-1, keepdim=True))
        left = torch.cat([torch.ones_like(v[..., :1]), (1 - v).cumprod(dim=-1)[..., :-1]], dim=-1)
        score = torch.stack(
            [gx[..., i] * left[..., i] - ((gx * x)[..., i + 1 :].sum(-1) + 2 - i) / (1 - v[..., i]) for i in range(3)],
            dim=-1,
        )
    mean = v - h * s * ((1 - v - b * v) / 2 - (1 - 2 * v) - v * (1 - v) * score)
    policy = model.policy(v, t)
    if head == "letters":
        policy = policy.normal
    torch.testing.assert_close(policy.mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(policy.std, (h * s * v * (1 - v)).sqrt())


def test_kl_is_that_of_the_scores():
    model, other = random_model("score"), random_model("score")
    with torch.no_grad():
        other.network.last[2].bias += torch.randn(4)
    v, t = 0.1 + 0.8 * torch.rand(3, *model.state_shape), 7
    s, h = model.speed, model.times[t] - model.times[t - 1]
    pull, other_pull = model._pull(model.network, v, t), other._pull(other.network, v, t)
    expected = (h * s * (pull - other_pull).square() / (v * (1 - v)) / 2).flatten(1).sum(dim=1)
    torch.testing.assert_close(model.policy(v, t).kl(other.policy(v, t)), expected, rtol=1e-3, atol=1e-6)


def test_stationary_angles_are_those_of_stationary_sticks():
    b = torch.tensor([3.0, 2.0, 1.0])
    noise = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0))
    angles, sticks = (law(b.expand(5, 1, 3)).rsample(noise) for law in (StationaryAngles, StationarySticks))
    torch.testing.assert_close(angles.sin().square(), sticks)
    grid = torch.linspace(1e-4, math.pi / 2 - 1e-4, 4001, dtype=torch.float64)
    for i in range(3):
        density = StationaryAngles(b[i].double().expand(4001, 1, 1)).log_prob(grid[:, None, None]).exp()
        assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-5)


def test_a_short_bridge_is_the_diffusion_that_a_short_euler_step_is():
    """Mean and variance of the sticks to first order in the step; of a normal angle both are in closed form."""
    chains = [random_model("letters", n_steps=1, min_time=1.0, max_time=1.001, scheme=s) for s in ("euler", "bridge")]
    v = 0.02 + 0.96 * torch.rand(50, *DNA_STICKS, generator=torch.Generator().manual_seed(1))
    euler, bridge = chains[0].policy(v, 1).normal, chains[1].policy(v.sqrt().asin(), 1).normal
    mean, std = bridge.mean.double(), bridge.std.double()
    first, second = ((-2 * k**2 * std**2).exp() * (2 * k * mean).cos() for k in (1, 2))  # E cos 2 k theta'
    moved = (1 - first) / 2 - v
    variance = (1 + second - 2 * first**2) / 8
    torch.testing.assert_close(moved, (euler.mean - v).double(), rtol=0.02, atol=2e-5)
    torch.testing.assert_close(variance, euler.std.square().double(), rtol=0.02, atol=1e-7)


def test_any_number_is_an_angle():
    model = random_model("letters", scheme="bridge")
    angle = 0.1 + 1.3 * torch.rand(4, *model.state_shape, generator=torch.Generator().manual_seed(1))
    policy = model.policy(angle, 4).normal
    for image in (-angle, math.pi - angle, angle + 2 * math.pi):
        torch.testing.assert_close(model.policy(image, 4).normal.mean, policy.mean, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.as_points(image, 4), model.as_points(angle, 4), atol=1e-4, rtol=1e-3)
    assert policy.std.shape == (3,) and model.constant_std and not random_model("letters").constant_std
    x = nn.functional.one_hot(torch.arange(5).expand(4, 5) % 4, 4).float()
    noised = [
        chain.noised(x, 3, torch.Generator().manual_seed(0)) for chain in (model, random_model("letters", n_steps=10))
    ]
    torch.testing.assert_close(noised[0].sin().square(), noised[1])


@pytest.mark.parametrize(("head", "scheme"), [("letters", "euler"), ("score", "euler"), ("letters", "bridge")])
def test_gradient_through_the_state_is_right(head, scheme):
    space = SequenceSpace("ACG", length=3)
    model = random_model(head, space, scheme=scheme).double()
    v = 0.05 + 0.9 * torch.rand(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    noise = torch.randn(2, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for t in (1, 8):
        step = lambda v, t=t: model.policy(v, t).rsample(noise)  # noqa: E731
        assert torch.autograd.gradcheck(step, (v.requires_grad_(),), eps=1e-8, atol=1e-4, rtol=1e-4)


def test_states_outside_the_interval_are_read_at_its_edge():
    model = random_model("letters")
    outside = torch.full((1, *model.state_shape), -0.3, requires_grad=True)
    mean = model.policy(outside, 3).normal.mean
    torch.testing.assert_close(mean, model.policy(torch.full_like(outside, EPS), 3).normal.mean)
    mean.sum().backward()
    assert (outside.grad == 0).all()


@pytest.mark.parametrize(
    ("scheme", "head", "probabilities"),
    [
        ("euler", "letters", [0.7, 0.2, 0.09, 0.01]),
        ("euler", "letters", [0.01, 0.09, 0.2, 0.7]),
        ("euler", "letters", [0.3, 0.7]),
        ("euler", "letters", [0.02, 0.3, 0.05, 0.1, 0.13, 0.4]),
        ("euler", "score", [0.05, 0.15, 0.2, 0.6]),
        ("bridge", "letters", [0.7, 0.2, 0.09, 0.01]),
        ("bridge", "letters", [0.01, 0.09, 0.2, 0.7]),
        ("bridge", "letters", [0.3, 0.7]),
        ("bridge", "letters", [0.02, 0.3, 0.05, 0.1, 0.13, 0.4]),
    ],
)
def test_exact_network_gives_the_exact_law(scheme, head, probabilities):
    probabilities = torch.tensor(probabilities)
    model = model_of(head, probabilities, length=10, scheme=scheme, n_steps=50 if scheme == "euler" else 20)
    n = 1000
    drawn = model.sample(n, random_state=0).ravel()
    counts = np.bincount(drawn, minlength=len(probabilities))
    # What Euler's 50 steps, or 20 bridges, add to the sampling error is at most 0.006 of probability.
    error = (probabilities * (1 - probabilities) / len(drawn)).sqrt()
    assert ((torch.from_numpy(counts) / len(drawn) - probabilities).abs() < 4 * error + 0.006).all()


@pytest.mark.parametrize("scheme", ["euler", "bridge"])
def test_pathwise_gradient_of_the_letters_frequency(scheme):
    # Adding theta to the logit of one letter changes its frequency; the pathwise gradient must agree with differences.
    probabilities, letter, n = torch.tensor([0.4, 0.3, 0.2, 0.1]), 2, 3000

    def frequency(theta: float, seed: int) -> tuple[Tensor, Tensor]:
        model = model_of("letters", probabilities, length=1, n_steps=20, scheme=scheme)
        decoder, tuned = model.network, copy.deepcopy(model.network)
        shift = torch.full((n, 1, 1), theta, requires_grad=True)
        tuned.forward = lambda x, t: decoder(x, t) + shift * torch.eye(4)[letter]
        model.network, model.decoder = tuned, decoder
        noise = model.draw_noise(n, torch.Generator().manual_seed(seed))
        state = model.initial(n).rsample(noise[:, 0])
        for t in range(20, 0, -1):
            state = model.policy(state, t).rsample(noise[:, t])
        return model.space.discretise(model.readout(state))[:, 0, letter], shift

    hard, shift = frequency(0.0, 0)
    (gradient,) = torch.autograd.grad(hard.sum(), shift)
    gradient = gradient.flatten()
    up, down = (torch.cat([frequency(sign * 0.25, seed)[0] for seed in (1, 2)]).detach() for sign in (1, -1))
    difference = (up - down) / 0.5
    error = math.sqrt(gradient.var().item() / n + difference.var().item() / len(difference))
    assert abs(gradient.mean().item() - difference.mean().item()) < 4 * error + 0.02
    assert gradient.mean() > 10 * gradient.std() / math.sqrt(n)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "n_steps"), [("euler", 50), ("bridge", 25)])
def test_joint_law_of_dependent_letters(scheme, n_steps):
    """Three letters with a joint law of 27 words, sampled with their exact posterior."""
    space = SequenceSpace("ACG", length=3)
    words = torch.tensor(list(itertools.product(range(3), repeat=3)))
    one_hot = nn.functional.one_hot(words, 3).float()
    probabilities = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(27, 0.3))).float().clamp(min=1e-6)

    class Posterior(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            log_x = x.clamp(min=1e-30).log()
            weights = (torch.einsum("nlk,wlk->nw", log_x, one_hot) + probabilities.log()).softmax(dim=-1)
            return (torch.einsum("nw,wlk->nlk", weights, one_hot) / x.clamp(min=1e-30)).clamp(min=1e-30).log()

    model = SimplexDiffusion(space, n_steps=n_steps, scheme=scheme)
    model.network, model.kind = Posterior(), "tokens"
    model.freeze()
    drawn = model.sample(20_000, random_state=0)
    share = np.bincount(drawn @ np.array([9, 3, 1]), minlength=27) / 20_000
    assert np.abs(share - (probabilities / probabilities.sum()).numpy()).sum() / 2 < 0.03
