"""Guidance learned from measurements, in batches of every size."""

import copy

import numpy as np
import pytest
import torch

from braidkit import ImageSpace, PixelDiffusion
from braidkit.baselines import ClassifierGuidance
from braidkit.diffusion import DiffusionModel, GuidedDiffusion
from braidkit.diffusion.guided import NoisedNetwork
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning import sample_with_kl
from tests.baselines.worlds import KINDS, mean_truth, same_designs, trained
from tests.worlds import exact_chain


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
    together, alone = method.model_.policy(x, 2), method.model_.policy(x[:1], 2)
    centre = "mean" if hasattr(together, "mean") else "logits"
    assert torch.allclose(getattr(together, centre)[:1], getattr(alone, centre), atol=1e-4)


def test_no_strength_is_the_pretrained_model(fitted):
    method, _, _ = fitted
    unguided = GuidedDiffusion(method.pretrained_, method.model_.guide, strength=0.0)
    noise = unguided.draw_noise(20, torch.Generator().manual_seed(5))
    walked = DiffusionModel.sample_points(method.pretrained_, noise)  # step by step, also where the law is known
    assert torch.allclose(unguided.sample_points(noise), walked, atol=1e-4)


def test_the_guided_chain_is_saved_and_compared_with_the_pretrained_one(fitted, tmp_path):
    """Loaded it gives the same designs; its path KL to the pretrained chain is positive, and its own to itself zero."""
    method, _, _ = fitted
    method.model_.save_pretrained(tmp_path / "guided")
    loaded = DiffusionModel.from_pretrained(tmp_path / "guided")
    assert isinstance(loaded, GuidedDiffusion)
    assert same_designs(loaded.sample(20, random_state=0), method.sample(20, random_state=0))
    noise = loaded.draw_noise(8, torch.Generator().manual_seed(0))
    assert (sample_with_kl(loaded, method.pretrained_, noise).kl > 0.01).all()
    assert not sample_with_kl(loaded, method.model_, noise).kl.any()


def test_the_network_knows_each_level_of_the_noise():
    """Designs N(0, 1) that are their own measurements: E[y | x_t] = cos(phi_t) x_t."""
    X = np.random.default_rng(0).normal(size=(2000, 1))
    chain = exact_chain(n_steps=10)
    reach = ClassifierGuidance(chain, target=3.0, max_iter=500, random_state=0).fit(X, X[:, 0])
    x_t = torch.linspace(-1.5, 1.5, 7)[:, None]
    goal = (3.0 - X.mean()) / X.std()
    for t in (1, 5, 10):
        time = torch.full((7,), t / 10)
        found = reach.model_.guide.network(x_t, time)
        assert torch.allclose(found, chain.angles[t].cos() * x_t[:, 0], atol=0.3)
        assert torch.allclose(reach.model_.guide(x_t, time), -0.5 * (goal - found).square(), atol=1e-5)


def test_the_top_is_a_tail_of_a_normal_measurement():
    X = np.arange(200.0)[:, None]
    method = ClassifierGuidance(exact_chain(), top_fraction=0.1, max_iter=3, random_state=0).fit(X - 99.5, X[:, 0])
    x_t = torch.linspace(-2, 2, 5)[:, None]
    time = torch.full((5,), 4 / 20)
    mean = method.model_.guide.network(x_t, time)
    goal = (np.quantile(X, 0.9) - X.mean()) / X.std()
    assert torch.allclose(method.model_.guide(x_t, time).exp(), torch.special.ndtr(mean - goal), atol=1e-5)


def test_designs_go_to_the_target():
    chain, X, y = trained("gaussian", max_iter=200)
    means = []
    for target in (-2.0, 0.0, 2.0):
        method = ClassifierGuidance(chain, target=target, strength=4, max_iter=200, random_state=0).fit(X, y)
        means.append(mean_truth(method.sample(100, random_state=0)))
    assert means == pytest.approx([-2.0, 0.0, 2.0], abs=0.5)


def test_the_chain_that_was_given_is_shared_and_not_changed():
    chain, X, y = trained("masked", max_iter=5)
    before = copy.deepcopy(chain.state_dict())
    state = torch.random.get_rng_state()
    method = ClassifierGuidance(chain, max_iter=5, random_state=0).fit(X, y)
    assert np.isfinite(method.score(X[::8], y[::8]))
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
        ({"top_fraction": 1.0}, "top_fraction must be a number > 0 and < 1"),
        ({"top_fraction": 0.0}, "top_fraction must be a number > 0"),
        ({"max_iter": "many"}, "max_iter must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"validation_fraction": 1.0}, "validation_fraction must be a number .* < 1"),
    ],
)
def test_bad_parameters_are_told_before_any_work(parameters, message):
    with pytest.raises(InvalidParameterError, match=message):
        ClassifierGuidance(**parameters).fit([[0.0], [1.0]], [0.0, 1.0])


def test_images_are_guided_towards_large_measurements():
    pytest.importorskip("diffusers")
    rng = np.random.default_rng(0)
    X = rng.random((200, 4, 6)) * rng.random(200)[:, None, None]
    y = X.mean(axis=(1, 2))
    chain = PixelDiffusion(ImageSpace(4, 6, 1), n_steps=5, n_channels=8).fit(X, max_iter=100, random_state=0)
    guided = ClassifierGuidance(chain, max_iter=100, random_state=0).fit(X, y).sample(50, random_state=0)
    assert guided.mean() > chain.sample(50, random_state=0).mean() + y.std()


def test_a_guide_sees_large_images_averaged():
    network = NoisedNetwork(ImageSpace(64, 40, 3))
    x = torch.rand(2, 3, 64, 40)
    small = torch.nn.functional.adaptive_avg_pool2d(x, (32, 32))
    assert network.features.layers[1].in_features == 3 * 32 * 32 + 4
    torch.testing.assert_close(network(x, torch.ones(2)), network(small, torch.ones(2)))
