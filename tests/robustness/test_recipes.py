"""Odd tables of recipes: each is refused in a sentence before any work, or told of in a warning."""

import dataclasses
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from braidkit import VectorSpace
from braidkit.cli.rounds import PreviousRecipes
from braidkit.datasets import read_vectors
from braidkit.diffusion import MixtureLaw
from braidkit.evaluation.designs import csv_text
from braidkit.evaluation.vector_designs import check_names, design_columns
from braidkit.exceptions import BraidkitError, InvalidDesignError, InvalidParameterError
from tests.cli.conftest import call, recipe_run, recipes  # noqa: F401

BESIDE = np.random.default_rng(0).normal(size=80)
SETTINGS = ["temp", "layers", "solvent", "volume"]


def units(unit):
    return lambda frame: [f"{number}{unit}" for number in frame["temp"]]


REFUSED = [
    ({}, ["--bound", "temp=30:40", "--fix", "temp=80"], "--fix temp=80 is outside of --bound temp=30:40"),
    ({}, ["--bound", "layers=1:2", "--fix", "layers=3"], "--fix layers=3 is outside of --bound layers=1:2"),
    ({}, ["--bound", "volume=60:70"], "volume is 50 in all rows, which tell nothing of another value"),
    ({}, ["--bound", "volume=:40"], "--bound volume=:40: the least, 50, is above 40"),
    ({"temp": units(" C")}, [], "has numbers with a unit, such as '.* C'; write the numbers alone, and ' C' into the"),
    ({"temp": units("%")}, [], "has numbers with a unit, such as '.*%'; write the numbers alone"),
    ({"layers": lambda frame: [f"{n} coats" for n in frame["layers"]]}, [], "' coats' into the header"),
    ({"solvent": ["\u00e9t", "e\u0301t"] * 40}, [], r"has 'e\\u0301t' and '\\xe9t'; write labels that are the same"),
    ({"solvent": ["a b", "a  b"] * 40}, [], "has 'a  b' and 'a b'; write labels that are the same alike"),
    ({"solvent": ["m2", "m\u00b2"] * 40}, [], "write labels that are the same alike"),
    (
        {"y_mean": BESIDE},
        ["--minimise"],
        "column 'y_mean' is called as that of a prediction of 'y' in tables of designs",
    ),
    ({"y_upper": BESIDE}, ["--objective", "2*y"], "column 'y_upper' is called as that of a prediction"),
    ({"temp": [np.inf, *range(79)]}, [], "line 2 of .*: 'temp' is 'inf', not a finite number"),
    ({"temp": 1e300}, [], "'temp' is 1e\\+300, too large to compute with"),
    ({"temp": ["1,001", "2,002"] * 40}, [], "may be 1.001 or 1001"),
    ({"solvent": ["water", 1] * 40}, [], "line 2 of .*: 'solvent' is 'water', not a finite number"),
]


@pytest.mark.parametrize(("columns", "options", "message"), REFUSED)
def test_an_odd_table_of_recipes_is_refused(recipes, tmp_path, columns, options, message):  # noqa: F811
    pd.read_csv(recipes / "t.csv").drop(columns="run").assign(**columns).to_csv(tmp_path / "t.csv", index=False)
    args = ["--columns", "all", "--target", "y=yield", *options, "--out", tmp_path / "run"]
    result = call("design", tmp_path / "t.csv", *args)
    assert result.exit_code == 2, result.output
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "texts", [["96 wells", "384 wells"], ["2-propanol", "1-butanol", "3-hexanol"], ["4A", "5B", "6C"]]
)
def test_labels_may_begin_with_a_number(tmp_path, texts):
    pd.DataFrame({"a": [texts[i % len(texts)] for i in range(30)], "y": range(30)}).to_csv(
        tmp_path / "t.csv", index=False
    )
    assert read_vectors(tmp_path / "t.csv", target="y").space.columns.labels("a") == sorted(texts)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--fix", "temp=800"], "temp at 800, and it is 20"),
        (["--bound", "layers=7:9"], "layers at 7 to 9, and it is 1 to 5"),
    ],
)
def test_designs_beyond_all_measured_rows_are_warned_of(recipes, tmp_path, options, told):  # noqa: F811
    args = ["--columns", "all", "--target", "yield", "--alpha", "0", *options, "--out", tmp_path / "run"]
    result = call("design", recipes / "t.csv", *args)
    assert result.exit_code == 2 and f"warning: designs are to have {told}" in result.stderr, result.output


def test_names_of_columns_stay_different_beside_those_of_predictions():
    names = ["mean", "column mean", "column column mean", "column temp", "column"]
    space = VectorSpace(5, names=names)
    written = design_columns(space)
    assert written == ["column mean", "column column mean", "column column column mean", "column temp", "column"]
    check_names(space, ["a"])
    with pytest.raises(InvalidParameterError, match="rename the column, or give the target another name"):
        check_names(space.named(["a_judge", *names[1:]]), ["a"])


def test_numbers_far_from_zero_keep_the_digits_in_which_they_differ(tmp_path):
    settings = {"hertz": 1e9 + np.linspace(0, 3, 7), "date": 2.4e6 + np.arange(7) / 7, "held": np.full(7, 1234567.25)}
    table = pd.DataFrame(settings | {"plain": np.linspace(20, 90, 7), "mean": 1e9 + np.linspace(0, 3, 7)})
    (tmp_path / "t.csv").write_text(csv_text(table))
    read = pd.read_csv(tmp_path / "t.csv")
    for name, step in (("hertz", 3), ("date", 1), ("held", 1)):
        np.testing.assert_allclose(read[name], table[name], rtol=0, atol=1e-4 * step)
    assert (tmp_path / "t.csv").read_text().splitlines()[2].split(",")[3:] == ["31.6667", "1e+09"]


