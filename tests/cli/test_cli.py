import itertools
import json
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit import GPBonusReward, SequenceSpace, SimplexDiffusion
from braidkit.cli import main
from braidkit.cli.job import OUTPUTS, Settings, build_finetuner, run_job, warn_of_short_bound
from braidkit.cli.run_directory import RunDirectory
from braidkit.datasets.table import read_table
from braidkit.diffusion import DiffusionModel
from braidkit.finetuning.monitor import Monitor
from braidkit.persistence import digest
from tests.language_models import tiny_bert

OPTIONS = ["--sequence", "seq", "--target", "mrl", "--n", "12", "--max-iter", "4"]
FILES = [
    *("designs.csv", "designs.fasta", "finetuner", "measured.csv.gz", "model", "pretrained"),
    *("report.html", "rewards.png", "run.json", "training.png"),
]


def write_table(path, n):
    """Measurements of 8-letter DNA: the number of G, with noise; and a row that is there already, and one with N."""
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (n, 8))]
    y = [row.count("G") + 0.1 * rng.normal() for row in X]
    pd.DataFrame({"seq": [*X, X[0], "ACGNACGT"], "mrl": [*y, 1.0, 1.0]}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """So few rows that the reward trains no network."""
    return write_table(tmp_path_factory.mktemp("data") / "mpra.csv", 76)


@pytest.fixture(scope="module")
def chain(table, tmp_path_factory):
    """Directory of a pretrained chain of few steps."""
    measured = read_table(table, sequence="seq", target="mrl", on_ambiguous="drop")
    path = tmp_path_factory.mktemp("models") / "chain"
    SimplexDiffusion(measured.space, n_steps=4).fit(measured.sequences, max_iter=30, random_state=0).save_pretrained(
        path
    )
    return path


def but(options, *others):
    """Options with others in place of those of the same name."""
    pairs = zip(options[::2], options[1::2], strict=True)
    return [*(part for name, value in pairs if name not in others for part in (name, value)), *others]


def design(*args):
    return CliRunner().invoke(main, ["design", *map(str, args)])


@pytest.fixture(scope="module")
def finished(table, chain, tmp_path_factory):
    """A finished run, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "run"
    result = design(table, *OPTIONS, "--pretrained", chain, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_a_run_tells_its_story(finished):
    out, said = finished
    lines = [line.strip() for line in said.splitlines()]
    story = [
        "read 78 rows: ",
        "reward: held-out R2 ",
        "update 0 ",
        "update 4 ",
        f"12 designs -> {out}/designs.csv, {out}/designs.fasta   model -> {out}/model/",
        f"report -> {out}/report.html   figures -> {out}/rewards.png, {out}/training.png",
    ]
    found = [next((i for i, line in enumerate(lines) if line.startswith(start)), None) for start in story]
    assert None not in found
    assert found == sorted(found)


def test_a_run_leaves_designs_figures_models_and_a_record(finished, table):
    out, _ = finished
    assert sorted(path.name for path in out.iterdir()) == FILES
    designs = pd.read_csv(out / "designs.csv", keep_default_na=False)
    assert len(designs) == designs["sequence"].nunique() == 12
    model = DiffusionModel.from_pretrained(out / "model")
    assert model.space == SequenceSpace("DNA", 8)
    assert len(model.sample(3, random_state=0)[0]) == 8
    for name in ("rewards.png", "training.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert all(sequence in page for sequence in designs["sequence"])
    assert "read 78 rows" in page and "backtest" in page
    record = json.loads((out / "run.json").read_text())
    measured = read_table(table, sequence="seq", target="mrl", on_ambiguous="drop")
    assert record["finished"] is True
    assert record["settings"]["data"] == digest(measured.sequences, measured.y)
    assert record["settings"]["max_iter"] == record["n_iter"] == 4
    assert record["designs"]["lower"] == pytest.approx(designs["lower"].median(), rel=1e-4)
    assert set(record["seconds"]) == {"fit", "designs", "report"}


def test_a_finished_run_is_refused_unless_overwritten(finished, table, chain):
    out, _ = finished
    refused = design(table, *OPTIONS, "--pretrained", chain, "--out", out)
    assert refused.exit_code == 2
    assert "holds a finished run; choose another directory, or pass --overwrite" in refused.stderr
    assert "Traceback" not in refused.output
    before = (out / "designs.csv").read_text()
    again = design(table, *OPTIONS, "--pretrained", chain, "--out", out, "--overwrite", "--quiet")
    assert again.exit_code == 0, again.output
    assert again.stdout == ""
    assert (out / "designs.csv").read_text() == before


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "0"], "alpha must be a number > 0"),
        (["--device", "abacus"], "device must be"),
        (["--c", "-1"], "c must be a number >= 0"),
        (["--pretrained", "nowhere"], "nowhere is not a directory"),
        (["--pretrained", "hf://owner/model"], "download it first, hf download owner/model --local-dir DIR"),
        (["--pretrained", "{out}/model"], "model is part of the run in"),
        (["--target", "log2fc"], "has no column 'log2fc'"),
    ],
)
def test_overwrite_with_wrong_options_removes_nothing(finished, table, options, message):
    out, _ = finished
    before = files(out)
    options = [option.format(out=out) for option in options]
    refused = design(table, *but(OPTIONS, *options), "--out", out, "--overwrite")
    assert refused.exit_code == 2, refused.output
    assert message in refused.stderr
    assert files(out) == before


def test_a_table_in_the_directory_survives_or_is_refused(finished, table, chain):
    out, _ = finished
    measured = out / "measured.csv"
    measured.write_bytes(table.read_bytes())
    try:
        result = design(measured, *OPTIONS, "--pretrained", chain, "--out", out, "--overwrite", "--quiet")
        assert result.exit_code == 0, result.output
        assert measured.read_bytes() == table.read_bytes()
    finally:
        measured.unlink()
    before = files(out)
    options = ["--sequence", "sequence", "--target", "mean", "--out", out, "--overwrite"]
    refused = design(out / "designs.csv", *options, "--pretrained", chain)
    assert refused.exit_code == 2
    assert "designs.csv is part of the run in" in refused.stderr
    assert files(out) == before


class PowerCut(Exception):
    pass


def test_an_unfinished_run_goes_on_and_ends_as_if_it_had_never_stopped(finished, table, chain, tmp_path):
    def cut(line):
        if line.startswith("12 designs"):
            raise PowerCut

    settings = Settings(target="mrl", n=12, alpha=None, max_iter=4, pretrained=chain)
    measured = read_table(table, sequence="seq", target="mrl", on_ambiguous="drop")
    directory = RunDirectory(tmp_path / "run", OUTPUTS)
    record = {"command": "design", "data": digest(measured.sequences, measured.y)} | settings.as_record()
    with pytest.raises(PowerCut), directory.claimed(record):
        run_job(build_finetuner(measured, directory, settings), measured, directory, settings, cut)

    other = design(table, *OPTIONS, "--pretrained", chain, "--alpha", "0.5", "--out", directory.path)
    assert other.exit_code == 2
    assert "unfinished run of other data or settings (alpha was None, now 0.5)" in other.stderr
    same = design(table, *OPTIONS, "--pretrained", chain, "--out", directory.path)
    assert same.exit_code == 0, same.output
    assert f"going on with the unfinished run in {directory.path}" in same.stdout
    assert "update 0 " not in same.stdout
    assert sorted(path.name for path in directory.path.iterdir()) == FILES
    assert (directory / "designs.csv").read_text() == (finished[0] / "designs.csv").read_text()


@pytest.mark.slow
def test_a_masked_language_model_is_a_pretrained_model(table, chain, tmp_path):
    lm, tokenizer = tiny_bert("ACGT")
    for part in (lm, tokenizer):
        part.save_pretrained(tmp_path / "lm")
    out, rank = tmp_path / "run", ["--lora-rank", "2"]
    result = design(table, *OPTIONS, "--pretrained", tmp_path / "lm", *rank, "--out", out)
    assert result.exit_code in (0, 3), result.output
    model = DiffusionModel.from_pretrained(out / "model")
    assert model.backbone.settings["lora_rank"] == 2
    assert model.n_steps == 5  # of 8 letters
    assert "looked at 250 candidates" in result.stdout and "drawing designs for the report" in result.stdout
    assert (out / "model" / "adapter_model.safetensors").is_file()
    other = design(table, *OPTIONS, "--pretrained", chain, *rank, "--out", tmp_path / "other")
    assert other.exit_code == 2 and "--lora-rank belongs to a masked language model" in other.output
    again = design(table, *OPTIONS, "--pretrained", tmp_path / "lm", "--out", out)
    assert again.exit_code == 2 and "finished run" in again.output


@pytest.mark.slow
def test_a_killed_process_resumes_with_the_model_that_it_had_pretrained(table, tmp_path):
    # Of 8 letters all designs are listed, in one update: twice as many are not.
    longer = pd.read_csv(table)
    longer["seq"] += longer["seq"].str[::-1]
    longer.to_csv(tmp_path / "longer.csv", index=False)

    def command(out):
        return [sys.executable, "-m", "braidkit", "design", str(tmp_path / "longer.csv"), *OPTIONS, "--out", str(out)]

    straight = subprocess.run(command(tmp_path / "straight"), capture_output=True, text=True, check=True)
    assert "pretrained: none given" in straight.stdout
    assert sorted(path.name for path in (tmp_path / "straight").iterdir()) == FILES
    out = tmp_path / "killed"
    process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (out / "checkpoint" / "fine-tuning" / "config.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "designs.csv").exists()
    resumed = subprocess.run(command(out), capture_output=True, text=True, check=True)
    assert "going on with the unfinished run" in resumed.stdout
    assert "pretrained: none given" not in resumed.stdout
    assert "update 0 " not in resumed.stdout
    assert (out / "designs.csv").read_text() == (tmp_path / "straight" / "designs.csv").read_text()


def test_an_over_optimised_run_warns_in_a_line_and_is_recorded(table, chain, tmp_path, monkeypatch):
    monkeypatch.setattr(Monitor, "over_optimising_since", 2)
    out = tmp_path / "run"
    result = design(table, *OPTIONS, "--pretrained", chain, "--quiet", "--out", out)
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stderr.splitlines() if "over-optimisation" in line)
    assert line.startswith("warning: over-optimisation: after update 2 the reward's lower bound rose")
    assert RunDirectory(out).read()["over_optimising_since"] == 2


def test_what_is_the_same_in_all_rows_is_said_by_the_fit_alone(tmp_path, capsys):
    rows = "".join(f"A{first}{second}C,{i}\n" for i, (first, second) in enumerate(itertools.product("ACGT", repeat=2)))
    (tmp_path / "t.csv").write_text("sequence,mrl\n" + rows)
    measured = read_table(tmp_path / "t.csv", target="mrl")
    finetuner = build_finetuner(measured, RunDirectory(tmp_path / "run", OUTPUTS), Settings(target="mrl", n=5))
    assert finetuner.space_.template == "A__C"
    assert capsys.readouterr().out == "" and finetuner.verbose == 1


def test_a_run_as_the_pretrained_model_is_refused_by_naming_its_models(finished, table, tmp_path):
    result = design(table, *OPTIONS, "--pretrained", finished[0], "--out", tmp_path / "run")
    assert result.exit_code == 2 and f"{finished[0]}/pretrained or {finished[0]}/model" in result.stderr


def test_a_bootstrap_reward_is_used_when_asked_for(table, chain, tmp_path):
    out = tmp_path / "run"
    result = design(table, *OPTIONS, "--pretrained", chain, "--reward", "bootstrap", "--out", out)
    assert result.exit_code == 0, result.output
    assert "reward: held-out R2" in result.stdout
    assert "(c = " not in result.stdout
    assert RunDirectory(out).read()["settings"]["reward"] == "bootstrap"


def test_a_calibrated_bound_holds_for_most_held_out_rows(chain, tmp_path):
    table, out = write_table(tmp_path / "mpra.csv", 260), tmp_path / "run"
    result = design(table, *OPTIONS, "--pretrained", chain, "--c", "calibrated", "--out", out)
    assert result.exit_code == 0, result.output
    assert "the bound was calibrated" not in result.output
    assert RunDirectory(out).read()["reward"]["overall"] > 0.8


@pytest.mark.parametrize(
    ("c", "share", "warned"), [("calibrated", 0.85, True), ("calibrated", 0.9, False), (1.0, 0.5, False)]
)
def test_a_calibrated_bound_that_falls_short_is_told(c, share, warned):
    """Of 100 rows, 0.95 less two standard errors of 0.031 are 0.888."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_short_bound(GPBonusReward(c=c), {"overall": share}, n_rows=100)
    assert ["calibrated to hold for 95 % of rows" in str(warning.message) for warning in caught] == [True] * warned


def test_without_matplotlib_only_the_report_and_figures_are_missing(table, chain, tmp_path, monkeypatch):
    # A module that is None in sys.modules cannot be imported.
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "run"
    result = design(table, *OPTIONS, "--pretrained", chain, "--out", out)
    assert result.exit_code == 0, result.output
    assert "left out: plots need matplotlib; install it with: pip install 'braidkit[plots]'" in result.stdout
    assert sorted(path.name for path in out.iterdir()) == [
        name for name in FILES if not name.endswith((".png", ".html"))
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "log2fc"], "has no column 'log2fc'; its columns are: seq, mrl"),
        (["--alpha", "0"], "--alpha must be a number > 0; got 0.0"),
        (["--c", "-1"], "--c must be a number >= 0"),
        (["--reward", "bootstrap", "--c", "1"], "--c belongs to the bonus reward"),
        (["--c", "much"], "'much' is no number; give one, or calibrated"),
        (["--pretrained", "nowhere"], "nowhere is not a directory"),
        (["--length", "7"], "no row to learn from: of 78 rows, 1 with N, 77 of another length than 7 were dropped"),
        (["--alphabet", "AC"], "is not in the alphabet AC"),
        (["--n", "0"], "0 is not in the range 1<=x<=100000"),
        (["--device", "abacus"], "--device must be"),
        (["--device", "meta"], "--device must be"),
        (["--n", "1000000000"], "is not in the range 1<=x<=100000"),
    ],
)
def test_bad_calls_end_in_one_line_and_leave_no_directory(table, tmp_path, options, message):
    out = tmp_path / "run"
    result = design(table, *but(OPTIONS, *options), "--out", out)
    assert result.exit_code == 2
    assert message in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert not out.exists()


