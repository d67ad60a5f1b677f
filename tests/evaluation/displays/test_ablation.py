import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from braidkit.evaluation.comparison import Comparison
from braidkit.evaluation.displays import AblationDisplay
from braidkit.exceptions import InvalidParameterError


def tick_labels(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


def test_seeds_means_and_intervals_are_drawn_in_order(check_nothing_is_cut_off, texts):
    values = {0.0: [1.0, 2.0, 3.0], 1e-3: [4.0], "calibrated": [0.0, 1.0]}
    display = AblationDisplay.from_values(values, name="MRL (ribosomes)", reference=0.5).plot()
    ax = display.ax_
    assert tick_labels(ax) == ["0", "0.001", "calibrated"]
    lines = {tuple(np.round(line.get_ydata(), 3)) for line in ax.lines}
    # Student's t with two degrees of freedom: 4.303 standard errors of 1 / sqrt(3).
    assert {(1.0, 2.0, 3.0), (-0.484, 4.484), (4.0,), (0.0, 1.0), (2.0, 4.0, 0.5)} <= lines
    assert ax.get_xlabel() == "c" and ax.get_ylabel() == "MRL (ribosomes)"
    assert texts(ax) == ["pretrained"]
    check_nothing_is_cut_off(display.figure_)


def test_from_a_comparison():
    rows = [
        {"method": method, "seed": seed, "source": source, "metric": metric, "value": value + seed}
        for seed in (0, 1)
        for method, value in (("BRAID", 1.0), ("BRAID, c = 1", 5.0))
        for source, metric in (("truth", "mean"), ("truth", "median"), ("judge", "mean"))
    ]
    empty = pd.DataFrame()
    comparison = Comparison(pd.DataFrame(rows), empty, empty)
    methods = {0.1: "BRAID", 1.0: "BRAID, c = 1"}
    display = AblationDisplay.from_comparison(comparison, methods, source="truth")
    assert {value: list(numbers) for value, numbers in display.values.items()} == {0.1: [1, 2], 1.0: [5, 6]}
    assert display.name == "mean by truth"


def test_from_a_grid_search():
    X = np.random.default_rng(0).normal(size=(60, 3))
    grid = {"alpha": [0.1, 1.0, 1000.0], "fit_intercept": [True, False]}
    search = GridSearchCV(Ridge(), grid, cv=4).fit(X, X.sum(axis=1) + 5)
    display = AblationDisplay.from_search(search, "alpha")
    assert list(display.values) == [0.1, 1.0, 1000.0] and display.parameter == "alpha"
    assert max(numbers.mean() for numbers in display.values.values()) == pytest.approx(search.best_score_)
    assert {len(numbers) for numbers in display.values.values()} == {4}
    with pytest.raises(InvalidParameterError, match="no parameter 'c'; it has: alpha, fit_intercept"):
        AblationDisplay.from_search(search, "c")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "values is empty"),
        ({0.1: []}, r"0.1 must have at least one"),
        ({1.0: [np.nan]}, r"all finite; got 1 with 1 not finite"),
    ],
)
def test_values_that_cannot_be_drawn_are_refused(values, message):
    with pytest.raises(InvalidParameterError, match=message):
        AblationDisplay.from_values(values)
