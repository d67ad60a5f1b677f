"""`braidkit design --previous`: a second round learns from both, and is told how the first one did."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from braidkit import SequenceSpace
from braidkit.cli.measured import read_measured, write_measured
from braidkit.cli.rounds import PreviousSequences
from braidkit.datasets import read_table
from braidkit.datasets.table import MeasuredTable
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError, InvalidTargetError
from braidkit.persistence import read_json, saved_digest
from tests.cli.conftest import design

RUN = ["--target", "mrl", "--n", "6", "--max-iter", "2", "--reward", "bootstrap", "--quiet"]


@pytest.fixture(scope="module")
def measured_designs(configured, tmp_path_factory):
    """A table of the first round's designs, measured as the reward promised, and of two others."""
    designs = pd.read_csv(configured / "designs.csv")
    rows = [*designs["sequence"], "GGGGGGGA", "AAAAAAAC"]
    y = [*(designs["mean"] + 0.01), 7.0, 0.0]
    path = tmp_path_factory.mktemp("second") / "new.csv"
    pd.DataFrame({"sequence": rows, "mrl": y}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def second(configured, measured_designs, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run2"
    result = design(measured_designs, *RUN[:-1], "--previous", configured, "--out", out)
    assert result.exit_code in (0, 3), result.output
    return out, result


def test_a_second_round_pools_the_rows_and_reuses_the_pretrained_model(second, configured, folder):
    out, result = second
    first = pd.read_csv(folder / "t.csv")
    new = pd.read_csv(configured / "designs.csv")["sequence"].tolist() + ["GGGGGGGA", "AAAAAAAC"]
    pooled = read_measured(out, SequenceSpace("DNA", 8))
    assert set(pooled.sequences) == {*first["sequence"], *new}
    values = dict(zip(pooled.sequences, pooled.y, strict=True))
    assert values["GGGGGGGA"] == 7.0 and values[first["sequence"][0]] == first["mrl"][0]
    assert "80 of the run before" in result.stdout
    assert saved_digest(out / "pretrained") == saved_digest(configured / "pretrained")


def test_a_second_round_proposes_nothing_that_was_measured(second):
    out, _ = second
    pooled = read_measured(out, SequenceSpace("DNA", 8))
    designs = pd.read_csv(out / "designs.csv")
    assert len(designs) == 6 and not set(designs["sequence"]) & set(pooled.sequences)


def test_a_second_round_reports_what_was_promised_and_measured(second, configured):
    out, result = second
    n = len(pd.read_csv(configured / "designs.csv"))
    table = pd.read_csv(out / "last_round.csv")
    assert len(table) == n and table["holds"].all()
    np.testing.assert_allclose(table["measured"], table["mean"] + 0.01, rtol=1e-4)
    assert f"Of the {n} designs of the round before, {n} were measured" in result.stdout
    page = (out / "report.html").read_text()
    assert "The round before: promised and measured" in page and f"{n} were measured" in page
    assert read_json(out / "run.json")["last_round"][0].startswith(f"Of the {n} designs")
    assert "warning: The designs of the round before" not in result.stderr


def test_a_round_that_failed_is_warned_of(configured, tmp_path):
    designs = pd.read_csv(configured / "designs.csv")
    rows = {"sequence": designs["sequence"], "mrl": np.linspace(-9, -8, len(designs))}
    pd.DataFrame(rows).to_csv(tmp_path / "new.csv", index=False)
    result = design(tmp_path / "new.csv", *RUN, "--previous", configured, "--out", tmp_path / "run")
    assert result.exit_code in (0, 3), result.output
    assert "warning: The designs of the round before were measured below their lower bounds" in result.stderr
    assert 'class="warning">The designs of the round before' in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("sequence,mrl\nMKVLAAGW,1\nMKVLAAGY,2\n", [], "is a run on 8-letter DNA, but the table has 8-letter protein"),
        ("sequence,mrl\nACGTA,1\nACGTC,2\n", [], "is a run on 8-letter DNA, but the table has 5-letter DNA"),
        ("sequence,load\nACGTACGT,1\nACGTACGA,2\n", ["--target", "load"], "measured mrl, and the table measures load"),
    ],
)
def test_rounds_of_something_else_are_refused(configured, tmp_path, text, options, message):
    (tmp_path / "new.csv").write_text(text)
    given = RUN[2:] + (options or RUN[:2])
    result = design(tmp_path / "new.csv", *given, "--previous", configured, "--out", tmp_path / "run")
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert not (tmp_path / "run").exists()


