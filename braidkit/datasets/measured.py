"""Measured designs, whatever they are: one measurement each, with its noise, and what was done to the rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braidkit.datasets._cells import Cells
from braidkit.datasets._targets import (
    Measured,
    Target,
    check_noise_told_once,
    combine,
    parse_target,
    read_positive,
    read_values,
)
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError

# A target of positive numbers is far from normal if its 95 % quantile is so many times its median.
_SKEWED = 10


@dataclass(frozen=True, kw_only=True)
class MeasuredDesigns:
    """Measurements of designs, without the designs.

    Attributes
    ----------
    y : ndarray of shape (n_designs,), or (n_designs, n_targets)
        The mean measurement of each; a column a target, where there are several.
    n_rows : int
        Rows read.
    n_averaged : int
        Rows that repeat an earlier design; their measurements went into its mean.
    dropped : dict of str to int
        Rows left out, by the reason in words.
    notes : tuple of str
        Other changes to rows, in words.
    targets : tuple of str
        The measured quantity.
    y_error : ndarray of the shape of y, or None
        Standard errors of the means, if known from columns or replicates.
    sample_weight : ndarray of shape (n_designs,), or None
        Sums of the rows' weights.
    noise : tuple of str
        A summary of the replicates, in words.
    doubts : tuple of str
        What to check about the rows, in words.
    """

    y: np.ndarray
    n_rows: int
    n_averaged: int
    dropped: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("target",)
    y_error: np.ndarray | None = None
    sample_weight: np.ndarray | None = None
    noise: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def told(self) -> dict[str, Any]:
        """The known noise, as arguments of `fit`."""
        told = {"y_error": self.y_error, "sample_weight": self.sample_weight}
        return {name: values for name, values in told.items() if values is not None}

    def columns(self) -> pd.DataFrame:
        """The measurements, a named column for each target."""
        return pd.DataFrame(self.y.reshape(len(self.y), -1), columns=list(self.targets))

    def described_as(self, kind: str) -> str:
        """One line: rows read and kept, the kind of designs, the target's quantiles."""
        changes = [f"{self.n_averaged:,} duplicate{'s' * (self.n_averaged > 1)} averaged"] if self.n_averaged else []
        changes += [f"{n:,} {reason} dropped" for reason, n in self.dropped.items()]
        changes += self.notes
        note = f" ({', '.join(changes)})" if changes else ""
        line = f"read {self.n_rows:,} rows: {len(self.y):,} kept{note}; {kind}"
        columns = self.y.reshape(len(self.y), -1).T
        for name, y in zip(self.targets if len(columns) > 1 else ["target"], columns, strict=True):
            low, middle, high = np.quantile(y, [0.05, 0.5, 0.95])
            line += f"; {name} 5/50/95 %: {low:.3g} / {middle:.3g} / {high:.3g}, max {y.max():.3g}"
        return "; ".join([line, *self.noise])

    def advice(self) -> list[str]:
        """What to check, and to change about targets whose few largest values would hide the others."""
        columns = self.y.reshape(len(self.y), -1).T
        skewed = [
            f"{name} is above 0 in all rows, and in 5 % of them more than {_SKEWED} times its median. Such quantities, "
            "often concentrations or counts, are learned better as logarithms: add a column of these to the table, and "
            "name it as the target"
            for name, y in zip(self.targets, columns, strict=True)
            if y.min() > 0 and np.quantile(y, 0.95) > _SKEWED * np.median(y)
        ]
        return [*self.doubts, *skewed]


