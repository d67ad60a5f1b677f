"""Runs on recipes: from a table of settings to designs in the units and names of its columns."""

import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from braidkit import ConservativeDiffusionFinetuner, GaussianDiffusion, VectorSpace
from braidkit.cli import main
from braidkit.cli.rounds import PreviousRecipes
from braidkit.datasets import read_vectors
from tests.kills import killed_at

OPTIONS = ["--target", "yield", "--n", "8", "--max-iter", "3", "--reward", "bootstrap"]
FILES = [
    *("designs.csv", "finetuner", "measured.csv.gz", "model", "pretrained"),
    *("report.html", "rewards.png", "run.json", "training.png"),
]


def call(*args):
    return CliRunner().invoke(main, [*map(str, args)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
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


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    result = call("design", folder / "t.csv", "--columns", "all", *OPTIONS, "--out", out)
    assert result.exit_code in (0, 3), result.output
    return out, result.stdout


def test_a_run_leaves_recipes_in_the_units_and_names_of_the_table(finished, folder):
    out, said = finished
    assert "5 columns" not in said and "4 columns: temp, layers (whole numbers), solvent (=etoh, dmf, water)" in said
    assert "volume (50 in all rows: held)" in said and "column 'run' left out: it numbers the rows" in said
    assert f"8 designs -> {out}/designs.csv   model" in said
    assert sorted(path.name for path in out.iterdir()) == FILES
    designs, measured = pd.read_csv(out / "designs.csv"), pd.read_csv(folder / "t.csv")
    assert list(designs)[:5] == ["id", "temp", "layers", "solvent", "volume"]
    assert set(designs["layers"]) <= {1, 2, 3, 4, 5} and set(designs["volume"]) == {50}
    assert set(designs["solvent"]) <= {"water", "dmf", "'=etoh"}  # which a spreadsheet takes for no formula
    assert designs["temp"].between(measured["temp"].min(), measured["temp"].max()).all()
    line = designs["nearest"].str.extract(r"line (\d+)")[0].astype(int)
    np.testing.assert_allclose(designs["nearest_value"], measured["yield"][line - 2], rtol=1e-5)
    page = (out / "report.html").read_text()
    assert "Columns of the designs beside those of the data" in page and "edit distance" not in page
    assert "layers: 1 to 5, whole; solvent: one of =etoh, dmf, water; volume: 50" in page


def test_predictions_are_those_of_the_rounded_designs(finished):
    out, _ = finished
    finetuner = ConservativeDiffusionFinetuner.load(out)
    designs = pd.read_csv(out / "designs.csv").replace("'=etoh", "=etoh")
    X = finetuner.space_.from_frame(designs)
    np.testing.assert_allclose(finetuner.reward_.predict_lower(X), designs["lower"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(finetuner.judge_.predict(X), designs["judge"], rtol=1e-3, atol=1e-3)


def test_recipes_are_scored_and_drawn_by_a_run(finished, folder, tmp_path):
    out, _ = finished
    scored = call("score", out, folder / "t.csv", "--out", tmp_path / "scores.csv")
    assert scored.exit_code == 0, scored.output
    table, measured = pd.read_csv(tmp_path / "scores.csv"), pd.read_csv(folder / "t.csv")
    assert (table["distance"] == 0).all() and table["nearest"].tolist() == [f"line {i}" for i in range(2, 82)]
    np.testing.assert_allclose(table["nearest_value"], measured["yield"], rtol=1e-4)
    assert np.corrcoef(table["mean"], measured["yield"])[0, 1] > 0.8 and "log_likelihood" in table
    drawn = call("sample", out, "--n", "5", "--out", tmp_path / "more.csv")
    assert drawn.exit_code == 0, drawn.output
    again = call("score", out, tmp_path / "more.csv")
    assert again.exit_code == 0 and len(again.stdout.splitlines()) == 6, again.output
    refused = call("score", out, folder / "blank.csv")
    assert (
        refused.exit_code == 2 and "line 5 of" in refused.stderr and "'temp' is blank; fill them in" in refused.stderr
    )
    refused = call("score", out, folder / "t.csv", "--sequence", "temp")
    assert refused.exit_code == 2 and "is a run on recipes; leave out --sequence" in refused.stderr


def test_columns_are_held_and_bounded_and_may_be_real(folder, tmp_path):
    asked = ["--fix", "solvent=dmf", "--bound", "temp=:55", "--bound", "layers=0:2.5", "--real", "layers"]
    more = ["--objective", "-y", "--alpha", "0.5", "--skip-missing"]
    args = [folder / "blank.csv", "--columns", "temp,layers", "--columns", "solvent", *OPTIONS[:1], "y=yield"]
    result = call("design", *args, *OPTIONS[2:], *asked, *more, "--out", tmp_path / "run")
    assert result.exit_code in (0, 3), result.output
    assert "1 without temp dropped)" in result.stdout
    designs = pd.read_csv(tmp_path / "run" / "designs.csv")
    assert set(designs["solvent"]) == {"dmf"} and designs["temp"].max() <= 55
    assert designs["layers"].between(0, 2.5).all() and (designs["layers"] % 1).any()
    assert {"y_mean", "y_upper", "y_judge"} < set(designs)


def test_a_pretrained_chain_of_the_same_columns_is_taken(finished, folder, tmp_path):
    out, _ = finished
    given = ["--pretrained", out / "pretrained", "--fix", "layers=3"]
    result = call("design", folder / "t.csv", "--columns", "all", *OPTIONS, *given, "--out", tmp_path / "run")
    assert result.exit_code in (0, 3), result.output
    assert set(pd.read_csv(tmp_path / "run" / "designs.csv")["layers"]) == {3}
    refused = call("design", folder / "t.csv", "--columns", "temp,layers", *OPTIONS, *given, "--out", tmp_path / "no")
    assert refused.exit_code == 2
    assert "makes the columns temp, layers, solvent, volume, and the table has temp, layers" in refused.stderr


def test_a_killed_run_goes_on_to_the_same_recipes(finished, folder, tmp_path, monkeypatch):
    args = ["design", folder / "t.csv", "--columns", "all", *OPTIONS, "--out", tmp_path / "run"]
    assert killed_at(60, monkeypatch, lambda: main([*map(str, args)], standalone_mode=False))
    resumed = call(*args)
    assert resumed.exit_code in (0, 3) and "going on with the unfinished run" in resumed.stdout, resumed.output
    for name in ("designs.csv", "report.html"):
        assert (tmp_path / "run" / name).read_bytes() == (finished[0] / name).read_bytes()


def test_another_bound_is_another_run(finished, folder):
    result = call("design", folder / "t.csv", "--columns", "all", *OPTIONS, "--bound", "temp=:60", "--out", finished[0])
    assert result.exit_code == 2 and "holds a finished run" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", "temp", "--image", "temp"], "--image and --columns say"),
        (["--columns", "temp", "--parent", "ACGT"], "--parent is for sequences; leave it out with --columns"),
        (["--columns", "temp", "--prompts", "p"], "--prompts is for pictures; leave it out with --columns"),
        (["--image", "x", "--previous", "run"], "--previous is for sequences and recipes; leave it out with --image"),
        (
            ["--columns", "temp", "--previous", "nowhere"],
            "--previous nowhere is no run of braidkit design that has ended",
        ),
        (["--columns", "temp", "--lora-rank", "2"], "--lora-rank is for language models and pipelines"),
        (["--fix", "temp=3"], "--fix is for recipes; name the columns that were set by --columns"),
        (["--image", "x", "--bound", "temp=3:4"], "--bound is for recipes; leave it out with --image"),
        (["--columns", "temp,yield"], "column 'yield' cannot be a column of the designs and of the measurements"),
        (["--columns", "temp,temp"], "--columns names 'temp' twice"),
        (["--columns", "tempp"], "no column 'tempp'.*Did you mean 'temp'"),
        (["--columns", "temp,"], "--columns must be names of columns"),
        (["--columns", "temp,layers", "--fix", "layer=2"], "--fix names 'layer', which is none of --columns"),
        (["--columns", "temp,layers", "--fix", "layers"], "--fix has 'layers'; give a column and a value"),
        (["--columns", "temp,layers", "--fix", "layers=x"], "--fix layers: 'x' is no finite number"),
        (["--columns", "temp,layers", "--fix", "layers=1", "--fix", "layers=2"], "--fix names 'layers' twice"),
        (["--columns", "temp,layers", "--fix", "layers=1", "--fix", "temp=30"], "leave one free"),
        (["--columns", "all", "--fix", "volume=60"], "--fix volume=60: volume is 50 in all rows"),
        (["--columns", "all", "--fix", "solvent=oil"], "its labels in the table are =etoh, dmf, water"),
        (["--columns", "all", "--bound", "solvent=1:2"], "--bound solvent: it has labels"),
        (["--columns", "all", "--bound", "temp=60:20"], "--bound temp=60:20: the least, 60, is above 20"),
        (["--columns", "all", "--bound", "temp=60"], "--bound temp=60: give the least and the largest"),
        (["--columns", "all", "--bound", "layers=1.2:1.8"], "'layers': there is no whole number from 1.2 to 1.8"),
        (["--columns", "all", "--real", "solvent"], "--real names 'solvent', which is no column of numbers"),
        (["--columns", "volume"], "has the same volume in all rows; name columns that differ"),
        (["--columns", "all", "--pretrained", "{folder}"], "pretrained"),
    ],
)
def test_wrong_options_are_refused_by_name(folder, tmp_path, options, message):
    options = [option.format(folder=folder) for option in options]
    result = call("design", folder / "t.csv", *OPTIONS, *options, "--out", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


def test_a_chain_of_other_designs_is_refused(folder, tmp_path):
    GaussianDiffusion(VectorSpace(2)).fit(np.random.default_rng(0).normal(size=(20, 2))).save_pretrained(tmp_path / "c")
    args = ["--columns", "temp", "--pretrained", tmp_path / "c", "--out", tmp_path / "run"]
    result = call("design", folder / "t.csv", *OPTIONS, *args)
    assert result.exit_code == 2 and "makes the columns x0, x1, and the table has temp" in result.stderr


@pytest.fixture(scope="module")
def second(finished, tmp_path_factory):
    """A second round: the first one's recipes, measured as promised, and two more, one with another solvent."""
    out, _ = finished
    folder = tmp_path_factory.mktemp("second")
    designs = pd.read_csv(out / "designs.csv")
    table = designs[["solvent", "temp", "layers", "volume"]].assign(**{"yield": designs["mean"] + 0.01})
    more = pd.DataFrame({"solvent": ["oil", "dmf"], "temp": [95.5, 60.0], "layers": [7, 5], "volume": [50, 50]})
    pd.concat([table, more.assign(**{"yield": [1.0, 7.0]})]).to_csv(folder / "new.csv", index=False)
    run = folder / "run"
    result = call("design", folder / "new.csv", "--columns", "all", *OPTIONS, "--previous", out, "--out", run)
    assert result.exit_code in (0, 3), result.output
    return folder / "new.csv", run, result


def test_a_second_round_of_recipes_learns_from_both(second, finished, folder):
    table, run, result = second
    designs = pd.read_csv(finished[0] / "designs.csv")
    assert "80 of the run before" in result.stdout and "read 90 rows" in result.stdout
    assert "solvent (=etoh, dmf, oil, water)" in result.stdout and "layers (whole numbers)" in result.stdout
    rows = pd.read_csv(run / "measured.csv.gz")
    assert len(rows) == 90 and rows["place"].str.contains("of the run before").sum() == 80
    assert rows["column: temp"].max() == 95.5 and rows["column: layers"].max() == 7
    new = pd.read_csv(run / "designs.csv")
    settings = ["temp", "layers", "solvent", "volume"]
    assert not set(map(tuple, new[settings].values)) & set(map(tuple, designs[settings].values))
    assert new["nearest"].str.contains("line").all()


def test_a_second_round_of_recipes_reports_what_was_promised_and_measured(second, finished):
    _, run, result = second
    n = len(pd.read_csv(finished[0] / "designs.csv"))
    assert f"Of the {n} designs of the round before, {n} were measured" in result.stdout
    table = pd.read_csv(run / "last_round.csv")
    assert list(table)[:5] == ["id", "temp", "layers", "solvent", "volume"]
    np.testing.assert_allclose(table["measured"], table["mean"] + 0.01, rtol=1e-4)
    assert set(table["solvent"]) <= {"water", "dmf", "'=etoh"}
    assert "The round before: promised and measured" in (run / "report.html").read_text()


def test_rows_of_one_recipe_in_both_rounds_are_averaged(finished, folder, tmp_path):
    first = pd.read_csv(folder / "t.csv")
    again = first.head(3).assign(**{"yield": first["yield"].head(3) + 2})
    again.to_csv(tmp_path / "again.csv", index=False)
    table = read_vectors(tmp_path / "again.csv", target="yield", columns=["temp", "layers", "solvent", "volume"])
    pooled = PreviousRecipes.read(finished[0]).pooled(table)
    assert len(pooled.y) == 80 and pooled.n_averaged == 3
    np.testing.assert_allclose(pooled.y[:3], first["yield"].head(3) + 1)
    np.testing.assert_array_equal(pooled.X[:, 0], first["temp"])


@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        ({"temp": "heat"}, "is a run on the columns temp, layers, solvent, volume, and --columns"),
        ({"yield": "load"}, "measured yield, and the table measures load"),
        ({"temp": "solvent", "solvent": "temp"}, "column 'solvent' has labels in one round and numbers in the other"),
    ],
)
def test_second_rounds_of_other_recipes_are_refused(finished, folder, tmp_path, renamed, message):
    frame = pd.read_csv(folder / "t.csv").drop(columns="run")
    frame.rename(columns=renamed).to_csv(tmp_path / "new.csv", index=False)
    options = ["--columns", "all", "--target", renamed.get("yield", "yield"), "--previous", finished[0]]
    result = call("design", tmp_path / "new.csv", *options, "--out", tmp_path / "run")
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
    assert not (tmp_path / "run").exists()


def test_a_column_that_is_called_like_one_of_the_predictions_has_second_rounds(folder, tmp_path):
    frame = pd.read_csv(folder / "t.csv")[["temp", "layers", "yield"]].rename(columns={"temp": "mean"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    first = call("design", tmp_path / "t.csv", "--columns", "all", *OPTIONS, "--out", tmp_path / "first")
    assert first.exit_code in (0, 3), first.output
    designs = pd.read_csv(tmp_path / "first" / "designs.csv").head(4)
    new = (
        designs[["column mean", "layers"]].rename(columns={"column mean": "mean"}).assign(**{"yield": designs["mean"]})
    )
    new.to_csv(tmp_path / "new.csv", index=False)
    earlier = PreviousRecipes.read(tmp_path / "first")
    check = earlier.check(read_vectors(tmp_path / "new.csv", target="yield", columns=["mean", "layers"]))
    assert len(check.table) == 4 and list(check.table)[:3] == ["id", "column mean", "layers"]
    np.testing.assert_allclose(check.table["measured"], designs["mean"])


def test_labels_that_rounds_write_differently_are_refused(finished, folder, tmp_path):
    frame = pd.read_csv(folder / "t.csv").drop(columns="run").replace("dmf", "DMF")
    frame.to_csv(tmp_path / "new.csv", index=False)
    options = ["--columns", "all", *OPTIONS, "--previous", finished[0], "--out", tmp_path / "run"]
    result = call("design", tmp_path / "new.csv", *options)
    assert result.exit_code == 2 and "'solvent' of both rounds" in result.stderr, result.output
    assert "has 'DMF' and 'dmf'; write labels that are the same alike" in " ".join(result.stderr.split())
