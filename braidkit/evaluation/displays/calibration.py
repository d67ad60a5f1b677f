"""Share of rows for which a lower bound holds: by decile, beyond the data, and on designs."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidkit.evaluation.calibration import CalibrationReport
from braidkit.evaluation.displays._drawing import BLUE, ORANGE, given_axes, pyplot
from braidkit.exceptions import InvalidParameterError


class CalibrationDisplay:
    """Coverage of a lower bound: by decile of the predicted mean (left) and of the penalty (right).

    One-sided shares have their 95 % intervals; beside the deciles of the mean stand all held-out rows and, where the
    report has them, the backtest and the designs.

    Parameters
    ----------
    report : CalibrationReport

    Attributes
    ----------
    axes_ : ndarray of two matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, report: CalibrationReport) -> None:
        if not isinstance(report, CalibrationReport):
            raise InvalidParameterError(f"report must be a CalibrationReport; got {report!r:.60}.")
        self.report = report

    @classmethod
    def from_report(cls, report: CalibrationReport) -> CalibrationDisplay:
        """Build from a report."""
        return cls(report)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, **options: Any) -> CalibrationDisplay:
        """Build from a fitted ConservativeDiffusionFinetuner; see `CalibrationReport.from_estimator`."""
        return cls(CalibrationReport.from_estimator(estimator, X, y, **options))

    def plot(self, axes: Any = None) -> CalibrationDisplay:
        """Draw on two axes, side by side, or on a new figure."""
        if axes is None:
            self.figure_, self.axes_ = pyplot().subplots(
                1, 2, sharey=True, figsize=(9.0, 3.8), width_ratios=(17, 11), layout="constrained"
            )
        else:
            self.axes_ = given_axes(axes, 2)
            self.figure_ = self.axes_[0].figure
        coverage = self.report.coverage
        for ax, by in zip(self.axes_, ("mean", "penalty"), strict=True):
            deciles = coverage[coverage["group"].str.startswith(f"{by} decile")]
            self._draw(ax, np.arange(1, len(deciles) + 1), deciles, line=True)
            ax.set_xlabel("decile of the predicted mean" if by == "mean" else "decile of the penalty")
            ax.set_xticks(range(1, len(deciles) + 1))
            if self.report.level is not None:
                ax.axhline(self.report.level, color="black", linewidth=0.8, linestyle=":")
            ax.spines[["top", "right"]].set_visible(False)
        whole = coverage[coverage["group"] == "all"]
        left = self.axes_[0]
        first = len(left.get_xticks()) + 2
        places = first + 2.5 * np.arange(len(whole))
        self._draw(left, places, whole, line=False)
        left.set_xticks(
            [*left.get_xticks(), *places],
            [*(f"{tick:g}" for tick in left.get_xticks()), *(rows.replace(" ", "\n") for rows in whole["rows"])],
        )
        left.tick_params(axis="x", labelsize="small")
        self.axes_[1].tick_params(axis="x", labelsize="small")
        left.set_ylim(-0.03, 1.03)
        left.set_ylabel("share of rows")
        left.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0)
        return self

    def _draw(self, ax: Any, places: np.ndarray, rows: Any, *, line: bool) -> None:
        """Both shares of some rows of the report."""
        style = {"linewidth": 0.8, "linestyle": "-" if line else "none"}
        label = {"one_sided": "y at or above the lower bound", "two_sided": "y within the penalty of the mean"}
        ax.vlines(places, rows["one_sided_low"], rows["one_sided_high"], color=BLUE, linewidth=2)
        for column, marker, colour in (("one_sided", "o", BLUE), ("two_sided", "D", ORANGE)):
            name = {} if line else {"label": label[column]}
            ax.plot(places, rows[column], marker, color=colour, markersize=5, **style, **name)
