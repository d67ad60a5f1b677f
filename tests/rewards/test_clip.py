"""CLIP's embeddings as features, and LAION's heads on them, with a small CLIP of the real class."""

import copy
import json
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from torch import nn

from braidkit import BootstrapReward, GPBonusReward, ImageSpace
from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError
from braidkit.oracles import AestheticOracle
from braidkit.persistence import digest, from_parts, to_parts
from braidkit.rewards import CLIPFeatures

pytest.importorskip("diffusers")

import transformers

from tests.pipelines import clip


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def features(directory):
    return CLIPFeatures(directory)


def pictures(n, *shape, seed=0):
    """Smooth random images, uint8."""
    g = torch.Generator().manual_seed(seed)
    rough = torch.rand(n, 3, 4, 4, generator=g)
    smooth = nn.functional.interpolate(rough, shape, mode="bicubic").clamp(0, 1)
    return (255 * smooth).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("shape", [(40, 40), (20, 20), (50, 67), (67, 51), (32, 32)])
def test_images_are_prepared_as_the_processor_does(directory, features, shape):
    images = pictures(3, *shape)
    processor = transformers.CLIPImageProcessor.from_pretrained(directory)
    expected = torch.as_tensor(np.stack(processor(list(images))["pixel_values"]))
    mine = features.prepared(ImageSpace(*shape).encode(images))
    assert mine.shape == expected.shape
    assert float((mine - expected).abs().mean()) < 0.01  # the processor rounds to 8 bits in between


def test_embeddings_are_those_of_the_whole_model(directory, features):
    images = pictures(3, 32, 32)
    model = transformers.CLIPModel.from_pretrained(directory).eval()
    x = ImageSpace(32, 32).encode(images)
    with torch.no_grad():
        expected = model.get_image_features(features.prepared(x)).pooler_output
    torch.testing.assert_close(features(x), nn.functional.normalize(expected, dim=1), rtol=1e-4, atol=1e-5)
    assert CLIPFeatures(directory, normalised=False)(x).norm(dim=1).max() != 1