def test_settings_far_from_zero_are_told_apart_in_a_second_round(recipe_run, tmp_path):  # noqa: F811
    earlier = PreviousRecipes.read(recipe_run[0])
    shift = np.where(np.array(earlier.table.space.columns.all_names) == "temp", 1e9, 0.0)
    old = dataclasses.replace(earlier.table, X=earlier.table.X + shift)
    designs = earlier.designs.head(1)
    earlier = PreviousRecipes(earlier.path, old, designs.assign(temp=designs["temp"] + 1e9))
    new = earlier.designs[SETTINGS].assign(**{"yield": 1.0})
    for moved, found in ((0.5, 1), (3, 0)):
        new.assign(temp=new["temp"] + moved).to_csv(tmp_path / "new.csv", index=False)
        table = read_vectors(tmp_path / "new.csv", target="yield", columns=SETTINGS, on_constant="keep")
        assert len(earlier.check(table).table) == found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"temp": lambda frame: 1000 * frame["temp"]}, ["temp was "]),
        ({"yield": lambda frame: 1000 * frame["yield"] + 900}, ["yield was "]),
        ({}, []),
    ],
)
def test_a_second_round_in_other_units_is_told_of(recipe_run, tmp_path, changes, told):  # noqa: F811
    earlier = PreviousRecipes.read(recipe_run[0])
    frame = earlier.designs[SETTINGS].assign(**{"yield": earlier.designs["mean"]}).assign(**changes)
    frame.to_csv(tmp_path / "new.csv", index=False)
    table = read_vectors(tmp_path / "new.csv", target="yield", columns=SETTINGS, on_constant="keep")
    texts = [text for text in earlier.pooled(table).advice() if "same unit" in text]
    assert [text.startswith(start) for text, start in zip(texts, told, strict=True)] == [True] * len(told)


def test_rows_too_far_away_to_compute_with_are_refused_by_line(recipe_run, recipes, tmp_path):  # noqa: F811
    frame = pd.read_csv(recipes / "t.csv")
    frame.assign(temp=[20.0, 1e60, *[20.0] * 78]).to_csv(tmp_path / "t.csv", index=False)
    result = call("score", recipe_run[0], tmp_path / "t.csv")
    assert result.exit_code == 2 and "line 3 of" in result.stderr and "'temp' is 1e+60" in result.stderr, result.output
    with pytest.raises(InvalidDesignError, match="row 1: column 0 is 1e\\+60"):
        VectorSpace.from_data([[1.0], [2.0]]).points([[1.0], [1e60]])


SPACE = VectorSpace(3, whole=[0], one_of={"s": [1, 2]}, names=["n", "a", "b"])
CALLS = [
    (lambda: SPACE.from_frame({"n": [1], "s": ["a"]}), "must be a DataFrame"),
    (lambda: SPACE.from_frame(pd.DataFrame({"n": [1]})), "has no column 's'"),
    (lambda: SPACE.from_frame(pd.DataFrame([[1, 2, "a"]], columns=["n", "n", "s"])), "has 2 columns 'n'"),
    (
        lambda: SPACE.from_frame(pd.DataFrame({"n": [1, "x"], "s": ["a", "b"]})),
        "row 1: 'n' is 'x', not a finite",
    ),
    (lambda: SPACE.from_frame(pd.DataFrame({"n": [1, np.nan], "s": ["a", "b"]})), "row 1: 'n' is nan"),
    (lambda: SPACE.from_frame(pd.DataFrame({"n": pd.to_datetime(["2024-01-01"]), "s": ["a"]})), "holds no numbers"),
    (lambda: SPACE.from_frame(pd.DataFrame({"n": [1j], "s": ["a"]})), "holds no numbers, but complex"),
    (lambda: SPACE.points(pd.DataFrame({"n": [1], "a": ["x"], "b": [0]})), "must hold numbers"),
    (lambda: VectorSpace(1, bounds=([np.inf], [np.inf])), "a number lie between them"),
    (lambda: VectorSpace(2, one_of={"s": [0, 1]}, bounds=([2, 0], [5, 1])), "a label, are 2 to 5"),
    (lambda: MixtureLaw.fit("x"), "must be finite numbers of shape"),
    (lambda: MixtureLaw.fit(np.full((5, 2), 1e200)), "must be finite numbers of shape .*, at most 1e\\+12"),
]


@pytest.mark.parametrize(("call_of", "message"), CALLS)
def test_an_odd_call_on_rows_of_numbers_is_refused_by_name(call_of, message):
    with pytest.raises(BraidkitError, match=message):
        call_of()


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8b\x08junk", None])
def test_damaged_measurements_of_a_run_are_refused_by_name(recipe_run, recipes, tmp_path, damage):  # noqa: F811
    run = shutil.copytree(recipe_run[0], tmp_path / "run")
    file = run / "measured.csv.gz"
    content = file.read_bytes()
    for damaged in flips(content) if damage is None else [damage]:
        file.write_bytes(damaged)
        result = call("score", run, recipes / "t.csv")
        assert isinstance(result.exception, SystemExit) and str(file) in result.stderr, repr(result.exception)


def flips(content):
    """A file with a bit changed, at places of its packed text."""
    for place in range(20, len(content) - 8, len(content) // 30):
        yield content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]
