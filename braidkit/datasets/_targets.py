"""Read the measurements of a table: one value or several replicates per row, and their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from braidkit.datasets._cells import Cells, others
from braidkit.datasets._numbers import read_numbers
from braidkit.exceptions import InvalidParameterError, InvalidTargetError

# With fewer differences among repeated rows the estimate of the noise is too uncertain.
MIN_DIFFERENCES = 20


@dataclass(frozen=True)
class Target:
    """A measured quantity: its name, and its column or those of its replicates."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """One target of each sequence.

    Attributes
    ----------
    y : ndarray of shape (n,)
        The mean of its values.
    error : ndarray of shape (n,) or None
        Standard error of that mean, if the table shows the noise.
    note : str
        A summary of the noise, in words; empty if nothing is known.
    """

    y: np.ndarray
    error: np.ndarray | None = None
    note: str = ""


def parse_target(text: str) -> Target:
    """A target as a person names it.

    Examples
    --------
    >>> parse_target("log2fc")
    Target(name='log2fc', columns=('log2fc',))
    >>> parse_target("affinity=kd_1,kd_2")
    Target(name='affinity', columns=('kd_1', 'kd_2'))
    """
    name, equals, rest = text.partition("=")
    columns = tuple(column.strip() for column in (rest if equals else text).split(","))
    name = name.strip() if equals else text
    repeated = {column for column in columns if columns.count(column) > 1}
    if not name or not all(columns) or repeated:
        what = f"the column {min(repeated)!r} twice" if repeated else "a blank"
        raise InvalidParameterError(
            f"target {text!r} has {what} in it; name a column, columns of replicates as 'rep1,rep2', or either with a "
            "name, as 'name=rep1,rep2'."
        )
    return Target(name, columns)


def read_values(cells: Cells, target: Target) -> np.ndarray:
    """Values of a target (n_rows, n_replicates); NaN where a cell has none."""
    return np.column_stack([read_numbers(cells, column) for column in target.columns])


def read_positive(cells: Cells, column: str, keep: np.ndarray, *, zero: bool) -> np.ndarray:
    """A column of weights, which may be zero, or of standard errors, of the rows to keep; NaN elsewhere.

    Raises
    ------
    InvalidTargetError
        Naming the first row without a number, or with one that is too small.
    """
    values = np.where(keep, read_numbers(cells, column), np.nan)
    wrong = np.flatnonzero(keep & ~((values >= 0) if zero else (values > 0)))
    if len(wrong):
        told = cells.columns[column][wrong[0]] or "blank"
        rule = "weights are 0 or more" if zero else "no measurement is exact: a standard error is above 0"
        raise InvalidTargetError(
            f"{cells.where(wrong[0])}: {column!r} is {told}{others(len(wrong))}; {rule}. Correct or drop such rows."
        )
    return values


def combine(
    values: np.ndarray,
    groups: np.ndarray,
    target: Target,
    *,
    errors: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Measured:
    """The mean of each sequence, and its standard error if it is known from replicates or `errors`.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_replicates)
        NaN where a replicate is missing; each row has one.
    groups : ndarray of int of shape (n_rows,)
        Number of the row's sequence.
    target : Target
    errors, weights : ndarray of shape (n_rows,), optional
        Of single rows; not both.

    Raises
    ------
    InvalidTargetError
        If columns of replicates never differ.
    """
    there = np.isfinite(values)
    of_rows = np.ones(len(values)) if weights is None else weights
    of_rows = of_rows if errors is None else 1 / np.square(errors)
    share = of_rows[:, None] * there
    origin = values[there][0]  # what is added to all values is not to cost digits
    centred = np.where(there, values - origin, 0.0)
    total = np.bincount(groups, weights=share.sum(axis=1))
    means = np.bincount(groups, weights=(share * centred).sum(axis=1)) / total
    if errors is not None:
        return Measured(origin + means, total**-0.5)
    squares = np.where(there, np.square(centred - means[groups, None]), 0.0).sum(axis=1)
    within, counts = (np.bincount(groups, weights=part) for part in (squares, there.sum(axis=1)))
    n_differences = int(counts.sum() - len(counts))
    spread = float(within.sum()) / max(n_differences, 1)
    replicates = len(target.columns) > 1
    if replicates and spread <= (1e-9 * np.abs(values[there]).max()) ** 2:
        raise InvalidTargetError(
            f"the columns {', '.join(target.columns)} are the same in all rows: they are one measurement, not "
            "replicates; name one of them."
        )
    if n_differences < MIN_DIFFERENCES or spread == 0 or weights is not None:
        return Measured(origin + means)
    error = (moderated_variance(within, counts - 1) / counts) ** 0.5
    noise = float(np.mean(error**2)) / (float(np.var(means)) or np.inf)
    return Measured(
        origin + means,
        error,
        f"replicates of {target.name} differ by {spread**0.5:.3g} (standard deviation), so that noise is "
        f"{100 * min(noise, 1):.0f} % of the variance of means",
    )


def moderated_variance(within: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """Variance of a measurement of each sequence, by its own replicates and those of all.

    A variance from few replicates is uncertain, and they may agree by chance. Variances s_i^2 of d_i degrees of freedom
    may vary more than by chance; V is their squared coefficient of variation beyond chance. A true variance is then
    taken to follow an inverse gamma law of that mean and V, and is estimated by its posterior mean ``(m s^2 + d_i
    s_i^2) / (m + d_i)``, ``m = 2 + 2 / V``, s^2 the mean of all.

    Parameters
    ----------
    within : ndarray of shape (n,)
        Sums of squares about the mean, d_i s_i^2.
    differences : ndarray of shape (n,)
        d_i, one less than the number of replicates.

    References
    ----------
    Smyth, "Linear models and empirical Bayes methods for assessing differential expression in microarray experiments",
    Stat. Appl. Genet. Mol. Biol. 3 (2004), by moments of variances in place of those of their logarithms, which
    replicates that agree exactly do not have.
    """
    total = differences.sum()
    pooled = within.sum() / total
    several = differences > 0
    d, variances = differences[several], within[several] / differences[several]
    by_chance = 2 * len(d) / total
    found = float((d * np.square(variances / pooled - 1)).sum()) / total
    variation = max((found - by_chance) / (1 + by_chance), 0.0)
    share = variation / (2 + 2 * variation)  # 1 / m
    return (pooled + share * within) / (1 + share * differences)


def check_noise_told_once(targets: Sequence[Target], errors: Sequence[str], weight: str | None) -> None:
    """Raise where a table would be asked twice for the noise of a target."""
    if errors and weight is not None:
        raise InvalidParameterError("target_se and weight both tell the noise of rows; pass one of them.")
    if errors and len(errors) != len(targets):
        raise InvalidParameterError(
            f"target_se names {len(errors)} columns for {len(targets)} targets; name one for each, in their order."
        )
    for target in targets:
        if len(target.columns) > 1 and (errors or weight is not None):
            name = "target_se" if errors else "weight"
            raise InvalidParameterError(
                f"{name} and the replicates of {target.name!r} both tell the noise of rows; leave one of them out."
            )
