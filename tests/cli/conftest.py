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


RECIPES = ["--target", "yield", "--n", "8", "--max-iter", "3", "--reward", "bootstrap"]


def call(*args):
    return CliRunner().invoke(main, [*map(str, args)])


@pytest.fixture(scope="session")
def recipes(tmp_path_factory):
    """A table of 80 recipes and what tests do to it."""
    folder = tmp_path_factory.mktemp("recipes")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "run": np.arange(80),
            "temp": rng.uniform(20, 90, 80).round(3),
            "layers": rng.integers(1, 6, 80),
            "solvent": rng.choice(["water", "dmf", "=etoh"], 80),
            "volume": 50,
        }
    )
    table["yield"] = -(((table["temp"] - 60) / 20) ** 2) + table["layers"] + 2 * (table["solvent"] == "dmf")
    table.to_csv(folder / "t.csv", index=False)
    blank = table.copy()
    blank.loc[3, "temp"] = np.nan
    blank.to_csv(folder / "blank.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def recipe_run(recipes, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    result = call("design", recipes / "t.csv", "--columns", "all", *RECIPES, "--out", out)
    assert result.exit_code in (0, 3), result.output
    return out, result.stdout
