"""Filtered columns of pandas, whose labels are not 0 to n - 1, are read by position everywhere."""

import numpy as np
import pandas as pd
import pytest

from braidkit.evaluation import (
    CalibrationReport,
    DistanceDisplay,
    KmerScatterDisplay,
    SequenceLogoDisplay,
    design_table,
    discriminability,
    edit_distances,
    nearest,
    select,
    validity_measures,
    validity_report,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def columns(run):
    """Sequences and measurements as filtered columns in another order, and as plain lists."""
    frame = pd.DataFrame({"seq": run.X, "y": run.y}).sort_values("y").iloc[::2]
    return (frame["seq"], frame["y"]), (frame["seq"].tolist(), frame["y"].tolist())


def table_of_designs(estimator, X, y):
    return design_table(estimator, X, y, n_designs=5, n_candidates=20, random_state=0)


def batch(estimator, X, y):
    return select(estimator, X, y, n_designs=5, n_candidates=50, n_controls=2, random_state=0)


def coverage(estimator, X, y):
    return CalibrationReport.from_reward(estimator.reward_, X, y, backtest=False, random_state=0).coverage


@pytest.mark.parametrize("function", [table_of_designs, batch, coverage])
def test_filtered_columns_give_the_same_table(run, columns, function):
    filtered, plain = (function(run.finetuner, *data) for data in columns)
    pd.testing.assert_frame_equal(filtered, plain)


def test_filtered_columns_give_the_same_distances(run, columns):
    options = {"designs": columns[0][0].head(7), "random_state": 0}
    filtered, plain = (DistanceDisplay.from_estimator(run.finetuner, *data, **options) for data in columns)
    np.testing.assert_array_equal(filtered.distance, plain.distance)
    assert filtered.reference == plain.reference == max(columns[1][1])


@pytest.mark.parametrize(
    "measure",
    [
        lambda X: edit_distances(X[:5], X).tolist(),
        lambda X: [part.tolist() for part in nearest(X[:5], X)],
        lambda X: validity_measures(X[:60], X[60:], random_state=0),
        lambda X: validity_report(X[:40], X, random_state=0).to_numpy().tolist(),
        lambda X: discriminability(X[:60], X[60:], k=2, random_state=0),
        lambda X: KmerScatterDisplay.from_sequences(X[:60], X[60:]).designs.tolist(),
        lambda X: SequenceLogoDisplay.from_sequences(X).shares.tolist(),
    ],
)
def test_filtered_columns_give_the_same_measures(columns, measure):
    (filtered, _), (plain, _) = columns
    assert measure(filtered) == measure(plain)