def test_kept_embeddings_are_the_same_and_gradients_pass(features):
    x = ImageSpace(32, 32).encode(pictures(70, 32, 32))
    features._kept.rows.clear()
    first = features(x)
    assert len(features._kept.rows) == 70
    assert torch.equal(features(x.flip(0)), first.flip(0))
    point = x[:4].clone().requires_grad_()
    embedded = features(point)
    torch.testing.assert_close(embedded, first[:4], rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(embedded[:, 0].sum(), point)
    assert gradient.isfinite().all() and gradient.flatten(1).any(dim=1).all()
    with torch.no_grad():
        assert features(point).requires_grad is False


def test_copies_share_the_tower_and_hash_alike(directory, features):
    copied = copy.deepcopy(nn.Sequential(features, nn.Linear(12, 2)))
    assert copied[0].tower is features.tower and not list(features.parameters())
    features(ImageSpace(32, 32).encode(pictures(2, 32, 32, seed=5)))
    assert digest(copied[0]) == digest(features) == digest(CLIPFeatures(directory))
    assert digest(features) != digest(CLIPFeatures(directory, normalised=False))


@pytest.mark.parametrize("kind", [GPBonusReward, BootstrapReward])
def test_rewards_learn_on_embeddings(features, kind):
    images = pictures(80, 32, 32)
    y = images.mean(axis=(1, 2, 3)) / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(12, 8)
    reward = kind(
        features=nn.Sequential(features, layer, nn.ReLU()),
        space=ImageSpace(32, 32),
        max_iter=50,
        random_state=0,
    )
    reward.fit(images, y)
    x = reward.space_.encode(images[:4]).requires_grad_()
    (gradient,) = torch.autograd.grad(reward.lower(x).sum(), x)
    assert gradient.flatten(1).any(dim=1).all()
    assert np.corrcoef(reward.predict(images), y)[0, 1] > 0.5


def test_a_saved_reward_finds_its_model_again_and_takes_no_other(directory, tmp_path):
    shutil.copytree(directory, tmp_path / "clip")
    images = pictures(30, 32, 32)
    reward = GPBonusReward(CLIPFeatures(tmp_path / "clip"), space=ImageSpace(32, 32), random_state=0)
    reward.fit(images, images.mean(axis=(1, 2, 3)))
    content, tensors = to_parts(reward)
    assert sum(tensor.numel() for tensor in tensors.values()) < 5000  # none of the model
    loaded = from_parts(json.loads(json.dumps(content)), tensors)
    np.testing.assert_allclose(loaded.predict_lower(images), reward.predict_lower(images), rtol=1e-6)
    assert digest(loaded.features) == digest(reward.features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = transformers.CLIPModel(transformers.CLIPConfig.from_pretrained(directory))
    model.save_pretrained(tmp_path / "clip")
    with pytest.raises(CheckpointError, match="is not the one that a saved reward sees images by"):
        from_parts(content, tensors)
    shutil.rmtree(tmp_path / "clip")
    with pytest.raises(CheckpointError, match="clip is not a directory"):
        from_parts(content, tensors)


def test_grey_images_are_colour_images_of_one_colour(features):
    images = pictures(2, 32, 32)[..., :1]
    grey = ImageSpace(32, 32, 1).encode(images[..., 0])
    colour = ImageSpace(32, 32).encode(np.repeat(images, 3, axis=3))
    torch.testing.assert_close(features(grey), features(colour), rtol=1e-4, atol=1e-5)
    with pytest.raises(IncompatibleModelError, match=r"got \(2, 12\)"):
        features(torch.zeros(2, 12))


def test_directories_without_clip_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        CLIPFeatures(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="holds a model of type 'bert'"):
        CLIPFeatures(tmp_path)


def test_an_aesthetic_head_scores_images(features, tmp_path):
    g = np.random.default_rng(0)
    head = {"v2_affine_w": g.normal(size=12).astype(np.float32), "v2_affine_b": np.array([5.2], np.float32)}
    np.savez(tmp_path / "heads.npz", **head)
    oracle = AestheticOracle.from_npz(tmp_path / "heads.npz", features)
    images = pictures(5, 32, 32)
    x = ImageSpace(32, 32).encode(images)
    expected = features(x).numpy() @ head["v2_affine_w"] + 5.2
    np.testing.assert_allclose(oracle.predict(images), expected, rtol=1e-5)
    np.testing.assert_allclose(oracle(images / 255), expected, rtol=1e-4)
    assert torch.autograd.grad(oracle.score(x.requires_grad_()).sum(), x)[0].any()
    with pytest.raises(InvalidParameterError, match='head must be "v2", "v1_l_14"'):
        AestheticOracle.from_npz(tmp_path / "heads.npz", features, "v3")
    with pytest.raises(CheckpointError, match="holds no head 'v1_l_14'"):
        AestheticOracle.from_npz(tmp_path / "heads.npz", features, "v1_l_14")
    with pytest.raises(IncompatibleModelError, match="takes embeddings of 768 numbers, and this CLIP gives 12"):
        AestheticOracle(features, np.zeros(768), 0.0)


@pytest.mark.data
def test_the_published_head_of_version_2_is_affine(data_dir):
    """Its five layers, one after the other, and the affine map that `AestheticOracle` reads."""
    with np.load(data_dir / "laion_aesthetic_heads.npz") as arrays:
        h = x = np.random.default_rng(0).normal(size=(10, 768))
        for i in range(5):
            h = h @ arrays[f"v2_mlp_w{i}"].T.astype(float) + arrays[f"v2_mlp_b{i}"]
        np.testing.assert_allclose(h[:, 0], x @ arrays["v2_affine_w"].astype(float) + arrays["v2_affine_b"], atol=1e-4)
