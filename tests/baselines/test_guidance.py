"""Guidance against laws that it shifts by known amounts, and in batches of every size."""

import copy

import numpy as np
import pytest
import torch

from braidkit import MaskedDiffusion, SequenceSpace, SimplexDiffusion, TabularDiffusion
from braidkit.baselines import ClassifierGuidance, guided_policy, sample_guided
from braidkit.exceptions import InvalidParameterError
from tests.baselines.worlds import KINDS, mean_truth, same_designs, trained
from tests.worlds import exact_chain

STRENGTH = 2.5


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
    guided = sample_guided(chain, lambda x, t: gradient[t - 1] * x[:, 0], noise, STRENGTH)
    reach = np.concatenate([[1.0], np.cumprod(slopes)[:-1]])
    shift = STRENGTH * np.sum(reach * np.square(stds) * gradient)
    assert torch.allclose(guided, chain.sample_points(noise) + shift, atol=1e-4)


@pytest.mark.theorem
def test_the_likelihood_of_a_linear_reward_tilts_normal_designs_exactly():
    """N(0, 1) tilted by exp(s x_0) is N(s, 1); the initial draw is left alone, and its share of the shift missing."""
    chain = exact_chain(n_features=1, n_steps=12)
    slopes, _ = slopes_and_stds(chain)
    reach = np.concatenate([[1.0], np.cumprod(slopes)])
    # log E[exp(x_0) | x_{t-1}] is linear in x_{t-1}, of slope reach[t - 1].
    noise = chain.draw_noise(50, torch.Generator().manual_seed(0))
    guided = sample_guided(chain, lambda x, t: reach[t - 1] * x[:, 0], noise, STRENGTH)
    shift = STRENGTH * (1 - reach[-1] ** 2)
    assert reach[-1] < 0.1
    assert torch.allclose(guided, chain.sample_points(noise) + shift, atol=1e-4)


@pytest.mark.theorem
@pytest.mark.parametrize("kind", ["masked", "tabular"])
def test_a_linear_log_likelihood_tilts_tokens_exactly(kind):
    """p(letter) exp(strength w), normalised, at every step."""
    space = SequenceSpace("ACG", length=2)
    chain = MaskedDiffusion(space, n_hidden=8) if kind == "masked" else TabularDiffusion(space, n_steps=3)
    chain.fit(["AC", "CG", "GG", "GA"] * 10, max_iter=10, random_state=0)
    weight = torch.randn(chain.state_shape, generator=torch.Generator().manual_seed(0))
    x = chain.noised(space.encode(["AC", "GA", "GG"]), chain.n_steps, torch.Generator().manual_seed(0))
    guided = guided_policy(chain, lambda x, t: (x * weight).flatten(1).sum(dim=1), x, chain.n_steps, STRENGTH)
    law = chain.policy(x, chain.n_steps).logits.softmax(dim=-1) * (STRENGTH * weight).exp()
    assert torch.allclose(guided.logits.softmax(dim=-1), law / law.sum(dim=-1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize("scheme", ["euler", "bridge"])
def test_states_of_the_simplex_move_by_their_own_variance(scheme):
    chain = SimplexDiffusion(SequenceSpace("DNA", length=3), n_steps=5, scheme=scheme)
    chain.fit(["ACG", "TTT", "GCA"] * 10, max_iter=2, random_state=0)
    x = chain.initial(4).rsample(torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0)))
    weight = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    plain = chain.policy(x, 5).normal
    guided = guided_policy(chain, lambda x, t: (x * weight).flatten(1).sum(dim=1), x, 5, STRENGTH)
    assert torch.equal(guided.std, plain.std)
    assert torch.allclose(guided.mean - plain.mean, STRENGTH * plain.std.square() * weight, atol=1e-5)


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    chain, X, y = trained(request.param, max_iter=100)
    return ClassifierGuidance(chain, strength=4.0, max_iter=200, random_state=0).fit(X, y), X, y


def test_designs_of_every_chain_get_better(fitted):
    method, X, y = fitted
    designs = method.sample(100, random_state=0)
    assert mean_truth(designs) > mean_truth(method.pretrained_.sample(100, random_state=0)) + y.std()
    assert method.space_.kind_of(designs) == method.space_.kind_of(X)


