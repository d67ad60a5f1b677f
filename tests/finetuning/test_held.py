"""What is the same in all rows, or in a template, is in every design: of fine-tuned chains and of baselines."""

import copy
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from braidkit import (
    ConservativeDiffusionFinetuner,
    GPBonusReward,
    ImageSpace,
    PipelineDiffusion,
    PixelDiffusion,
    SequenceSpace,
    SimplexDiffusion,
    VectorSpace,
)
from braidkit.baselines import DDOM, BestOfN, ClassifierGuidance, RewardAscent, SMCSampler
from braidkit.diffusion import DiffusionModel, GaussianDiffusion
from braidkit.exceptions import IncompatibleModelError, InvalidDesignError, InvalidParameterError

TEMPLATE = "AC____GT"
RANDOM = np.random.default_rng(0)
FREE = ["".join(RANDOM.choice(list("ACGT"), 4)) for _ in range(60)]
X = [f"AC{letters}GT" for letters in FREE]
Y = np.array([letters.count("A") for letters in FREE], dtype=float)
SPACE = SequenceSpace("DNA", 8)


def quick(estimator=ConservativeDiffusionFinetuner, **settings):
    settings = {"reward": GPBonusReward(max_iter=5), "random_state": 0} | settings
    if estimator is ConservativeDiffusionFinetuner:
        settings = {"max_iter": 2, "batch_size": 8} | settings
    return estimator(**settings)


@pytest.fixture(scope="module")
def pretrained():
    """A chain that has seen few of the letters that are held."""
    rows = ["".join(RANDOM.choice(list("ACGT"), 8)) for _ in range(60)]
    return SimplexDiffusion(SPACE, n_steps=5).fit(rows, max_iter=5, random_state=0)


def keeps(designs, template=TEMPLATE):
    return all(t in ("_", letter) for design in designs for t, letter in zip(template, design, strict=True))


def test_constant_positions_are_held_with_a_pretrained_model_which_stays_as_it_was(pretrained, capsys, tmp_path):
    before = copy.deepcopy(pretrained.state_dict())
    finetuner = quick(pretrained=pretrained, verbose=1).fit(X, Y)
    assert "positions 1-2, 7-8 are the same in all rows: held" in capsys.readouterr().out
    assert keeps(finetuner.sample(50, random_state=0))
    assert finetuner.space_.template == finetuner.model_.space.template == TEMPLATE
    assert pretrained.space == SPACE and not keeps(pretrained.sample(50, random_state=0))
    assert all(torch.equal(before[name], value) for name, value in pretrained.state_dict().items())
    finetuner.model_.save_pretrained(tmp_path / "model")
    assert keeps(DiffusionModel.from_pretrained(tmp_path / "model").sample(20, random_state=1))


def test_constant_positions_are_held_without_a_pretrained_model():
    finetuner = quick(space=SPACE).fit(X, Y)
    assert keeps(finetuner.sample(50, random_state=0)) and keeps(finetuner.pretrained_.sample(50, random_state=0))