def test_too_few_rows_to_calibrate_are_told_before_any_work_by_the_command_s_own_options(tmp_path):
    rows = ["".join(letters) for letters in itertools.product("ACGT", repeat=4)][:250]
    pd.DataFrame({"seq": rows, "mrl": range(250)}).to_csv(tmp_path / "few.csv")
    result = design(tmp_path / "few.csv", *OPTIONS, "--c", "calibrated", "--out", tmp_path / "run")
    assert result.exit_code == 2 and not (tmp_path / "run").exists()
    assert "--c calibrated needs more than 250 different sequences" in result.stderr
    assert "validation_fraction" not in result.stderr and "pretrained" not in result.output


def test_a_target_that_is_learned_better_as_its_logarithm_is_told_before_any_work(tmp_path):
    rows = ["".join(letters) for letters in itertools.product("ACGT", repeat=4)][:200]
    pd.DataFrame({"seq": rows, "mrl": [10 ** (i / 40) for i in range(200)]}).to_csv(tmp_path / "kd.csv")
    result = design(tmp_path / "kd.csv", *OPTIONS, "--quiet", "--c", "calibrated", "--out", tmp_path / "run")
    assert result.exit_code == 2 and "--c calibrated needs more" in result.stderr
    assert result.stderr.startswith("warning: mrl is above 0 in all rows, and in 5 % of them more than 10 times its")


