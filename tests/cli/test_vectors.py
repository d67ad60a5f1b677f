"""Runs on recipes: from a table of settings to designs in the units and names of its columns."""

import re

import numpy as np
import pandas as pd
import pytest

from braidkit import ConservativeDiffusionFinetuner, GaussianDiffusion, VectorSpace
from braidkit.cli import main
from tests.cli.conftest import RECIPES, call
from tests.kills import killed_at

FILES = [
    *("designs.csv", "finetuner", "measured.csv.gz", "model", "pretrained"),
    *("report.html", "rewards.png", "run.json", "training.png"),
]


def test_a_run_leaves_recipes_in_the_units_and_names_of_the_table(recipe_run, recipes):
    out, said = recipe_run
    assert "5 columns" not in said and "4 columns: temp, layers (whole numbers), solvent (=etoh, dmf, water)" in said
    assert "volume (50 in all rows: held)" in said and "column 'run' left out: it numbers the rows" in said
    assert f"8 designs -> {out}/designs.csv   model" in said
    assert sorted(path.name for path in out.iterdir()) == FILES
    designs, measured = pd.read_csv(out / "designs.csv"), pd.read_csv(recipes / "t.csv")
    assert list(designs)[:5] == ["id", "temp", "layers", "solvent", "volume"]
    assert set(designs["layers"]) <= {1, 2, 3, 4, 5} and set(designs["volume"]) == {50}
    assert set(designs["solvent"]) <= {"water", "dmf", "'=etoh"}  # which a spreadsheet takes for no formula
    assert designs["temp"].between(measured["temp"].min(), measured["temp"].max()).all()
    line = designs["nearest"].str.extract(r"line (\d+)")[0].astype(int)
    np.testing.assert_allclose(designs["nearest_value"], measured["yield"][line - 2], rtol=1e-5)
    page = (out / "report.html").read_text()
    assert "Columns of the designs beside those of the data" in page and "edit distance" not in page
    assert "layers: 1 to 5, whole; solvent: one of =etoh, dmf, water; volume: 50" in page


