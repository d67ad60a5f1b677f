"""A run of the command, killed at its changes of the file system: the same command ends with the same designs."""

import numpy as np
import pandas as pd
import pytest

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.cli import main
from tests.kills import killed_at

pytest.importorskip("matplotlib").use("Agg")
# A run of this size makes about 130 changes.
AT = range(1, 140, 6)


@pytest.fixture(scope="module")
def design(tmp_path_factory):
    """The command on a small table, into a directory; whether that held a finished run already."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (60, 6))]
    y = [row.count("G") + 0.1 * rng.normal() for row in X]
    pd.DataFrame({"seq": X, "mrl": y}).to_csv(folder / "t.csv", index=False)
    SimplexDiffusion(SequenceSpace("DNA", 6), n_steps=2).fit(X, max_iter=2, random_state=0).save_pretrained(
        folder / "chain"
    )
    options = ["--sequence", "seq", "--target", "mrl", "--n", "4", "--max-iter", "2", "--quiet"]
    options += ["--pretrained", str(folder / "chain")]

    def run(out):
        try:
            main(["design", str(folder / "t.csv"), *options, "--out", str(out)], standalone_mode=False)
        except Exception as error:
            assert "holds a finished run" in str(error)
            return True
        except SystemExit as end:
            assert end.code in (0, 3)
        return False

    return run


@pytest.fixture(scope="module")
def straight(design, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "straight"
    design(out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("n", AT)
def test_a_run_killed_at_any_change_ends_with_the_same_designs(design, straight, tmp_path, monkeypatch, n):
    out = tmp_path / "run"
    killed_at(n, monkeypatch, lambda: design(out))
    finished = design(out)
    assert (out / "designs.csv").read_text() == (straight / "designs.csv").read_text()
    names, expected = ({path.name for path in folder.iterdir()} for folder in (out, straight))
    # Killed after its record said so, a finished run may still have its checkpoint.
    assert names == expected or (finished and names == expected | {"checkpoint"})