@dataclass(frozen=True)
class AskedColumns:
    """The columns of measurements that were asked for: targets, their standard errors, or the rows' weights."""

    targets: tuple[Target, ...]
    errors: tuple[str, ...] = ()
    weight: str | None = None

    @classmethod
    def parse(cls, target: Any, target_se: Any, weight: str | None) -> AskedColumns:
        """Targets as a person names them, all of different names.

        Raises
        ------
        InvalidParameterError
            If a target is named twice, none is named, or the noise is told twice.
        """
        targets = [parse_target(text) for text in _texts("target", target)]
        names = [one.name for one in targets]
        repeated = [name for name in names if names.count(name) > 1]
        if not names or repeated:
            raise InvalidParameterError(
                f"target {repeated[0]!r} is named twice; name each once." if repeated else "target names no column."
            )
        errors = _texts("target_se", target_se)
        check_noise_told_once(targets, errors, weight)
        return cls(tuple(targets), tuple(errors), weight)

    @property
    def names(self) -> list[str]:
        """Names of all the columns."""
        columns = [column for one in self.targets for column in one.columns]
        return [*columns, *self.errors, *([] if self.weight is None else [self.weight])]

    def values(self, cells: Cells) -> list[np.ndarray]:
        """Values (n_rows, n_replicates) of each target; NaN where a cell has none."""
        return [read_values(cells, one) for one in self.targets]

    def drop_unmeasured(self, values: list[np.ndarray], keep: np.ndarray, dropped: dict[str, int]) -> None:
        """Take rows without a value of some target out of `keep`, and count them in `dropped`."""
        for one, found in zip(self.targets, values, strict=True):
            there = np.isfinite(found).any(axis=1)
            if not there[keep].all():
                dropped[f"without {one.name}"] = int((keep & ~there).sum())
            keep &= there

    def drop_weightless(self, cells: Cells, keep: np.ndarray, dropped: dict[str, int]) -> np.ndarray | None:
        """The rows' weights; rows of weight 0 are taken out of `keep`, and counted in `dropped`."""
        if self.weight is None:
            return None
        weights = read_positive(cells, self.weight, keep, zero=True)
        if (weights[keep] == 0).any():
            dropped["of weight 0"] = int((weights[keep] == 0).sum())
            keep &= weights > 0
        return weights

    def averaged(
        self,
        cells: Cells,
        values: list[np.ndarray],
        weights: np.ndarray | None,
        keep: np.ndarray,
        groups: np.ndarray,
        on_constant: str = "error",
    ) -> dict[str, Any]:
        """Means of the kept rows by group, and their noise, as fields of `MeasuredDesigns`.

        Raises
        ------
        InvalidTargetError
            If a target is the same in all rows (unless `on_constant` is "keep"), replicates never differ, or a standard
            error is not above 0.
        """
        combined: list[Measured] = []
        for i, (one, found) in enumerate(zip(self.targets, values, strict=True)):
            told = read_positive(cells, self.errors[i], keep, zero=False)[keep] if self.errors else None
            kept = None if weights is None else weights[keep]
            combined.append(combine(found[keep], groups, one, errors=told, weights=kept))
            y = combined[-1].y
            if y.min() == y.max() and on_constant == "error":
                if len(y) == 1 < keep.sum():
                    raise InvalidTargetError(
                        f"{cells.path} has the same design in all rows, and there is nothing to learn from a constant "
                        "mean; check that the column of the designs is the one that is meant."
                    )
                raise InvalidTargetError(
                    f"column {', '.join(one.columns)!r} of {cells.path} is {y[0]:g} in all rows; there is nothing to "
                    "learn from a constant target."
                )
        return {
            "y": _joined([one.y for one in combined]),
            "targets": tuple(one.name for one in self.targets),
            "y_error": _errors(combined),
            "sample_weight": None if weights is None else np.bincount(groups, weights=weights[keep]),
            "noise": tuple(one.note for one in combined if one.note),
        }


def check_on_constant(on_constant: str) -> None:
    """Raise unless it is a treatment of targets that are the same in all rows."""
    if on_constant not in ("error", "keep"):
        raise InvalidParameterError(f"on_constant must be 'error' or 'keep'; got {on_constant!r}.")


def check_any_kept(path: Path, keep: np.ndarray, dropped: dict[str, int]) -> None:
    """Raise if no row is left."""
    if not keep.any():
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
        raise InvalidDesignError(f"{path} has no row to learn from: of {len(keep):,} rows, {reasons} were dropped.")


def _joined(columns: list[np.ndarray]) -> np.ndarray:
    """One column (n,) as it is, several as (n, n_columns)."""
    return columns[0] if len(columns) == 1 else np.column_stack(columns)


def _errors(combined: list[Measured]) -> np.ndarray | None:
    """Standard errors of all targets, NaN for one that has none; None if no target has."""
    if all(one.error is None for one in combined):
        return None
    return _joined([np.full(len(one.y), np.nan) if one.error is None else one.error for one in combined])


def _texts(name: str, value: Any) -> list[str]:
    """One text or several as a list; anything else is refused by name."""
    texts = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidParameterError(f"{name} must be the name of a column, or a list of names; got {value!r:.60}.")
    return texts