@pytest.mark.parametrize(
    ("estimator", "settings"),
    [
        (BestOfN, {"n_candidates": 2}),
        (SMCSampler, {"n_particles": 8}),
        (RewardAscent, {"n_steps": 2}),
        (DDOM, {"max_iter": 3}),
        (ClassifierGuidance, {"max_iter": 3}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_baselines_hold_the_same_positions(pretrained, estimator, settings):
    if estimator not in (DDOM, ClassifierGuidance):
        settings = settings | {"reward": GPBonusReward(max_iter=5)}
    designs = estimator(pretrained=pretrained, random_state=0, **settings).fit(X, Y).sample(20, random_state=0)
    assert keeps(designs)


def test_a_template_is_held_in_place_of_what_is_constant(pretrained):
    own = quick(pretrained=pretrained, space=SequenceSpace("DNA", template="____TT__")).fit(X, Y)
    designs = own.sample(50, random_state=0)
    assert keeps(designs, "____TT__") and not keeps(designs)
    free = quick(pretrained=pretrained, space=SequenceSpace("DNA", template="________")).fit(X, Y)
    assert not keeps(free.sample(50, random_state=0))


def test_constant_columns_come_back_exactly():
    x = RANDOM.normal(size=(80, 3))
    x[:, 1] = 0.001
    finetuner = quick().fit(x, x[:, 0])
    assert finetuner.space_.held == "columns 1 (from 0)"
    designs = finetuner.sample(50, random_state=0)
    assert (designs[:, 1] == 0.001).all() and designs[:, 0].std() > 0.1
    other = GaussianDiffusion(VectorSpace.from_data(RANDOM.normal(size=(80, 3)))).fit(x, max_iter=5, random_state=0)
    assert (quick(pretrained=other).fit(x, x[:, 0]).sample(50, random_state=0)[:, 1] == 0.001).all()


def test_rows_that_are_all_alike_are_refused():
    with pytest.raises(InvalidDesignError, match="X holds one design, 60 times"):
        quick().fit(["ACGT"] * 60, Y)


def test_a_frozen_reward_of_other_rows_of_the_same_columns_is_used_on_its_own_scale():
    x = RANDOM.normal(loc=5, size=(80, 2))
    reward = GPBonusReward(random_state=0, max_iter=5).fit(3 * RANDOM.normal(size=(70, 2)), RANDOM.normal(size=70))
    finetuner = quick(reward=FrozenEstimator(reward)).fit(x, x[:, 0])
    points = finetuner.space_.encode(x)
    assert np.allclose(finetuner.reward_.lower(points).numpy(), reward.predict_lower(x), atol=1e-5)
    assert np.allclose(finetuner.reward_.predict(x), reward.predict(x))
    with pytest.raises(IncompatibleModelError, match="reward was fitted on VectorSpace"):
        quick(reward=FrozenEstimator(reward)).fit(np.c_[x, x], x[:, 0])


@pytest.mark.parametrize("reward", ["gp!", GPBonusReward, 3])
def test_a_reward_that_is_none_is_named(reward):
    with pytest.raises(InvalidParameterError, match="reward must be a regressor of designs, such as GPBonusReward"):
        ConservativeDiffusionFinetuner(reward=reward).fit(X, Y)


@pytest.fixture(scope="module")
def framed():
    """Measured images with a black frame, which another chain knows nothing of."""
    pytest.importorskip("diffusers")
    images = np.random.default_rng(0).integers(1, 256, size=(1000, 6, 6), dtype=np.uint8)
    images[:, 0], images[:, :, -1] = 0, 0
    return images


def test_constant_pixels_are_held_in_sampling_and_fine_tuning(framed, capsys):
    settings = {"max_iter": 2, "batch_size": 8, "reward": GPBonusReward(max_iter=2), "random_state": 0}
    y = framed.mean(axis=(1, 2))
    chain = PixelDiffusion(ImageSpace(6, 6, 1), n_steps=3, n_channels=8)
    chain.fit(np.random.default_rng(1).random((20, 6, 6)), max_iter=2, random_state=0)
    finetuner = ConservativeDiffusionFinetuner(chain, verbose=1, **settings).fit(framed, y)
    assert "11 of 36 pixels are the same in all rows: held" in capsys.readouterr().out
    for designs in (finetuner.sample(8, random_state=0), finetuner.pretrained_.sample(8, random_state=0)):
        assert not designs[:, 0].any() and not designs[:, :, -1].any() and designs[:, 1:, :-1].any()
    assert chain.sample(8, random_state=0)[:, 0].any()


def test_pixels_of_a_pipeline_are_not_held(tmp_path):
    """Its images are decoded as a whole."""
    pytest.importorskip("diffusers")
    from tests.pipelines import stable_diffusion

    chain = PipelineDiffusion.from_pretrained(stable_diffusion(tmp_path / "sd"), prompts=["cat"], n_steps=2)
    images = np.random.default_rng(0).integers(0, 256, size=(1000, 16, 16, 3), dtype=np.uint8)
    images[:, 0] = 0
    finetuner = ConservativeDiffusionFinetuner(
        chain, max_iter=1, batch_size=4, reward=GPBonusReward(max_iter=1), random_state=0
    ).fit(images, images.mean(axis=(1, 2, 3)))
    assert finetuner.space_ == chain.space and finetuner.sample(2, random_state=0)[:, 0].any()
