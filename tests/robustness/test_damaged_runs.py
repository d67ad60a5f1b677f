"""Runs that were killed, and of which a file was then damaged: refused by name, or finished with the same designs."""

import shutil

import numpy as np
import pytest

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward
from braidkit.exceptions import CheckpointError

RNG = np.random.default_rng(0)
ROWS = {"vectors": RNG.normal(size=(60, 2)), "sequences": RNG.choice(list("ACGT"), (44, 12))}
FILES = [
    f"{folder}/{file}" for folder in ("pretrained", "fine-tuning") for file in ("config.json", "model.safetensors")
]


def fit(kind, directory, max_iter):
    X, reward = ROWS[kind], GPBonusReward(max_iter=5, random_state=0)
    y = X.sum(axis=1) if kind == "vectors" else (X == "G").sum(axis=1) + 0.1 * np.arange(len(X))
    X = X if kind == "vectors" else ["".join(row) for row in X]
    settings = {"reward": reward, "max_iter": max_iter, "batch_size": 8, "random_state": 0}
    return ConservativeDiffusionFinetuner(alpha=0.01, checkpoint_dir=directory, **settings).fit(X, y)


@pytest.fixture(scope="module", params=ROWS)
def killed(request, tmp_path_factory):
    """The kind of a run, its directory as it was stopped half-way, and designs of the whole run."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    fit(request.param, directory, 2)
    whole = shutil.copytree(directory, directory.with_name("whole"))
    return request.param, directory, fit(request.param, whole, 4).sample(5, random_state=0)


def flipped(content, position):
    damaged = bytearray(content)
    damaged[position // 8] ^= 1 << (position % 8)
    return bytes(damaged)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["settings.json", *FILES])
def test_a_damaged_file_of_a_run_is_refused_by_name_or_harmless(killed, tmp_path, name):
    kind, directory, designs = killed
    content = (directory / name).read_bytes()
    positions = np.random.default_rng(len(content)).integers(8 * len(content), size=5)
    outcomes = []
    for i, damaged in enumerate([b"", content[: len(content) // 2], *(flipped(content, p) for p in positions)]):
        run = shutil.copytree(directory, tmp_path / str(i))
        (run / name).write_bytes(damaged)
        try:
            found = fit(kind, run, 4).sample(5, random_state=0)
        except CheckpointError as error:
            assert str(run) in str(error)
            outcomes.append("refused")
        else:
            np.testing.assert_array_equal(found, designs)
            outcomes.append("harmless")
    assert "refused" in outcomes
