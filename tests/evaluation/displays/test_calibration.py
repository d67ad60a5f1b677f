import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from braidkit.evaluation import CalibrationReport
from braidkit.evaluation.displays import CalibrationDisplay


def report(level=None, deciles=10):
    groups = [("held out", "all", 0.9, 0.8), ("backtest", "all", 1.0, 0.1), ("designs", "all", 0.4, 0.3)]
    for by in ("mean", "penalty"):
        groups += [("held out", f"{by} decile {i + 1}", 0.9 - 0.02 * i, 0.5) for i in range(deciles)]
    coverage = pd.DataFrame(groups, columns=["rows", "group", "one_sided", "two_sided"])
    coverage["one_sided_low"], coverage["one_sided_high"] = coverage["one_sided"] - 0.1, coverage["one_sided"] + 0.05
    return CalibrationReport(coverage, level)


def test_shares_by_decile_and_beyond_are_drawn(check_nothing_is_cut_off):
    display = CalibrationDisplay.from_report(report(level=0.95)).plot()
    left, right = display.axes_
    for ax in display.axes_:
        curves = [line.get_ydata() for line in ax.lines]
        np.testing.assert_allclose(curves[0], 0.9 - 0.02 * np.arange(10))
        np.testing.assert_allclose(curves[1], 0.5)
        assert [0.95, 0.95] in [list(curve) for curve in curves]
    whole = [list(line.get_ydata()) for line in left.lines if len(line.get_ydata()) == 3]
    assert whole == [[0.9, 1.0, 0.4], [0.8, 0.1, 0.3]]
    assert [label.get_text() for label in left.get_xticklabels()][-3:] == ["held\nout", "backtest", "designs"]
    assert left.get_xlabel() == "decile of the predicted mean" and right.get_xlabel() == "decile of the penalty"
    check_nothing_is_cut_off(display.figure_)


@pytest.mark.parametrize("deciles", [0, 10])
def test_calibration_display_draws_on_given_axes_also_without_deciles(deciles):
    figure, axes = pyplot.subplots(1, 2)
    display = CalibrationDisplay(report(deciles=deciles)).plot(axes)
    assert list(display.axes_) == list(axes) and display.figure_ is figure


def test_from_an_estimator(run):
    display = CalibrationDisplay.from_estimator(*run, backtest=False, random_state=0).plot()
    expected = CalibrationReport.from_estimator(*run, backtest=False, random_state=0)
    assert display.report.coverage.equals(expected.coverage)
