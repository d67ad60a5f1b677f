import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit.cli import main
from braidkit.cli.demo import _is_another_demo, run_demo
from braidkit.cli.run_directory import RunDirectory
from braidkit.datasets import make_utr
from braidkit.finetuning.checkpoint import FORM
from braidkit.oracles import UTRLandscape
from braidkit.persistence import write_json

GROUPS = ["offline data", "best 5 % of offline data", "pretrained", "designs"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demonstration on few rows: its directory, what it said and what it found."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    said = []
    truth = run_demo(out, seed=0, device="cpu", quiet=False, say=said.append, n_rows=1000)
    return out, said, truth


@pytest.mark.slow
def test_the_truth_is_that_of_the_landscape(demo):
    out, said, truth = demo
    assert truth.index.tolist() == GROUPS
    landscape = UTRLandscape()
    designs = pd.read_csv(out / "designs.csv")["sequence"].tolist()
    measured = pd.read_csv(out / "measured.csv")
    best = measured.nlargest(len(measured) // 20, "load")["sequence"].tolist()
    for group, rows in (("designs", designs), ("offline data", measured["sequence"].tolist()), (GROUPS[1], best)):
        reward = landscape.predict(rows)
        expected = [reward.mean(), *np.quantile(reward, [0.5, 0.05, 0.95]), landscape.is_valid(rows).mean()]
        np.testing.assert_allclose(truth.loc[group], expected)
    assert json.loads((out / "run.json").read_text())["truth"] == truth.to_dict(orient="index")
    printed = said[said.index("true mean ribosome load, which no model has seen:") + 1].splitlines()
    assert [line.split("  ")[0] for line in printed[1:]] == GROUPS
    assert (out / "true_rewards.png").exists()


@pytest.mark.slow
def test_offline_data_lack_the_best(demo):
    out, said, _ = demo
    assert "1,000 generated 5'UTRs" in said[0]
    assert said[1].startswith("read 300 rows: 300 kept; DNA, 50 nt; target")
    everything = make_utr(1000, random_state=0)[1]
    assert pd.read_csv(out / "measured.csv")["load"].max() < np.quantile(everything, 0.7) < everything.max()


@pytest.mark.slow
def test_a_finished_demo_runs_again(demo):
    out, _, truth = demo
    again = run_demo(out, seed=0, device="cpu", quiet=True, say=lambda line: None, n_rows=1000)
    pd.testing.assert_frame_equal(truth, again)


@pytest.mark.parametrize(("form", "replaced"), [(FORM, False), ("0", True)])
def test_an_unfinished_demo_of_another_version_is_replaced(tmp_path, form, replaced):
    record = {"command": "demo", "n": 3}
    directory = RunDirectory(tmp_path / "demo")
    with directory.claimed(record):
        write_json(directory / "run.json", directory.record | {"form": form})
    assert _is_another_demo(directory, record) is replaced


def test_a_run_of_ones_own_is_safe_from_the_demo(tmp_path):
    directory = RunDirectory(tmp_path)
    with directory.claimed({"command": "design"}):
        directory.finish()
    refused = CliRunner().invoke(main, ["demo", "--out", str(tmp_path)])
    assert refused.exit_code == 2
    assert "holds a finished run; choose another directory.\n" in refused.stderr