def test_places_without_a_run_are_refused(measured_designs, configured, tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        result = design(measured_designs, *RUN, "--previous", place, "--out", tmp_path / "run")
        assert result.exit_code == 2 and "is no run of braidkit design that has ended" in result.stderr
    result = design(measured_designs, *RUN, "--columns", "mrl", "--previous", configured, "--out", tmp_path / "run")
    assert result.exit_code == 2 and "on sequences, not on recipes; pass a run on recipes" in result.stderr, (
        result.output
    )
    result = design(measured_designs, *RUN, "--previous", configured, "--out", configured, "--overwrite")
    assert result.exit_code == 2 and "is part of the run in" in result.stderr
    given = ["--previous", configured, "--pretrained", configured / "pretrained", "--out", configured, "--overwrite"]
    result = design(measured_designs, *RUN, *given)
    assert result.exit_code == 2 and "is part of the run in" in result.stderr


@pytest.mark.parametrize("row", ["5,x,1", "ACGTACGT,x,1", "ACGTACGT,1,", "ACGTACGT,nan,1"])
def test_damaged_designs_of_the_round_before_are_refused(measured_designs, configured, tmp_path, row):
    copy = shutil.copytree(configured, tmp_path / "copy")
    (copy / "designs.csv").write_text(f"sequence,mean,lower\n{row}\n")
    result = design(measured_designs, *RUN, "--previous", copy, "--out", tmp_path / "new")
    assert result.exit_code == 2 and "designs.csv cannot be read" in result.stderr, result.output


def table(sequences, y, **more):
    settings = {"n_rows": len(sequences), "n_averaged": 0, "dropped": {}, "targets": ("mrl",)}
    y = {name: np.asarray(values, dtype=float) for name, values in {"y": y, **more}.items()}
    return MeasuredTable(sequences=list(sequences), space=SequenceSpace("DNA", 2), **settings, **y)


def pool(old, new, tmp_path):
    return PreviousSequences(tmp_path, old, pd.DataFrame()).pooled(new)


def test_sequences_of_both_rounds_are_averaged(tmp_path):
    both = pool(table(["AA", "CC"], [1, 2]), table(["CC", "GG"], [4, 5]), tmp_path)
    assert both.sequences == ["AA", "CC", "GG"] and both.y.tolist() == [1, 3, 5]
    assert (both.n_rows, both.n_averaged, both.y_error, both.sample_weight) == (4, 1, None, None)


def test_errors_and_weights_of_both_rounds_count(tmp_path):
    both = pool(table(["AA"], [1], y_error=[1]), table(["AA", "CC"], [4, 7], y_error=[0.5, 1]), tmp_path)
    np.testing.assert_allclose(both.y, [(1 + 4 * 4) / 5, 7])
    np.testing.assert_allclose(both.y_error, [5**-0.5, 1])
    both = pool(table(["AA"], [1], sample_weight=[3]), table(["AA"], [5], sample_weight=[1]), tmp_path)
    assert both.y.tolist() == [2] and both.sample_weight.tolist() == [4]
    one = pool(table(["AA"], [1], y_error=[1]), table(["CC"], [4]), tmp_path)
    assert one.y_error is None and "standard errors left out, which only one round has" in one.describe()
    with pytest.raises(InvalidParameterError, match="measured mrl, and the table measures load"):
        pool(table(["AA"], [1]), dataclasses.replace(table(["CC"], [2]), targets=("load",)), tmp_path)
    with pytest.raises(IncompatibleModelError, match="2-letter DNA, but the table has 2-letter RNA"):
        pool(table(["AA"], [1]), dataclasses.replace(table(["CC"], [2]), space=SequenceSpace("RNA", 2)), tmp_path)


@pytest.mark.parametrize("more", [{}, {"y_error": [0.1, np.nan]}, {"sample_weight": [3, 0.5]}])
def test_measured_rows_come_back_as_they_were_written(tmp_path, more):
    before = table(["AA", "CG"], [1 / 3, -2e-7], **more)
    write_measured(before, tmp_path / "measured.csv.gz")
    after = read_measured(tmp_path, before.space)
    assert after.sequences == before.sequences and after.targets == before.targets
    for name in ("y", "y_error", "sample_weight"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_measured_rows_of_several_targets_and_gap_letters_come_back(tmp_path):
    space = SequenceSpace("-ACGT", 2)
    before = dataclasses.replace(
        table(["-A", "CG"], [1, 2]), y=np.array([[1.0, 2.0], [3.0, 4.0]]), targets=("kd", "expression: 1"), space=space
    )
    write_measured(before, tmp_path / "measured.csv.gz")
    after = read_measured(tmp_path, space)
    assert after.sequences == ["-A", "CG"] and after.targets == ("kd", "expression: 1")
    np.testing.assert_array_equal(after.y, before.y)


def test_rounds_of_several_lengths_need_not_have_all_of_them(tmp_path):
    space = SequenceSpace("DNA", (1, 3), padding="left")
    old = dataclasses.replace(table(["A", "ACG"], [1, 2]), space=space)
    both = pool(old, table(["CC", "GG"], [3, 4]), tmp_path)
    assert both.space == space and both.sequences == ["A", "ACG", "CC", "GG"]
    with pytest.raises(IncompatibleModelError, match="on 1 to 3-letter DNA, but the table has 4-letter DNA"):
        pool(old, dataclasses.replace(table(["ACGT"], [3]), space=SequenceSpace("DNA", 4)), tmp_path)


def test_errors_that_one_round_has_of_a_target_weigh_nothing(tmp_path):
    several = {"targets": ("a", "b")}
    old = dataclasses.replace(table(["AA", "CC"], [[1, 1], [2, 2]], y_error=[[1, np.nan]] * 2), **several)
    new = dataclasses.replace(table(["AA"], [[4, 4]], y_error=[[0.5, 0.1]]), **several)
    both = pool(old, new, tmp_path)
    np.testing.assert_allclose(both.y, [[(1 + 4 * 4) / 5, 2.5], [2, 2]])
    np.testing.assert_allclose(both.y_error, [[5**-0.5, np.nan], [1, np.nan]])
    assert "standard errors left out, which only one round has" in both.notes
    with pytest.raises(InvalidParameterError, match="measures b, a; name the same by --target, in that order"):
        pool(old, dataclasses.replace(new, targets=("b", "a")), tmp_path)


def test_measurements_that_are_all_equal_are_a_round(configured, measured_designs, tmp_path):
    rows = pd.read_csv(measured_designs).head(2).assign(mrl=0)
    rows.to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(InvalidTargetError, match="nothing to learn from a constant target"):
        read_table(tmp_path / "new.csv", target="mrl")
    new = read_table(tmp_path / "new.csv", target="mrl", on_constant="keep")
    assert PreviousSequences.read(configured).pooled(new).y[-2:].tolist() == [0, 0]
    (said,) = PreviousSequences.read(configured).check(new, "-mrl").sentences()
    assert "it was to make 'mrl' large, and this one '-mrl'. Its designs are not compared" in said
