"""Compare the predictions of one round's designs with their measurements."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from braidkit.evaluation.arguments import check_table, read_measured
from braidkit.evaluation.edit_distance import as_strings

# With fewer designs a standard error is meaningless.
_FEWEST = 3


@dataclass(frozen=True)
class RoundCheck:
    """Predictions for designs, beside their measurements.

    Attributes
    ----------
    table : DataFrame
        A row for each design that was measured: the columns of the designs' table that are there of "id", "sequence"
        or the settings of a recipe, "mean", "lower" and "judge", then "measured" and "holds", whether the measurement
        is at or above the bound.
    n_designs : int
        Designs in all.
    another : str
        Why the designs cannot be compared, where the objective of the round was another.
    """

    table: pd.DataFrame
    n_designs: int
    another: str = ""

    @property
    def failed(self) -> bool:
        """Whether measurements lie below the bounds, on average by more than two standard errors."""
        if len(self.table) < _FEWEST:
            return False
        difference = self.table["measured"] - self.table["lower"]
        return bool(difference.mean() + 2 * difference.std() / len(difference) ** 0.5 < 0)

    @property
    def coverage(self) -> float:
        """Share of measured designs whose bound holds; NaN without any."""
        return float(self.table["holds"].mean())

    def sentences(self) -> list[str]:
        """The comparison in words, without the warning."""
        n = len(self.table)
        if self.another:
            return [f"The round before had another objective: {self.another}. Its designs are not compared."]
        if n == 0:
            return [f"None of the {self.n_designs:,} designs of the round before was measured: nothing to compare."]
        verb = "was" if n == 1 else "were"
        mean, lower, measured = (self.table[name].mean() for name in ("mean", "lower", "measured"))
        lines = [
            f"Of the {self.n_designs:,} designs of the round before, {n:,} {verb} measured: {measured:.3g} on average, "
            f"where the mean prediction was {mean:.3g} and the mean lower bound {lower:.3g}. The bound holds for "
            f"{int(self.table['holds'].sum()):,} of {n:,}."
        ]
        if n >= _FEWEST and self.table["mean"].nunique() > 1 and self.table["measured"].nunique() > 1:
            rank = spearmanr(self.table["mean"], self.table["measured"]).statistic
            lines.append(f"The rank correlation of prediction and measurement among them is {rank:.2f}.")
        return lines

    @property
    def warning(self) -> str | None:
        """The warning to give if the round failed; else None."""
        if not self.failed:
            return None
        return (
            "The designs of the round before were measured below their lower bounds on average: its reward promised "
            "too much. The new one learns from them. Choose a larger penalty (--c) or alpha if that happens again, and "
            "check that both rounds were measured alike."
        )


def check_round(designs: pd.DataFrame, X: Any, y: Any) -> RoundCheck:
    """Compare the predictions for designs with measurements made later.

    Parameters
    ----------
    designs : DataFrame
        With columns "sequence", "mean" and "lower", as `design_table` and `select` give.
    X : sequence of str
        Measured sequences, the designs among them.
    y : array-like of shape (n_samples,)
        Their measurements; those of one sequence are averaged.

    Returns
    -------
    check : RoundCheck

    Raises
    ------
    InvalidParameterError
        If a column is missing.

    Examples
    --------
    >>> designs = pd.DataFrame({"sequence": ["AC", "GT"], "mean": [2.0, 3.0], "lower": [1.0, 2.5]})
    >>> check = check_round(designs, ["GT", "GT", "CC"], [2.0, 2.2, 7.0])
    >>> check.table[["sequence", "measured", "holds"]].values.tolist()
    [['GT', 2.1, False]]
    """
    check_table(designs, "designs", texts=("sequence",), numbers=("mean", "lower"))
    rows, values = read_measured(X, y)
    keys = [row.upper() for row in as_strings(rows)]
    return compare_keys(designs, designs["sequence"].str.upper().tolist(), keys, values, ["sequence"])


def compare_keys(
    designs: pd.DataFrame, keys: Sequence[Hashable], measured: Sequence[Hashable], y: Any, columns: Sequence[str]
) -> RoundCheck:
    """Compare designs with the measurements whose keys are theirs, and show some of their columns."""
    means = pd.Series(np.asarray(y)).groupby(np.array(measured, dtype=object)).mean()
    found = means.reindex(keys).to_numpy()
    shown = [name for name in ("id", *columns, "mean", "lower", "judge") if name in designs]
    table = designs[shown].assign(measured=found, holds=found >= designs["lower"])[np.isfinite(found)]
    return RoundCheck(table.reset_index(drop=True), len(designs))
