"""`braidkit design --columns --previous`: second rounds of recipes."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from braidkit.cli import main
from braidkit.cli.rounds import PreviousRecipes
from braidkit.cli.vectors import shaped_space
from braidkit.datasets import read_vectors
from tests.cli.conftest import RECIPES, call
from tests.kills import killed_at


@pytest.fixture(scope="module")
def second(recipe_run, tmp_path_factory):
    """A second round: the first one's recipes, measured as promised, and two more, one with another solvent."""
    out, _ = recipe_run
    place = tmp_path_factory.mktemp("second")
    designs = pd.read_csv(out / "designs.csv")
    table = designs[["solvent", "temp", "layers", "volume"]].assign(**{"yield": designs["mean"] + 0.01})
    more = pd.DataFrame({"solvent": ["oil", "dmf"], "temp": [95.5, 60.0], "layers": [7, 5], "volume": [50, 50]})
    pd.concat([table, more.assign(**{"yield": [1.0, 7.0]})]).to_csv(place / "new.csv", index=False)
    run = place / "run"
    result = call("design", place / "new.csv", "--columns", "all", *RECIPES, "--previous", out, "--out", run)
    assert result.exit_code in (0, 3), result.output
    return place / "new.csv", run, result


def test_a_second_round_of_recipes_learns_from_both(second, recipe_run, recipes):
    table, run, result = second
    designs = pd.read_csv(recipe_run[0] / "designs.csv")
    assert "80 of the run before" in result.stdout and "read 90 rows" in result.stdout
    assert "solvent (=etoh, dmf, oil, water)" in result.stdout and "layers (whole numbers)" in result.stdout
    rows = pd.read_csv(run / "measured.csv.gz")
    assert len(rows) == 90 and rows["place"].str.endswith(f" of {recipe_run[0].name}").sum() == 80
    assert rows["column: temp"].max() == 95.5 and rows["column: layers"].max() == 7
    new = pd.read_csv(run / "designs.csv")
    settings = ["temp", "layers", "solvent", "volume"]
    assert not set(map(tuple, new[settings].values)) & set(map(tuple, designs[settings].values))
    assert new["nearest"].str.contains("line").all()


def test_a_second_round_of_recipes_reports_what_was_promised_and_measured(second, recipe_run):
    _, run, result = second
    n = len(pd.read_csv(recipe_run[0] / "designs.csv"))
    assert f"Of the {n} designs of the round before, {n} were measured" in result.stdout
    table = pd.read_csv(run / "last_round.csv")
    assert list(table)[:5] == ["id", "temp", "layers", "solvent", "volume"]
    np.testing.assert_allclose(table["measured"], table["mean"] + 0.01, rtol=1e-4)
    assert set(table["solvent"]) <= {"water", "dmf", "'=etoh"}
    assert "The round before: promised and measured" in (run / "report.html").read_text()


def test_rows_of_one_recipe_in_both_rounds_are_averaged(recipe_run, recipes, tmp_path):
    first = pd.read_csv(recipes / "t.csv")
    again = first.head(3).assign(**{"yield": first["yield"].head(3) + 2})
    again.to_csv(tmp_path / "again.csv", index=False)
    table = read_vectors(tmp_path / "again.csv", target="yield", columns=["temp", "layers", "solvent", "volume"])
    pooled = PreviousRecipes.read(recipe_run[0]).pooled(table)
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
def test_second_rounds_of_other_recipes_are_refused(recipe_run, recipes, tmp_path, renamed, message):
    frame = pd.read_csv(recipes / "t.csv").drop(columns="run")
    frame.rename(columns=renamed).to_csv(tmp_path / "new.csv", index=False)
    options = ["--columns", "all", "--target", renamed.get("yield", "yield"), "--previous", recipe_run[0]]
    result = call("design", tmp_path / "new.csv", *options, "--out", tmp_path / "run")
    assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
    assert not (tmp_path / "run").exists()