def test_a_model_of_other_sequences_is_refused(finished, tmp_path):
    path = tmp_path / "other.csv"
    pd.DataFrame({"seq": ["ACGTACGTAC", "ACGTACGTAA", "CCGTACGTAA"] * 9, "mrl": range(27)}).to_csv(path)
    out = tmp_path / "run"
    result = design(path, *OPTIONS, "--pretrained", finished[0] / "model", "--out", out)
    assert result.exit_code == 2
    assert "pretrained makes 8-letter DNA, but X is 10-letter DNA" in result.stderr
    assert not out.exists()


def test_help_and_version_load_no_torch():
    code = (
        "import sys; from click.testing import CliRunner; from braidkit.cli import main\n"
        "for args in (['--help'], ['--version'], ['design', '--help'], ['demo', '--help']):\n"
        "    assert CliRunner().invoke(main, args).exit_code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_whose_every_design_is_doubtful_does_not_end_like_a_success(tmp_path):
    """All 64 designs of three letters are measured: none is new."""
    rows = ["".join(row) for row in itertools.product("ACGT", repeat=3)]
    y = np.arange(64) % 7 + 0.1 * np.arange(64)
    pd.DataFrame({"seq": rows, "mrl": y}).to_csv(tmp_path / "table.csv", index=False)
    chain = SimplexDiffusion(SequenceSpace("DNA", 3), n_steps=3).fit(rows, max_iter=10, random_state=0)
    chain.save_pretrained(tmp_path / "chain")
    out = tmp_path / "run"
    result = design(
        tmp_path / "table.csv", *OPTIONS[:-2], "--max-iter", "1", "--pretrained", tmp_path / "chain", "--out", out
    )
    assert result.exit_code == 3, result.output
    assert 'warning: all 12 designs have a flag, most often "measured already" (12)' in result.stderr
    assert "looked at 1,000 candidates, " in result.stdout
    record = json.loads((out / "run.json").read_text())
    assert record["finished"] and record["choice"]["n_doubtful"] == record["choice"]["n_designs"] == 12
    assert any("measured already" in text for text in record["choice"]["warnings"])
    assert "all 12 designs have a flag" in (out / "report.html").read_text()
