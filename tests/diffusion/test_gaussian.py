"""The chain contract on the Gaussian chain, and the chain against closed forms."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from braidkit.diffusion import DiffusionModel, GaussianDiffusion
from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError
from braidkit.spaces import SequenceSpace, VectorSpace
from tests.worlds import exact_chain

COVARIANCE = np.array([[1.0, 0.8], [0.8, 4.0]])


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).multivariate_normal([3.0, -1.0], COVARIANCE, size=2000)


@pytest.fixture(scope="module")
def model(data):
    return GaussianDiffusion(VectorSpace.from_data(data)).fit(data, max_iter=600, random_state=0)


def test_the_exact_chain_of_normal_data_keeps_its_law_at_every_step():
    model = exact_chain()
    for t in range(1, model.n_steps + 1):
        policy = model.policy(torch.ones(1, 1), t)
        # x_t ~ N(0, 1) must give x_{t-1} ~ N(0, 1): slope^2 + std^2 = 1.
        assert float(policy.mean) ** 2 + float(policy.std) ** 2 == pytest.approx(1.0, abs=1e-5)


def test_the_policy_is_the_posterior_of_the_forward_process():
    """DDPM, equations (6) and (7), by Bayes' rule on x_{t-1} given x_t and x_0."""
    model = exact_chain()
    model.velocity_error.zero_()
    t, x_t = 7, torch.tensor([[0.4]])
    phi, phi_next = float(model.angles[t]), float(model.angles[t - 1])
    x_0 = math.cos(phi) * 0.4  # the design that velocity 0 predicts
    ratio = math.cos(phi) / math.cos(phi_next)
    precision = 1 / math.sin(phi_next) ** 2 + ratio**2 / (math.sin(phi) ** 2 - (ratio * math.sin(phi_next)) ** 2)
    pull = math.cos(phi_next) * x_0 / math.sin(phi_next) ** 2
    pull += ratio * 0.4 / (math.sin(phi) ** 2 - (ratio * math.sin(phi_next)) ** 2)
    policy = model.policy(x_t, t)
    assert float(policy.mean) == pytest.approx(pull / precision, rel=1e-4)
    assert float(policy.std) == pytest.approx(precision**-0.5, rel=1e-4)


def test_denoise_gives_the_mean_design_of_normal_data():
    """Standard normal data: E[x_0 | x_t] = cos(phi) x_t, as x_t = cos(phi) x_0 + sin(phi) noise has variance 1."""
    model, x_t = exact_chain(n_features=3), torch.tensor([[0.4, -1.0, 2.0]])
    for t in range(1, model.n_steps + 1):
        assert torch.allclose(model.denoise(x_t, t), model.angles[t].cos() * x_t)


def test_denoise_is_by_the_fine_tuned_network(model):
    tuned, x_t = model.trainable_copy(), torch.ones(1, 2)
    with torch.no_grad():
        tuned.network.last.bias += 1.0
    # One more of velocity is sin(phi) less of the design.
    assert torch.allclose(tuned.denoise(x_t, 9), model.denoise(x_t, 9) - model.angles[9].sin(), atol=1e-5)


def test_samples_have_the_mean_and_covariance_of_the_data(model, data):
    samples = model.sample(4000, random_state=1)
    assert np.allclose(samples.mean(axis=0), data.mean(axis=0), atol=0.15)
    assert np.allclose(np.cov(samples.T), np.cov(data.T), atol=0.35)


def test_designs_do_not_depend_on_how_many_are_drawn_at_once(model):
    whole = model.sample(7, random_state=3)
    assert np.allclose(whole, model.sample(7, random_state=3, batch_size=2), atol=1e-6)
    noise = model.draw_noise(7, torch.Generator().manual_seed(5))
    assert torch.equal(noise[:3], model.draw_noise(3, torch.Generator().manual_seed(5)))


