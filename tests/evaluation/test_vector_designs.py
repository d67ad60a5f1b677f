"""Designs of vectors: tables, batches, scores and reports, in the columns of the data."""

import numpy as np
import pandas as pd
import pytest

from braidkit import BootstrapReward, ConservativeDiffusionFinetuner, VectorSpace
from braidkit.evaluation import CalibrationReport, design_table, report, score_table, select, write_designs
from braidkit.evaluation.row_distance import RowDistance
from braidkit.evaluation.vector_designs import rows_of
from braidkit.exceptions import InvalidParameterError

NAMES = ["temp", "lower", "water", "dmf", "volume"]


def recipes(n=90, seed=0):
    rng = np.random.default_rng(seed)
    water = rng.integers(0, 2, n)
    X = np.column_stack([rng.uniform(20, 90, n), rng.integers(1, 6, n), water, 1 - water, np.full(n, 50.0)])
    return X, -(((X[:, 0] - 60) / 20) ** 2) + X[:, 1] + 2 * X[:, 3]


@pytest.fixture(scope="module")
def fitted():
    X, y = recipes()
    space = VectorSpace.from_data(X, one_of={"solvent": [2, 3]}, names=NAMES)
    finetuner = ConservativeDiffusionFinetuner(
        reward=BootstrapReward(), space=space, max_iter=4, batch_size=64, random_state=0
    )
    return finetuner.fit(X, y), X, y


@pytest.fixture(scope="module")
def table(fitted):
    finetuner, X, y = fitted
    return design_table(finetuner, X, y, n_designs=10, n_candidates=200, random_state=0)


def test_a_table_has_the_columns_of_the_data_with_what_is_predicted(fitted, table):
    finetuner, X, y = fitted
    # A column of the data may not be taken for one of the table.
    assert list(table)[:5] == ["id", "temp", "column lower", "solvent", "volume"]
    rows = rows_of(finetuner, table)
    np.testing.assert_allclose(finetuner.reward_.predict_lower(rows), table["lower"])
    np.testing.assert_allclose(finetuner.judge_.predict(rows), table["judge"])
    assert table["lower"].is_monotonic_decreasing
    assert set(table["column lower"]) <= {1, 2, 3, 4, 5} and set(table["volume"]) == {50}
    assert (table["nearest_value"] == y[table["nearest"]]).all()
    expected = RowDistance(finetuner.space_, X)
    np.testing.assert_allclose(expected.nearest(rows)[1], table["distance"])
    assert table.attrs["n_drawn"] == 200 and table.attrs["n_doubtful"] <= 10


def test_designs_differ_by_a_tenth_of_what_rows_do_or_say_so(fitted, table):
    finetuner, X, y = fitted
    distance = RowDistance(finetuner.space_, X)

    def least(table):
        points = distance.coordinates(rows_of(finetuner, table))
        return min(np.linalg.norm(a - b) for i, a in enumerate(points) for b in points[:i]) / distance.typical()

    assert least(table) >= 0.1 or any("much alike" in text for text in table.attrs["warnings"])
    few = design_table(finetuner, X, y, n_designs=10, n_candidates=200, max_identity=0.8, random_state=0)
    assert len(few) < 10 and least(few) >= 0.2


def test_each_column_counts_alike_in_a_distance():
    """Two rows at random differ by 2 in squares, of a number in deviations and of a label, whatever its shares."""
    rng = np.random.default_rng(0)
    labels = np.eye(3)[rng.choice(3, 4000, p=[0.8, 0.15, 0.05])]
    X = np.column_stack([1e4 * rng.normal(size=4000), labels, np.full(4000, 7.0)])
    space = VectorSpace.from_data(X, one_of={"a": [1, 2, 3]})
    points = RowDistance(space, X).coordinates(X)
    squares = np.square(points[::2] - points[1::2])
    assert squares[:, 0].mean() == pytest.approx(1, rel=0.1)
    assert squares[:, 1:4].sum(axis=1).mean() == pytest.approx(1, rel=0.1)
    assert (squares[:, 4] == 0).all()


def test_columns_at_an_end_of_their_range_are_named(fitted, table):
    finetuner, X, y = fitted
    rows = rows_of(finetuner, table)
    ends = np.isclose(rows[:, 0], X[:, 0].min()) | np.isclose(rows[:, 0], X[:, 0].max())
    assert (table["at_bound"] == np.where(ends, "temp", "")).all()


def test_a_batch_has_the_best_rows_as_controls(fitted):
    finetuner, X, y = fitted
    batch = select(finetuner, X, y, n_designs=4, n_candidates=100, n_controls=2, random_state=0)
    assert batch["role"].tolist() == ["design"] * 4 + ["best measured"] * 2
    assert batch["measured"].dropna().tolist() == np.sort(y)[-2:][::-1].tolist()
    assert len(select(finetuner, X, n_designs=4, n_candidates=100, random_state=0)) == 4
    for wrong, words in (({"gc": (0, 1)}, "gc is a limit"), ({"sites": ["A"]}, "sites is a limit")):
        with pytest.raises(InvalidParameterError, match=words):
            select(finetuner, X, y, **wrong)
    with pytest.raises(InvalidParameterError, match="pass X"):
        select(finetuner, n_designs=4)


def test_rows_are_scored(fitted):
    finetuner, X, y = fitted
    table = score_table(finetuner, X[:5], X, y)
    assert (table["distance"] == 0).all() and (table["nearest_value"] == y[:5]).all()
    assert ("log_likelihood" in table) == finetuner.pretrained_.knows_law


def test_files_are_safe_for_spreadsheets(table, tmp_path):
    table = table.rename(columns={"temp": "=temp"}).assign(solvent="+1")
    write_designs(table, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["designs.csv"]
    written = pd.read_csv(tmp_path / "designs.csv")
    assert "'=temp" in written and set(written["solvent"]) == {"'+1"}


def test_a_page_shows_the_columns(fitted, table, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    finetuner, X, y = fitted
    calibration = CalibrationReport.from_estimator(finetuner, X, y, backtest=False, random_state=0)
    options = {"calibration": calibration, "random_state": 0}
    report(finetuner, X, y, path=tmp_path / "page.html", designs=table, **options)
    page = (tmp_path / "page.html").read_text()
    assert "Columns of the designs beside those of the data" in page and "solvent: one of water, dmf" in page
    assert "edit distance" not in page and 'data-name="solvent"' in page
    with pytest.raises(InvalidParameterError, match="no column 'temp'"):
        report(finetuner, X, y, path=tmp_path / "no.html", designs=table.drop(columns="temp"), **options)


def test_columns_of_a_data_frame_keep_their_names():
    X, y = recipes(60)
    frame = pd.DataFrame(X[:, [0, 1]], columns=["temp", "layers"])
    finetuner = ConservativeDiffusionFinetuner(reward=BootstrapReward(), max_iter=2, random_state=0).fit(frame, y)
    assert finetuner.space_.columns.names == ("temp", "layers") and finetuner.space_.columns.whole == (1,)
    designs = design_table(finetuner, frame, y, n_designs=3, n_candidates=20, random_state=0)
    assert list(designs)[1:3] == ["temp", "layers"] and designs["layers"].dtype == np.int64
