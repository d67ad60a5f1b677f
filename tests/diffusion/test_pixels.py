"""The chain on pixels: against DDPM's posterior, on sizes that cannot be halved, and through training."""

import math
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, ImageSpace, PixelDiffusion, VectorSpace
from braidkit.baselines import DDOM
from braidkit.diffusion import DiffusionModel, GuidedNetwork, fit_guided
from braidkit.exceptions import InvalidParameterError, MissingExtraError

pytest.importorskip("diffusers")

SPACE = ImageSpace(8, 8, 1)


def small(space=SPACE, n_steps=4):
    return PixelDiffusion(space, n_steps=n_steps, n_channels=8)


def bars(n):
    """Images whose left half is brighter the further down they come."""
    images = np.random.default_rng(0).random((n, 8, 8)) / 10
    images[:, :, :4] += 0.8 * np.linspace(0, 1, n)[:, None, None]
    return images


@pytest.fixture(scope="module")
def model():
    return small().fit(bars(64), max_iter=3, random_state=0)


class NormalData(torch.nn.Module):
    """The best velocity for standard normal pixels: zero."""

    def forward(self, x, time):
        return torch.zeros_like(x)


def test_the_policy_is_ddpms_posterior():
    """DDPM, equations (6) and (7), by Bayes' rule on x_{t-1} given x_t and x_0, at the image that velocity 0 means."""
    model = small(n_steps=10)
    model.network = NormalData()
    x_t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    angles = np.linspace(1 / 128, math.pi / 2 - 0.005, 11)
    for t in (1, 6, 10):
        phi, phi_next = angles[t], angles[t - 1]
        ratio = math.cos(phi) / math.cos(phi_next)
        added = math.sin(phi) ** 2 - (ratio * math.sin(phi_next)) ** 2
        precision = 1 / math.sin(phi_next) ** 2 + ratio**2 / added
        pull = math.cos(phi_next) * math.cos(phi) / math.sin(phi_next) ** 2 + ratio / added
        policy = model.policy(x_t, t)
        torch.testing.assert_close(policy.mean, x_t * pull / precision, rtol=1e-4, atol=1e-6)
        assert float(policy.std) == pytest.approx(precision**-0.5, rel=1e-4)


def test_the_loss_is_the_error_of_the_velocity():
    """For images of zeros the velocity is cos(phi) noise; a network that says 0 has the mean of cos(phi)^2."""
    model = small(n_steps=10)
    model.network = NormalData()
    loss = model._loss(torch.zeros(2000, 1, 8, 8), torch.Generator().manual_seed(0))
    angles = np.linspace(1 / 128, math.pi / 2 - 0.005, 11)[1:]
    assert float(loss) == pytest.approx((np.cos(angles) ** 2).mean(), rel=0.01)


def test_training_lowers_the_loss():
    images = bars(32)
    x = SPACE.encode(images)
    losses = []
    for n in (1, 40):
        model = small().fit(images, max_iter=n, validation_fraction=0, random_state=0)
        with torch.no_grad():
            losses.append(float(model._loss(x, torch.Generator().manual_seed(0))))
    assert losses[1] < 0.7 * losses[0]


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 1), (7, 10, 3), (1, 1, 1), (3, 33, 1)])
def test_images_of_any_size(height, width, channels):
    space = ImageSpace(height, width, channels)
    images = np.random.default_rng(0).integers(0, 256, (6, height, width, channels), dtype=np.uint8)
    images = images[..., 0] if channels == 1 else images
    drawn = small(space, n_steps=2).fit(images, max_iter=1, random_state=0).sample(2, random_state=0)
    assert drawn.shape == (2, *images.shape[1:]) and drawn.dtype == np.uint8


def test_a_row_has_its_own_level_and_image(model):
    """The network's output for a row does not depend on the other rows, nor on whether times are given by row."""
    x_t = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = model.network(x_t, model.times[torch.tensor([1, 2, 4])])
        alone = model.network(x_t[1:2], model.times[2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_a_saved_model_draws_the_same_images(model, tmp_path):
    model.save_pretrained(tmp_path / "pixels")
    loaded = DiffusionModel.from_pretrained(tmp_path / "pixels")
    assert isinstance(loaded, PixelDiffusion) and loaded.frozen
    assert np.array_equal(loaded.sample(3, random_state=0), model.sample(3, random_state=0))


def test_the_finetuner_trains_one_on_images_alone():
    images = bars(20)[:, ::2, ::2]
    finetuner = ConservativeDiffusionFinetuner(
        space=ImageSpace(4, 4, 1), reward=GPBonusReward(max_iter=2), max_iter=2, batch_size=8, random_state=0
    ).fit(images, images.mean(axis=(1, 2)))
    assert isinstance(finetuner.pretrained_, PixelDiffusion) and np.isfinite(finetuner.history_["kl"]).all()
    assert finetuner.sample(2, random_state=0).shape == (2, 4, 4)


@pytest.mark.parametrize("solver", ["direct", "adjoint_matching"])
def test_fine_tuning_raises_the_reward(model, solver):
    images = bars(60)
    finetuner = ConservativeDiffusionFinetuner(
        model, 1e-3, reward=GPBonusReward(max_iter=2), solver=solver, max_iter=4, batch_size=16, learning_rate=1e-2,
        random_state=0,
    ).fit(images, images.mean(axis=(1, 2)))  # fmt: skip
    before, after = finetuner.history_["mean"][0], max(finetuner.history_["mean"])
    assert after > before + 0.05


def test_a_condition_is_a_channel_beside_those_of_the_image():
    """A network that gives its last channels back shows what it was told, at every pixel of its row."""

    class Told(torch.nn.Module):
        channel_axis = 1

        def forward(self, x, time):
            return x[:, 3:]

    condition = torch.tensor([[0.25, 0.0], [0.5, 0.0]])
    told = GuidedNetwork(Told(), condition)(torch.zeros(2, 3, 4, 6), torch.tensor(1.0))
    assert torch.equal(told, condition[:, :, None, None].expand(2, 2, 4, 6))


def test_ddom_trains_one_together_with_measurements(tmp_path):
    images = bars(20)[:, ::2, ::2]
    chain = small(ImageSpace(4, 4, 1))
    conditions = torch.tensor(images.mean(axis=(1, 2)), dtype=torch.float32)[:, None]
    settings = {"strength": 2.0, "dropout": 0.2, "max_iter": 2}
    fit_guided(chain, chain.space.points(images), conditions, conditions.max(dim=0).values, **settings)
    chain.kind = "float"
    chain.save_pretrained(tmp_path / "guided")
    drawn = chain.sample(2, random_state=0)
    assert drawn.shape == (2, 4, 4)
    assert np.array_equal(DiffusionModel.from_pretrained(tmp_path / "guided").sample(2, random_state=0), drawn)
    ddom = DDOM(space=chain.space, max_iter=2, random_state=0).fit(images, images.mean(axis=(1, 2)))
    assert ddom.sample(2, random_state=0).shape == (2, 4, 4)


def test_what_it_cannot_make_is_refused():
    with pytest.raises(InvalidParameterError, match="needs an ImageSpace; got VectorSpace"):
        PixelDiffusion(VectorSpace(2))
    with pytest.raises(InvalidParameterError, match="n_channels must be a multiple of 8; got 12"):
        PixelDiffusion(SPACE, n_channels=12)
    with pytest.raises(InvalidParameterError, match="n_steps must be a whole number of at least 2; got 1"):
        PixelDiffusion(SPACE, n_steps=1)


def test_without_diffusers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r'pip install "braidkit\[images\]"'):
        PixelDiffusion(SPACE)
