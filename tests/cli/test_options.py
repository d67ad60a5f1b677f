"""Options given twice, in a file, or by an earlier run's record; runs that Ctrl-C stops; progress in log files."""

import json
import os
import re
import resource
import subprocess
import sys

import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit.cli import main
from braidkit.diffusion import DiffusionModel
from braidkit.finetuning.monitor import Monitor
from braidkit.persistence import read_json
from braidkit.training import train
from tests.cli.conftest import design


def test_options_in_a_file_are_those_of_the_command_and_the_command_line_wins(configured):
    record = read_json(configured / "run.json")
    assert record["settings"]["max_iter"] == 4 and record["settings"]["reward"] == "bootstrap"
    assert record["settings"]["n"] == len(pd.read_csv(configured / "designs.csv")) == 4


def test_the_record_of_a_run_holds_its_options_without_absolute_paths_and_runs_again(configured, folder, tmp_path):
    options = read_json(configured / "run.json")["options"]
    assert options.keys() == {"table", "target", "n", "max_iter", "pretrained", "reward"}
    assert os.path.samefile(configured / options["table"], folder / "t.csv")
    assert not any(os.path.isabs(str(value)) for value in options.values())
    again = design("--config", configured / "run.json", "--out", tmp_path / "again", "--quiet")
    assert again.exit_code in (0, 3), again.output
    assert (tmp_path / "again" / "designs.csv").read_text() == (configured / "designs.csv").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aplha = 0.1", "has 'aplha', which is no option of .*design; its options are: table, target"),
        ("overwrite = true", "has 'overwrite'; give that on the command line"),
        ("alpha = true", "has alpha = True; give a number or a text"),
        ("hold = [1, 2]", r"has hold = \[1, 2\]; give a number or a text"),
        ('quiet = "yes"', "has quiet = 'yes'; give true or false"),
        ('alpha = "much"', "'much' is not a valid float"),
        ("n = 0", "0 is not in the range"),
        ("[design]\nn = 3", "has 'design', which is no option"),
        ("n = ", "cannot be read"),
    ],
)
def test_wrong_files_of_options_are_refused_by_name(folder, tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text + "\n")
    result = design("--config", path, folder / "t.csv", "--target", "mrl", "--out", tmp_path / "run")
    assert result.exit_code == 2 and re.search(message, result.output), result.output
    assert not (tmp_path / "run").exists()


def test_other_files_than_options_are_refused(folder, tmp_path):
    (tmp_path / "other.json").write_text('{"n": 3}')
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\0")
    for name, message in {
        "nowhere.toml": "cannot be read",
        "other.json": "is not a file that braidkit wrote",
        "bytes.toml": "cannot be read",
    }.items():
        result = design("--config", tmp_path / name, folder / "t.csv", "--target", "mrl", "--out", tmp_path / "run")
        assert result.exit_code == 2 and message in result.output, result.output


def test_an_option_given_twice_is_refused(folder, tmp_path):
    result = design(folder / "t.csv", "--target", "mrl", "--out", tmp_path / "run", "--out", tmp_path)
    assert result.exit_code == 2 and "--out is given 2 times; give it once" in result.stderr


def test_ctrl_c_while_fine_tuning_ends_a_run_that_is_stopped_not_finished(folder, configured, tmp_path, monkeypatch):
    look = Monitor.__call__

    def interrupted(self, n_done, figures):
        if n_done == 3:
            raise KeyboardInterrupt
        return look(self, n_done, figures)

    command = ["--config", folder / "run.toml", "--n", "4", "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "__call__", interrupted)
        stopped = design(*command)
    assert stopped.exit_code == 130, stopped.output
    assert "stopped after 3 updates; the designs are of the best model so far" in stopped.stderr
    assert "give the same command again" in stopped.stderr
    record = read_json(tmp_path / "run" / "run.json")
    assert (record["finished"], record["stopped"], record["n_iter"]) == (False, True, 3)
    assert len(pd.read_csv(tmp_path / "run" / "designs.csv")) == 4

    on = design(*command)
    assert on.exit_code in (0, 3), on.output
    record = read_json(tmp_path / "run" / "run.json")
    assert (record["finished"], record["stopped"], record["n_iter"]) == (True, False, 4)
    assert (tmp_path / "run" / "designs.csv").read_text() == (configured / "designs.csv").read_text()


def test_ctrl_c_while_pretraining_says_how_to_go_on(folder, tmp_path, monkeypatch):
    longer = pd.read_csv(folder / "t.csv")
    longer["sequence"] += longer["sequence"].str[::-1]
    longer.to_csv(tmp_path / "longer.csv", index=False)

    def interrupted(self, *args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(DiffusionModel, "fit", interrupted)
    result = design(tmp_path / "longer.csv", "--target", "mrl", "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert f"stopped by the user; {tmp_path / 'run'} keeps the stages" in result.stderr
    assert "give the same command again" in result.stderr and "Aborted" not in result.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["finished"] is False


class Nothing:
    def update(self, i):
        return {"loss": 0.5}


def test_log_files_get_no_bars_but_a_line_now_and_then(capfd, monkeypatch):
    train(Nothing(), 30, verbose=1, description="reward")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr("braidkit.progress.SECONDS", 0)
    train(Nothing(), 3000, start=2998, verbose=1, description="reward")
    assert capfd.readouterr() == ("", "reward: 2,999 of 3,000\nreward: 3,000 of 3,000\n")


def test_terminals_get_bars(capfd, monkeypatch):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True, raising=False)
    train(Nothing(), 30, verbose=1, description="reward")
    assert "\rreward:" in capfd.readouterr().err


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["design", "--help"], ["demo", "--help"]])
def test_help_takes_less_than_half_a_second_of_cpu(args):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "braidkit", *args], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_help_lists_options_by_the_kind_of_designs_that_they_are_for():
    said = CliRunner().invoke(main, ["design", "--help"]).output
    parts = re.split(r"\n(Options[^\n]*):\n", said)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    listed = {title: set(re.findall(r"^  (--[a-z-]+)", text, re.M)) for title, text in texts.items()}
    assert {"--target", "--columns", "--image", "--out", "--help"} <= listed["Options"]
    assert listed["Options of recipes"] == {"--fix", "--bound", "--real", "--skip-missing"}
    assert {"--sequence", "--template", "--parent"} <= listed["Options of sequences"]
    assert {"--prompts", "--resize"} <= listed["Options of pictures"]
    assert sum(map(len, listed.values())) == len(main.commands["design"].params) - 1 + len(["--help"])


def test_a_column_of_sequences_that_nobody_named_is_asked_for(tmp_path):
    (tmp_path / "mpra.csv").write_text("seq,y\nACGT,1\n")
    refused = design(tmp_path / "mpra.csv", "--target", "y", "--out", tmp_path / "run")
    assert "Name the column of the sequences with --sequence. If the rows are recipes" in refused.stderr
