"""Saved estimators: what comes back is the same to the last bit, and nothing of a file is executed."""

import json
import shutil

import gpytorch
import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor
from torch import nn

from braidkit import (
    BootstrapReward,
    ConservativeDiffusionFinetuner,
    GaussianDiffusion,
    GPBonusReward,
    SequenceSpace,
    SimplexDiffusion,
)
from braidkit.baselines import BestOfN
from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import CheckpointError, InvalidParameterError
from braidkit.persistence import from_parts, load, save, to_parts
from braidkit.spaces import VectorSpace

RNG = np.random.default_rng(0)
X = ["".join(row) for row in RNG.choice(list("ACGT"), (80, 8))]
Y = np.array([row.count("G") + 0.1 * RNG.normal() for row in X])
VECTORS = RNG.normal(size=(80, 3))


def round_trip(value):
    content, tensors = to_parts(value)
    return from_parts(json.loads(json.dumps(content)), tensors)


@pytest.mark.parametrize(
    ("reward", "rows"),
    [
        (GPBonusReward(max_iter=2), X),
        (GPBonusReward(max_iter=2), VECTORS),
        (GPBonusReward(c=0.1, lam=1, max_iter=2), X),
        (GPBonusReward(c="calibrated", level=0.5, max_iter=2), X),
        (GPBonusReward(kernel=gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel()), max_iter=2), VECTORS),
        (GPBonusReward(nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Tanh()), max_iter=2), VECTORS),
        (BootstrapReward(max_iter=2), X),
        (BootstrapReward(max_iter=2, random_state=np.random.RandomState(3)), VECTORS),
    ],
)
def test_rewards_come_back_to_the_last_bit(reward, rows):
    reward = reward.fit(rows, Y)
    back = round_trip(reward)
    for name in ("predict", "predict_lower"):
        np.testing.assert_array_equal(getattr(back, name)(rows), getattr(reward, name)(rows))
    assert type(back.space_) is type(reward.space_) and back.space_ == reward.space_


def test_containers_come_back_as_they_were_and_what_is_held_twice_is_one():
    shared = nn.Linear(2, 1)
    value = {
        "tuple": (1, 2.5, None),
        "set": {"a"},
        "texts": np.array(["x", "yz"], dtype=object),
        "numbers": np.arange(3, dtype=np.int32),
        "number": np.float32(0.1),
        3: [shared, shared],
        "nan": float("nan"),
        "dtype": torch.float64,
    }
    back = round_trip(value)
    assert list(back) == list(value)
    assert back["tuple"] == (1, 2.5, None) and back["set"] == {"a"} and back["texts"].tolist() == ["x", "yz"]
    assert back["numbers"].dtype == np.int32 and back["number"] == np.float32(0.1) and back["number"].dtype == "f4"
    assert back[3][0] is back[3][1] and torch.equal(back[3][0].weight, shared.weight)
    assert np.isnan(back["nan"]) and back["dtype"] is torch.float64


class Mine(nn.Module):
    def forward(self, x):
        return x.flatten(1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"features": Mine()}, "features holds a .*Mine, which cannot be saved"),
        ([lambda x: x], "the object holds a .*lambda.* cannot be saved"),
        ({"a": {"b": RandomForestRegressor()}}, r"a\.b holds a sklearn\.ensemble.*RandomForestRegressor"),
    ],
)
def test_objects_of_others_are_not_saved(value, message):
    with pytest.raises(CheckpointError, match=message):
        to_parts(value)


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "object", "name": "subprocess.Popen", "number": 0, "state": None},
        {"kind": "named", "name": "os.system"},
        {"kind": "named", "name": "braidkit.persistence._files.os.system"},
        {"kind": "named", "name": "torch.nn.functional.torch.load"},
        {"kind": "named", "name": "braidkit.nowhere.Nothing"},
        {"kind": "tuple of", "name": "builtins.eval", "items": ["1"]},
        {"kind": "method", "of": {"kind": "named", "name": "torch.nn.modules.linear.Linear"}, "name": "mro"},
        {"kind": "something else"},
        {"no kind": 1},
    ],
)
def test_a_file_names_nothing_but_classes_of_ours(content):
    with pytest.raises(CheckpointError):
        from_parts(content, {})