def test_a_column_that_is_called_like_one_of_the_predictions_has_second_rounds(recipes, tmp_path):
    frame = pd.read_csv(recipes / "t.csv")[["temp", "layers", "yield"]].rename(columns={"temp": "mean"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    first = call("design", tmp_path / "t.csv", "--columns", "all", *RECIPES, "--out", tmp_path / "first")
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


def test_labels_that_rounds_write_differently_are_refused(recipe_run, recipes, tmp_path):
    frame = pd.read_csv(recipes / "t.csv").drop(columns="run").replace("dmf", "DMF")
    frame.to_csv(tmp_path / "new.csv", index=False)
    options = ["--columns", "all", *RECIPES, "--previous", recipe_run[0], "--out", tmp_path / "run"]
    result = call("design", tmp_path / "new.csv", *options)
    assert result.exit_code == 2 and "'solvent' of both rounds" in result.stderr, result.output
    assert "has 'DMF' and 'dmf'; write labels that are the same alike" in " ".join(result.stderr.split())


SETTINGS = ["temp", "layers", "solvent", "volume"]


def read(table, tmp_path, **options):
    """A table of recipes, as the command reads that of a second round."""
    table.to_csv(tmp_path / "new.csv", index=False)
    options = {"target": "yield", "columns": SETTINGS, "on_constant": "keep"} | options
    return read_vectors(tmp_path / "new.csv", **options)


def made(run, **changes):
    """The designs of a run, with changes to their settings, measured as was promised."""
    designs = pd.read_csv(run / "designs.csv")
    return designs[SETTINGS].assign(**{"yield": designs["mean"]}, **changes), designs


@pytest.mark.slow
def test_a_killed_second_round_goes_on_to_the_same_recipes(second, recipe_run, tmp_path, monkeypatch):
    table, run, _ = second
    out = tmp_path / "run"
    args = ["design", table, "--columns", "all", *RECIPES, "--previous", recipe_run[0], "--out", out]
    assert killed_at(60, monkeypatch, lambda: main([*map(str, args)], standalone_mode=False))
    resumed = call(*args)
    assert resumed.exit_code in (0, 3) and "going on with the unfinished run" in resumed.stdout, resumed.output
    for name in ("designs.csv", "report.html", "last_round.csv", "measured.csv.gz"):
        assert (out / name).read_bytes() == (run / name).read_bytes()


def test_a_run_is_not_replaced_by_its_own_second_round(second, recipe_run, tmp_path):
    copy = shutil.copytree(recipe_run[0], tmp_path / "copy")
    args = ["--columns", "all", *RECIPES, "--previous", copy, "--out", copy, "--overwrite"]
    result = call("design", second[0], *args)
    assert result.exit_code == 2 and "is part of the run in" in result.stderr, result.output
    assert (copy / "designs.csv").read_bytes() == (recipe_run[0] / "designs.csv").read_bytes()


def test_designs_are_found_by_settings_as_a_laboratory_rounds_them(recipe_run, tmp_path):
    table, designs = made(recipe_run[0], temp=lambda frame: frame["temp"].round(0))
    check = PreviousRecipes.read(recipe_run[0]).check(read(table, tmp_path))
    assert check.table["id"].tolist() == designs["id"].tolist()
    np.testing.assert_allclose(check.table["measured"], designs["mean"])
    np.testing.assert_allclose(check.table["judge"], designs["judge"])


@pytest.mark.parametrize(
    "change",
    [{"temp": lambda frame: frame["temp"] + 3}, {"layers": lambda frame: frame["layers"] + 1}, {"solvent": "oil"}],
)
def test_other_recipes_are_not_taken_for_designs(recipe_run, tmp_path, change):
    earlier = PreviousRecipes.read(recipe_run[0])
    (alone,), designs = [earlier.designs.index[:1]], earlier.designs
    earlier = PreviousRecipes(earlier.path, earlier.table, designs.loc[alone])
    table, _ = made(recipe_run[0], **change)
    check = earlier.check(read(table.head(1), tmp_path))
    assert check.n_designs == 1 and len(check.table) == 0


def test_a_failed_round_of_recipes_is_warned_of(recipe_run, tmp_path):
    table, designs = made(recipe_run[0])
    check = PreviousRecipes.read(recipe_run[0]).check(read(table.assign(**{"yield": designs["lower"] - 1}), tmp_path))
    assert check.failed and "were measured below their lower bounds" in check.warning


def test_a_round_of_another_objective_is_said_not_to_be_compared(recipe_run, tmp_path):
    check = PreviousRecipes.read(recipe_run[0]).check(read(made(recipe_run[0])[0], tmp_path), "-yield")
    assert not check.failed and len(check.table) == 0
    (said,) = check.sentences()
    assert "had another objective: it was to make 'yield' large, and this one '-yield'" in said


def test_one_measured_recipe_is_a_round(recipe_run, tmp_path):
    table = read(made(recipe_run[0])[0].head(1), tmp_path)
    pooled = PreviousRecipes.read(recipe_run[0]).pooled(table)
    assert len(pooled.y) == 81 and pooled.space.columns.whole == (1,)
    assert pooled.places[0] == f"line 2 of {recipe_run[0].name}" and pooled.places[-1] == "line 2"
    again = PreviousRecipes(tmp_path / "third", pooled, pd.DataFrame()).pooled(table)
    assert again.places[0] == f"line 2 of {recipe_run[0].name}" and again.places[-1] == "line 2 of third"


def test_a_column_that_was_held_has_whole_numbers_again(recipe_run, tmp_path):
    earlier = PreviousRecipes.read(recipe_run[0])
    held = shaped_space(earlier.table.space, earlier.table.X, ["layers=3"], [])
    earlier = PreviousRecipes(earlier.path, dataclasses.replace(earlier.table, space=held), earlier.designs)
    new, _ = made(recipe_run[0])
    assert earlier.pooled(read(new, tmp_path)).space.columns.whole == (1,)
    assert earlier.pooled(read(new, tmp_path), real=["layers"]).space.columns.whole == ()
    fraction = new.assign(layers=[2.5, *new["layers"][1:]])
    assert earlier.pooled(read(fraction, tmp_path)).space.columns.whole == ()
