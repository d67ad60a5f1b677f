"""What the command line learns of noise and of several targets."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit.cli import main
from braidkit.cli.rounds import PreviousSequences
from braidkit.datasets import read_table


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two properties of 5-letter DNA that pull apart, three replicates of each.

    No reward of so few rows trains a network.
    """
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (58, 5))]
    columns = {"sequence": X, "se": np.full(58, 0.2), "none": np.zeros(58)}
    for name, letter in (("on", "G"), ("off", "C")):
        for i in (1, 2, 3):
            columns[f"{name}{i}"] = [row.count(letter) + row.count("A") + 0.2 * rng.normal() for row in X]
    path = tmp_path_factory.mktemp("data") / "table.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def design(*args):
    return CliRunner().invoke(main, ["design", *map(str, args)])


def test_replicates_reach_reward_judge_and_record(table, tmp_path):
    out = tmp_path / "run"
    result = design(table, "--target", "on=on1,on2,on3", "--n", 5, "--out", out)
    assert result.exit_code == 0, result.output
    assert "replicates of on differ by 0.2" in result.output
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert settings["target"] == "on"
    again = design(table, "--target", "on=on1", "--n", 5, "--out", out)
    assert again.exit_code != 0  # other data


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--target", "on1,on2", "--target-se", "se"],
            "--target-se and the replicates of 'on1,on2' both tell the noise",
        ),
        (["--target", "on1", "--target-se", "none"], "'none' is 0.0 (58 rows are so); no measurement is exact"),
        (["--target", "on1", "--weight", "none"], "of 58 rows, 58 of weight 0 were dropped"),
    ],
)
def test_noise_that_cannot_be_is_refused(table, tmp_path, options, text):
    result = design(table, *options, "--out", tmp_path / "run")
    assert result.exit_code == 2 and text in result.output, result.output
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def two(table, tmp_path_factory):
    """A finished run for one property without the other."""
    out = tmp_path_factory.mktemp("runs") / "two"
    options = ["--target", "on=on1,on2", "--target", "off=off1,off2", "--objective", "on - off if off <= 1.5"]
    result = design(table, *options, "--n", 8, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result.output


def test_designs_tell_mean_bound_and_judge_of_each_quantity(two):
    out, said = two
    designs = pd.read_csv(out / "designs.csv", keep_default_na=False)
    own = ["on_mean", "on_lower", "on_judge", "off_mean", "off_upper", "off_judge"]
    assert [column for column in designs if column.startswith("o")] == own
    assert (designs["on_lower"] <= designs["on_mean"]).all() and (designs["off_upper"] >= designs["off_mean"]).all()
    fine = designs["off_upper"] <= 1.5
    np.testing.assert_allclose(designs["lower"][fine], (designs["on_lower"] - designs["off_upper"])[fine], rtol=1e-4)
    assert (designs["flags"].str.contains("not sure to have off <= 1.5") == ~fine).all()
    assert designs["sequence"].str.count("G").mean() > 2.5 and fine.mean() > 0.5
    assert "on 5/50/95 %" in said and "off 5/50/95 %" in said and "R2 of off" in said


def test_the_report_shows_quantities_against_each_other(two):
    page = (two[0] / "report.html").read_text()
    assert "Two quantities of the objective" in page and "The objective is on - off if off &lt;= 1.5" in page


def test_a_run_can_be_asked_for_each_quantity_of_other_sequences(two, tmp_path):
    (tmp_path / "asked.fasta").write_text(">one\nGGGGG\n>two\nAAAAA\n")
    result = CliRunner().invoke(main, ["score", str(two[0]), str(tmp_path / "asked.fasta")])
    assert result.exit_code == 0, result.output
    asked = pd.read_csv(io.StringIO(result.stdout)).set_index("id")
    assert asked["off_mean"]["two"] > 2 > asked["off_mean"]["one"] and asked["lower"]["one"] > asked["lower"]["two"]


def test_a_run_of_the_same_options_is_known_by_its_objective(two, table):
    record = json.loads((two[0] / "run.json").read_text())
    assert record["settings"]["objective"] == "on - off if off <= 1.5" and record["settings"]["target"] == "on, off"
    assert record["options"]["target"] == ["on=on1,on2", "off=off1,off2"]


def test_a_second_round_compares_the_objective_with_what_was_promised(two, tmp_path):
    earlier = PreviousSequences.read(two[0])
    X = earlier.designs["sequence"].tolist()
    counts = {letter: np.array([row.count(letter) for row in X]) for letter in "ACG"}
    columns = {"on": counts["G"] + counts["A"] + 0.1 * np.arange(8), "off": counts["C"] + counts["A"]}
    pd.DataFrame({"sequence": X} | columns).to_csv(tmp_path / "new.csv", index=False)
    new = read_table(tmp_path / "new.csv", target=["on", "off"])
    check = earlier.check(new, "on - off if off <= 1.5")
    fine = columns["off"] <= 1.5
    np.testing.assert_allclose(check.table["measured"][fine], (columns["on"] - columns["off"])[fine])
    assert len(check.table) == 8 and "on - 2*off" in earlier.check(new, "on - 2*off").another
    assert earlier.check(read_table(tmp_path / "new.csv", target="on")).another


def test_less_may_be_better(table, tmp_path):
    out = tmp_path / "run"
    result = design(table, "--target", "off1", "--minimise", "--n", 5, "--out", out)
    assert result.exit_code == 0, result.output
    designs = pd.read_csv(out / "designs.csv")
    np.testing.assert_allclose(designs["lower"], -designs["off1_upper"], rtol=1e-4)
    assert designs["off1_mean"].mean() < 0.7


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--target", "on1", "--target", "off1"],
            "names 2 quantities (on1, off1); say by --objective what",
        ),
        (["--target", "on1", "--target", "off1", "--minimise"], "--minimise is for one --target and no --objective"),
        (
            ["--target", "on1,on2", "--objective", "-on1"],
            "has no name that an objective can use; give it one",
        ),
        (
            ["--target", "on1", "--objective", "on1 - off1"],
            "--objective 'on1 - off1' names 'off1', but what is",
        ),
        (["--target", "on1", "--target", "of1", "--objective", "on1 - of1"], "has no column 'of1'; its columns are:"),
        (["--target", "on1", "--objective", "on1 ** 2"], "which is none of what an objective may have"),
    ],
)
def test_objectives_that_cannot_be_are_refused(table, tmp_path, options, text):
    result = design(table, *options, "--out", tmp_path / "run")
    assert result.exit_code == 2 and text in result.output, result.output
    assert not (tmp_path / "run").exists()
