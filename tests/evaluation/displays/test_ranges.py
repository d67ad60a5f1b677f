"""Ranges of columns: designs beside the measured rows."""

import numpy as np
import pytest

from braidkit.evaluation import ColumnRangesDisplay
from braidkit.exceptions import InvalidParameterError


def test_each_column_that_varies_is_drawn_on_the_scale_of_the_data(check_nothing_is_cut_off):
    measured = np.column_stack([np.linspace(0, 100, 101), np.full(101, 5.0), np.linspace(-1, 1, 101)])
    display = ColumnRangesDisplay([[50.0, 5, 2], [50, 5, 2]], measured, ["$temp$", "held", "pH"]).plot()
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["\\$temp\\$\n0 to 100", "pH\n-1 to 1"]
    drawn = {line.get_label(): line.get_xdata().tolist() for line in display.ax_.lines}
    assert drawn == {"measured rows": [0.5, 0.5], "designs": [0.5, 1.5]}
    check_nothing_is_cut_off(display.figure_)


def test_columns_without_names_are_refused():
    with pytest.raises(InvalidParameterError, match="names must be 2 texts"):
        ColumnRangesDisplay([[1.0, 2.0]], [[1.0, 2.0]], ["a"])
    with pytest.raises(InvalidParameterError, match="designs must be finite"):
        ColumnRangesDisplay([[1.0]], [[1.0, 2.0]], ["a", "b"])
