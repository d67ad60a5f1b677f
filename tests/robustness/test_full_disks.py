"""Disks that are full, and directories that two fits want at once."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace, SimplexDiffusion, persistence
from braidkit.cli import main
from braidkit.exceptions import CheckpointError

resource = pytest.importorskip("resource", reason="limits of file sizes are those of Unix")


@contextlib.contextmanager
def files_of_at_most(n_bytes):
    """Writes beyond so many bytes of a file fail, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_save_that_finds_no_room_is_an_os_error_and_leaves_the_earlier_one(tmp_path):
    persistence.save(tmp_path / "model", config={"a": 1}, tensors={"x": torch.ones(3)})
    with files_of_at_most(3000), pytest.raises(OSError, match="model.safetensors cannot be written .*File too large"):
        persistence.save(tmp_path / "model", config={"a": 2}, tensors={"x": torch.zeros(10_000)})
    config, tensors = persistence.load(tmp_path / "model")
    assert config == {"a": 1} and torch.equal(tensors["x"], torch.ones(3))
    assert len(list((tmp_path / "model").iterdir())) == 2


def test_a_run_on_a_full_disk_ends_in_a_sentence_and_goes_on_when_there_is_room(tmp_path):
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (60, 6))]
    pd.DataFrame({"seq": X, "y": [row.count("G") for row in X]}).to_csv(tmp_path / "table.csv")
    chain = SimplexDiffusion(SequenceSpace("DNA", 6), n_steps=2).fit(X, max_iter=1, random_state=0)
    chain.save_pretrained(tmp_path / "chain")
    options = ["--sequence", "seq", "--target", "y", "--n", "3", "--max-iter", "1", "--quiet", "--pretrained"]
    call = ["design", str(tmp_path / "table.csv"), *options, str(tmp_path / "chain"), "--out", str(tmp_path / "run")]
    with files_of_at_most(20_000):
        failed = CliRunner().invoke(main, call)
    assert failed.exit_code == 1 and isinstance(failed.exception, SystemExit)
    assert "File too large" in failed.stderr and "has room, and give the command again" in failed.stderr
    assert CliRunner().invoke(main, call).exit_code in (0, 3)


def test_two_fits_in_one_checkpoint_dir_are_told_of_each_other(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    finetuner = ConservativeDiffusionFinetuner(
        reward=GPBonusReward(max_iter=2), max_iter=1, batch_size=4, checkpoint_dir=tmp_path / "run", random_state=0
    )
    (tmp_path / "run").mkdir()
    with (
        persistence.locked(tmp_path / "run"),
        pytest.raises(CheckpointError, match="another process uses .*run; wait until it has finished"),
    ):
        finetuner.fit(x, x[:, 0])
    assert not list((tmp_path / "run").iterdir())
    finetuner.fit(x, x[:, 0]).fit(x, x[:, 0])  # a fit that has ended holds nothing