def test_predictions_are_those_of_the_rounded_designs(recipe_run):
    out, _ = recipe_run
    finetuner = ConservativeDiffusionFinetuner.load(out)
    designs = pd.read_csv(out / "designs.csv").replace("'=etoh", "=etoh")
    X = finetuner.space_.from_frame(designs)
    np.testing.assert_allclose(finetuner.reward_.predict_lower(X), designs["lower"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(finetuner.judge_.predict(X), designs["judge"], rtol=1e-3, atol=1e-3)


def test_recipes_are_scored_and_drawn_by_a_run(recipe_run, recipes, tmp_path):
    out, _ = recipe_run
    scored = call("score", out, recipes / "t.csv", "--out", tmp_path / "scores.csv")
    assert scored.exit_code == 0, scored.output
    table, measured = pd.read_csv(tmp_path / "scores.csv"), pd.read_csv(recipes / "t.csv")
    assert (table["distance"] == 0).all() and table["nearest"].tolist() == [f"line {i}" for i in range(2, 82)]
    np.testing.assert_allclose(table["nearest_value"], measured["yield"], rtol=1e-4)
    assert np.corrcoef(table["mean"], measured["yield"])[0, 1] > 0.8 and "log_likelihood" in table
    drawn = call("sample", out, "--n", "5", "--out", tmp_path / "more.csv")
    assert drawn.exit_code == 0, drawn.output
    again = call("score", out, tmp_path / "more.csv")
    assert again.exit_code == 0 and len(again.stdout.splitlines()) == 6, again.output
    refused = call("score", out, recipes / "blank.csv")
    assert (
        refused.exit_code == 2 and "line 5 of" in refused.stderr and "'temp' is blank; fill them in" in refused.stderr
    )
    refused = call("score", out, recipes / "t.csv", "--sequence", "temp")
    assert refused.exit_code == 2 and "is a run on recipes; leave out --sequence" in refused.stderr


def test_columns_are_held_and_bounded_and_may_be_real(recipes, tmp_path):
    asked = ["--fix", "solvent=dmf", "--bound", "temp=:55", "--bound", "layers=0:2.5", "--real", "layers"]
    more = ["--objective", "-y", "--alpha", "0.5", "--skip-missing"]
    args = [recipes / "blank.csv", "--columns", "temp,layers", "--columns", "solvent", *RECIPES[:1], "y=yield"]
    result = call("design", *args, *RECIPES[2:], *asked, *more, "--out", tmp_path / "run")
    assert result.exit_code in (0, 3), result.output
    assert "1 without temp dropped)" in result.stdout
    designs = pd.read_csv(tmp_path / "run" / "designs.csv")
    assert set(designs["solvent"]) == {"dmf"} and designs["temp"].max() <= 55
    assert designs["layers"].between(0, 2.5).all() and (designs["layers"] % 1).any()
    assert {"y_mean", "y_upper", "y_judge"} < set(designs)


def test_a_pretrained_chain_of_the_same_columns_is_taken(recipe_run, recipes, tmp_path):
    out, _ = recipe_run
    given = ["--pretrained", out / "pretrained", "--fix", "layers=3"]
    result = call("design", recipes / "t.csv", "--columns", "all", *RECIPES, *given, "--out", tmp_path / "run")
    assert result.exit_code in (0, 3), result.output
    assert set(pd.read_csv(tmp_path / "run" / "designs.csv")["layers"]) == {3}
    refused = call("design", recipes / "t.csv", "--columns", "temp,layers", *RECIPES, *given, "--out", tmp_path / "no")
    assert refused.exit_code == 2
    assert "makes the columns temp, layers, solvent, volume, and the table has temp, layers" in refused.stderr
    oil = pd.read_csv(recipes / "t.csv").replace("dmf", "oil")
    oil.to_csv(tmp_path / "oil.csv", index=False)
    refused = call("design", tmp_path / "oil.csv", "--columns", "all", *RECIPES, *given, "--out", tmp_path / "no")
    assert refused.exit_code == 2
    assert "makes 'solvent' of =etoh, dmf, water, and the table has =etoh, oil, water" in refused.stderr


def test_a_killed_run_goes_on_to_the_same_recipes(recipe_run, recipes, tmp_path, monkeypatch):
    args = ["design", recipes / "t.csv", "--columns", "all", *RECIPES, "--out", tmp_path / "run"]
    assert killed_at(60, monkeypatch, lambda: main([*map(str, args)], standalone_mode=False))
    resumed = call(*args)
    assert resumed.exit_code in (0, 3) and "going on with the unfinished run" in resumed.stdout, resumed.output
    for name in ("designs.csv", "report.html"):
        assert (tmp_path / "run" / name).read_bytes() == (recipe_run[0] / name).read_bytes()


def test_another_bound_is_another_run(recipe_run, recipes):
    result = call(
        "design", recipes / "t.csv", "--columns", "all", *RECIPES, "--bound", "temp=:60", "--out", recipe_run[0]
    )
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
        (["--columns", "all", "--pretrained", "{recipes}"], "pretrained"),
    ],
)
def test_wrong_options_are_refused_by_name(recipes, tmp_path, options, message):
    options = [option.format(recipes=recipes) for option in options]
    result = call("design", recipes / "t.csv", *RECIPES, *options, "--out", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


def test_a_chain_of_other_designs_is_refused(recipes, tmp_path):
    GaussianDiffusion(VectorSpace(2)).fit(np.random.default_rng(0).normal(size=(20, 2))).save_pretrained(tmp_path / "c")
    args = ["--columns", "temp", "--pretrained", tmp_path / "c", "--out", tmp_path / "run"]
    result = call("design", recipes / "t.csv", *RECIPES, *args)
    assert result.exit_code == 2 and "makes the columns x0, x1, and the table has temp" in result.stderr