def test_sampling_does_not_touch_the_global_generators(model):
    state = torch.random.get_rng_state()
    first = model.sample(3, random_state=0)
    assert np.array_equal(first, model.sample(3, random_state=0))
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_same_seed_trains_the_same_model(data):
    fits = [
        GaussianDiffusion(VectorSpace.from_data(data)).fit(data, max_iter=20, random_state=4).state_dict()
        for _ in range(2)
    ]
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])


def test_a_trained_model_is_frozen_and_a_copy_is_not(model, data):
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    with pytest.raises(IncompatibleModelError, match="copy.deepcopy"):
        model.fit(data)
    before = copy.deepcopy(model.state_dict())
    further = copy.deepcopy(model).fit(data, max_iter=5, random_state=0)
    assert any(not torch.equal(further.state_dict()[name], before[name]) for name in before)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_clones_share_the_model_and_nothing_can_be_set_on_it(model):
    assert clone(model) is model
    assert not hasattr(model, "get_params") and not hasattr(model, "set_params")


def test_an_untrained_model_says_so():
    untrained = GaussianDiffusion(VectorSpace(2))
    calls = [untrained.sample, untrained.trainable_copy, lambda: untrained.save_pretrained("x")]
    calls += [lambda: untrained.trainable, lambda: untrained.readout_network]
    for call in calls:
        with pytest.raises(NotFittedError, match="was never trained; call its fit"):
            call()


@pytest.mark.parametrize("roundtrip", ["save_pretrained", "pickle"])
def test_a_model_survives_saving(model, tmp_path, roundtrip):
    if roundtrip == "pickle":
        loaded = pickle.loads(pickle.dumps(model))
    else:
        model.save_pretrained(tmp_path / "model")
        loaded = DiffusionModel.from_pretrained(tmp_path / "model")
    assert loaded.frozen and loaded.kind == "vectors"
    assert np.array_equal(loaded.sample(5, random_state=0), model.sample(5, random_state=0))


def test_a_model_of_another_class_is_not_loaded(model, tmp_path):
    class OtherDiffusion(GaussianDiffusion):
        pass

    model.save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match="holds a 'GaussianDiffusion', not a OtherDiffusion"):
        OtherDiffusion.from_pretrained(tmp_path / "model")


def test_wrong_arguments_are_refused():
    with pytest.raises(InvalidParameterError, match="n_steps must be a whole number of at least 1; got 0"):
        GaussianDiffusion(VectorSpace(2), n_steps=0)
    with pytest.raises(InvalidParameterError, match="needs a VectorSpace"):
        GaussianDiffusion(SequenceSpace("DNA", 3))


def test_the_standard_normal_chain_is_linear_gaussian_and_keeps_that_law():
    model = GaussianDiffusion.standard_normal(2, n_steps=8)
    zeros, ones = (model.policy(torch.full((1, 2), value), 3) for value in (0.0, 1.0))
    halves = model.policy(torch.full((1, 2), 0.5), 3)
    assert not zeros.mean.any() and torch.allclose(halves.mean, ones.mean / 2) and ones.std == zeros.std
    variance = 1.0
    for t in range(8, 0, -1):
        policy = model.policy(torch.ones(1, 2), t)
        variance = float(policy.mean[0, 0]) ** 2 * variance + float(policy.std) ** 2
        assert variance == pytest.approx(1.0, abs=1e-5)


def test_noised_states_have_the_level_of_their_row():
    """x_t ~ N(cos(phi_t) x, sin(phi_t)^2)."""
    model, x = GaussianDiffusion(VectorSpace(1), n_steps=10), torch.full((20_000, 1), 2.0)
    t = torch.arange(20_000) % 2 * 6 + 1
    states = model.noised(x, t, torch.Generator().manual_seed(0))
    for level in (1, 7):
        phi, drawn = float(model.angles[level]), states[t == level]
        assert float(drawn.mean()) == pytest.approx(2 * math.cos(phi), abs=0.04)
        assert float(drawn.std()) == pytest.approx(math.sin(phi), rel=0.03)
    again = model.noised(x, 7, torch.Generator().manual_seed(0))
    assert torch.equal(again[t == 7], states[t == 7]) and torch.equal(model.as_points(again, 7), again)