def test_the_strength_does_not_depend_on_the_batch_size(fitted):
    """The same designs alone, by threes and all at once; and the same step."""
    method, _, _ = fitted
    whole = method.sample(10, random_state=0)
    batch_size = method.batch_size
    for size in (1, 3):
        assert same_designs(whole, method.set_params(batch_size=size).sample(10, random_state=0))
    method.set_params(batch_size=batch_size)
    chain = method.pretrained_
    x = chain.noised(chain.space.encode(whole), 2, torch.Generator().manual_seed(0))
    together = guided_policy(chain, method.log_likelihood, x, 2, 4.0)
    alone = guided_policy(chain, method.log_likelihood, x[:1], 2, 4.0)
    centre = "mean" if hasattr(together, "mean") else "logits"
    assert torch.allclose(getattr(together, centre)[:1], getattr(alone, centre), atol=1e-4)


def test_no_strength_is_the_pretrained_model(fitted):
    method, _, _ = fitted
    unguided = copy.copy(method).set_params(strength=0.0)
    assert same_designs(unguided.sample(20, random_state=5), method.pretrained_.sample(20, random_state=5))


def test_the_network_knows_each_level_of_the_noise():
    """Designs N(0, 1) that are their own measurements: E[y | x_t] = cos(phi_t) x_t."""
    X = np.random.default_rng(0).normal(size=(2000, 1))
    chain = exact_chain(n_steps=10)
    reach = ClassifierGuidance(chain, target=3.0, max_iter=500, random_state=0).fit(X, X[:, 0])
    x_t = torch.linspace(-1.5, 1.5, 7)[:, None]
    goal = (3.0 - X.mean()) / X.std()
    for t in (1, 5, 10):
        found = reach.network_(x_t, torch.full((7,), t / 10))
        assert torch.allclose(found, chain.angles[t].cos() * x_t[:, 0], atol=0.3)
        assert torch.allclose(reach.log_likelihood(x_t, t), -0.5 * (goal - found).square(), atol=1e-5)


def test_the_top_is_a_tail_of_a_normal_measurement():
    X = np.arange(200.0)[:, None]
    method = ClassifierGuidance(exact_chain(), top_fraction=0.1, max_iter=3, random_state=0).fit(X - 99.5, X[:, 0])
    x_t = torch.linspace(-2, 2, 5)[:, None]
    mean = method.network_(x_t, torch.full((5,), 4 / 20))
    goal = (np.quantile(X, 0.9) - X.mean()) / X.std()
    assert torch.allclose(method.log_likelihood(x_t, 4).exp(), torch.special.ndtr(mean - goal), atol=1e-5)


def test_designs_go_to_the_target():
    chain, X, y = trained("gaussian", max_iter=200)
    means = []
    for target in (-2.0, 0.0, 2.0):
        method = ClassifierGuidance(chain, target=target, max_iter=200, random_state=0).fit(X, y)
        means.append(mean_truth(method.sample(100, random_state=0)))
    assert means == pytest.approx([-2.0, 0.0, 2.0], abs=0.7)


def test_the_chain_that_was_given_is_shared_and_not_changed():
    chain, X, y = trained("masked", max_iter=5)
    before = copy.deepcopy(chain.state_dict())
    state = torch.random.get_rng_state()
    method = ClassifierGuidance(chain, max_iter=5, random_state=0).fit(X, y)
    assert np.isfinite(method.score(X, y))
    again = ClassifierGuidance(chain, max_iter=5, random_state=0).fit(X, y)
    assert method.sample(5, random_state=0) == again.sample(5, random_state=0)
    assert method.pretrained_ is chain and torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in chain.state_dict().items())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": "best"}, "target must be \"top\" or a number in y's units; got 'best'"),
        ({"target": float("nan")}, "target must be"),
        ({"strength": -1}, "strength must be a number >= 0"),
        ({"top_fraction": 1.0}, "top_fraction must be < 1"),
        ({"top_fraction": 0.0}, "top_fraction must be a number > 0"),
        ({"max_iter": "many"}, "max_iter must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"validation_fraction": 1.0}, "validation_fraction must be < 1"),
    ],
)
def test_bad_parameters_are_told_before_any_work(parameters, message):
    with pytest.raises(InvalidParameterError, match=message):
        ClassifierGuidance(**parameters).fit([[0.0], [1.0]], [0.0, 1.0])