@pytest.fixture(scope="module")
def finetuner():
    chain = SimplexDiffusion(SequenceSpace("DNA", 8), n_steps=3).fit(X, max_iter=3, random_state=0)
    reward = GPBonusReward(max_iter=2)
    return ConservativeDiffusionFinetuner(chain, 0.5, reward=reward, max_iter=2, batch_size=8, random_state=0).fit(X, Y)


@pytest.fixture
def saved(finetuner, tmp_path):
    finetuner.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_an_estimator_comes_back_whole(finetuner, saved):
    assert sorted(path.name for path in saved.iterdir()) == ["finetuner", "model", "pretrained"]
    files = {path.suffix for path in saved.rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors"}
    back = ConservativeDiffusionFinetuner.load(saved)
    assert back.sample(5, random_state=1) == finetuner.sample(5, random_state=1)
    assert back.pretrained_.sample(5, 1) == finetuner.pretrained_.sample(5, 1)
    for name in ("reward_", "judge_"):
        np.testing.assert_array_equal(getattr(back, name).predict_lower(X), getattr(finetuner, name).predict_lower(X))
    assert back.history_ == finetuner.history_ and back.reward_check_ == finetuner.reward_check_
    assert (back.alpha, back.alpha_, back.space_, back.n_iter_) == (0.5, 0.5, finetuner.space_, finetuner.n_iter_)
    assert back.pretrained is back.pretrained_ and repr(back.reward) == repr(finetuner.reward)


def test_a_chain_that_fit_trained_is_no_parameter_of_what_comes_back(tmp_path):
    finetuner = ConservativeDiffusionFinetuner(
        reward=GPBonusReward(max_iter=2), space=VectorSpace(3), max_iter=1, batch_size=8, random_state=0
    )
    finetuner.pretrained = GaussianDiffusion(VectorSpace(3), n_steps=3).fit(VECTORS, max_iter=2, random_state=0)
    finetuner.fit(VECTORS, Y)
    finetuner.pretrained = None  # as if it had trained it
    finetuner.save(tmp_path)
    back = ConservativeDiffusionFinetuner.load(tmp_path)
    assert back.pretrained is None
    np.testing.assert_array_equal(back.sample(4, random_state=0), finetuner.sample(4, random_state=0))


def test_another_version_says_what_it_can_do(saved, monkeypatch):
    monkeypatch.setattr("braidkit.finetuning.saved.__version__", "9.9")
    with pytest.raises(
        CheckpointError, match=r"was saved by braidkit .* and this is 9\.9 .*Designs can still be drawn"
    ):
        ConservativeDiffusionFinetuner.load(saved)
    assert len(DiffusionModel.from_pretrained(saved / "model").sample(2, 0)) == 2


def test_damaged_and_mixed_saves_are_refused(finetuner, saved, tmp_path):
    with pytest.raises(CheckpointError, match="holds no saved estimator"):
        ConservativeDiffusionFinetuner.load(tmp_path)
    weights = saved / "finetuner" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="is damaged"):
        ConservativeDiffusionFinetuner.load(saved)
    weights.write_bytes(whole)
    shutil.rmtree(saved / "model")
    with pytest.raises(CheckpointError, match="model is missing, or not what was saved together"):
        ConservativeDiffusionFinetuner.load(saved)
    finetuner.pretrained_.save_pretrained(saved / "model")
    with pytest.raises(CheckpointError, match="not what was saved together"):
        ConservativeDiffusionFinetuner.load(saved)


def test_other_estimators_and_places_are_refused(finetuner, saved, tmp_path):
    with pytest.raises(CheckpointError, match="holds a ConservativeDiffusionFinetuner, not a BestOfN"):
        BestOfN.load(saved)
    with pytest.raises(InvalidParameterError, match="has no chain of its own"):
        BestOfN(finetuner.pretrained, reward=GPBonusReward(max_iter=2), random_state=0).fit(X, Y).save(tmp_path / "b")
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds no saved model of braidkit's alone"):
        finetuner.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "model" / "notes.txt").read_text() == "mine"
    config, tensors = load(saved / "finetuner")
    save(
        tmp_path / "evil" / "finetuner",
        config=config | {"state": '{"kind": "named", "name": "os.system"}'},
        tensors=tensors,
    )
    with pytest.raises(CheckpointError, match="os.system is no class of braidkit"):
        ConservativeDiffusionFinetuner.load(tmp_path / "evil")
