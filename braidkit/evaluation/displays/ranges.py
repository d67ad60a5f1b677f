"""Columns of designs that are rows of numbers, beside those of the measured rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidkit.evaluation.arguments import read_array
from braidkit.evaluation.displays._drawing import BLUE, GREY, new_axes, plain
from braidkit.exceptions import InvalidParameterError


class ColumnRangesDisplay:
    """Each column of designs beside that of the measured rows, on the scale of the latter's range, 0 to 1.

    A line goes from the 5 to the 95 % quantile, and a dot marks the median. Columns that are the same in all rows are
    left out.

    Parameters
    ----------
    designs : ndarray of shape (n_designs, n_columns)
    measured : ndarray of shape (n, n_columns)
    names : sequence of str
        Names of the columns.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> display = ColumnRangesDisplay([[3.0, 1.0]], [[0.0, 1.0], [4.0, 3.0]], ["temp", "time"])
    >>> [label.get_text() for label in display.plot().ax_.get_yticklabels()]
    ['temp\\n0 to 4', 'time\\n1 to 3']
    """

    def __init__(self, designs: Any, measured: Any, names: Sequence[str]) -> None:
        self.measured = read_array("measured", measured, None, None)
        self.designs = read_array("designs", designs, None, self.measured.shape[1])
        if len(names) != self.measured.shape[1]:
            raise InvalidParameterError(f"names must be {self.measured.shape[1]} texts, one a column; got {names!r}.")
        self.names = list(names)

    def plot(self, ax: Any = None) -> ColumnRangesDisplay:
        """Draw on `ax`, or on a new figure."""
        low, high = self.measured.min(axis=0), self.measured.max(axis=0)
        columns = np.flatnonzero(low < high)
        self.figure_, self.ax_ = new_axes(ax, height=1.2 + 0.45 * max(1, len(columns)))
        for rows, colour, shift, label in (
            (self.measured, GREY, 0.12, "measured rows"),
            (self.designs, BLUE, -0.12, "designs"),
        ):
            scaled = (rows[:, columns] - low[columns]) / (high - low)[columns]
            q05, median, q95 = np.quantile(scaled, [0.05, 0.5, 0.95], axis=0)
            heights = np.arange(len(columns))[::-1] + shift
            self.ax_.hlines(heights, q05, q95, color=colour, linewidth=2)
            self.ax_.plot(median, heights, "o", color=colour, markersize=5, label=label)
        self.ax_.set_yticks(
            np.arange(len(columns))[::-1], [plain(f"{self.names[i]}\n{low[i]:.4g} to {high[i]:.4g}") for i in columns]
        )
        self.ax_.set_ylim(-0.6, len(columns) - 0.4)
        self.ax_.tick_params(axis="y", length=0)
        self.ax_.set_xlabel("place in the measured range, 5 to 95 % and median")
        self.ax_.spines[["left", "top", "right"]].set_visible(False)
        self.ax_.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0)
        return self
