"""A small run of the command, for tests that look at it or go on from it."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.cli import main

OPTIONS = [
    'table = "t.csv"',
    'target = "mrl"',
    "n = 5",
    "max-iter = 4",
    'pretrained = "chain"',
    'reward = "bootstrap"',
    "quiet = true",
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A table of 80 measurements, a chain of three steps, and a file of options."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    X = sorted({"".join(row) for row in rng.choice(list("ACGT"), (90, 8))})[:80]
    y = [row.count("G") + 0.1 * rng.normal() for row in X]
    pd.DataFrame({"sequence": X, "mrl": y}).to_csv(folder / "t.csv", index=False)
    SimplexDiffusion(SequenceSpace("DNA", 8), n_steps=3).fit(X, max_iter=10, random_state=0).save_pretrained(
        folder / "chain"
    )
    (folder / "run.toml").write_text("\n".join(OPTIONS))
    return folder


def design(*args):
    return CliRunner().invoke(main, ["design", *map(str, args)])


@pytest.fixture(scope="session")
def configured(folder, tmp_path_factory):
    """A run by a file of options, of which the command line overrides one."""
    out = tmp_path_factory.mktemp("runs") / "run"
    result = design("--config", folder / "run.toml", "--n", "4", "--out", out)
    assert result.exit_code in (0, 3), result.output
    assert result.stdout == ""
    return out
