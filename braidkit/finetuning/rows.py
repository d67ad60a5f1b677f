"""Rows of measured designs with all that `fit` was told of them, as reward and judge learn from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.frozen import FrozenEstimator

from braidkit.data import TrainingData, read_errors, read_target_errors, read_targets, read_weights
from braidkit.exceptions import InvalidParameterError
from braidkit.persistence import digest
from braidkit.rewards.objective import Objective
from braidkit.rewards.objective_reward import ObjectiveReward
from braidkit.rewards.row_noise import RowNoise, check_takes_noise, merge_rows
from braidkit.spaces import Points, join_groups


@dataclass(frozen=True)
class MeasuredRows:
    """Measured designs.

    Attributes
    ----------
    numbers : ndarray of int of shape (n,)
        Of the rows in what the user passed.
    X, x, y
        As in `TrainingData`.
    groups : ndarray of int of shape (n,)
        Rows of one design, or of one of the user's groups, have one number, from 0.
    noise : dict of str to ndarray of shape (n,)
        "sample_weight" and "y_error", if they were told; the latter a column a target, where there are `targets`.
    targets : DataFrame of shape (n, n_targets) or None
        The quantities that y, an objective, is of.
    """

    numbers: np.ndarray
    X: np.ndarray
    x: Points
    y: np.ndarray
    groups: np.ndarray
    noise: dict[str, np.ndarray]
    targets: pd.DataFrame | None = None

    @classmethod
    def read(
        cls, data: TrainingData, groups: Any, sample_weight: Any, y_error: Any, targets: pd.DataFrame | None = None
    ) -> MeasuredRows:
        """Check what `fit` was told of rows; those of weight 0 are left out."""
        n = len(data.y)
        noise = {} if sample_weight is None else {"sample_weight": read_weights(sample_weight, n)}
        if y_error is not None and targets is None:
            noise["y_error"] = read_errors(y_error, n)
        elif y_error is not None and targets is not None:
            columns = read_target_errors(y_error, list(targets.columns), n)
            noise["y_error"] = np.column_stack([np.full(n, np.nan) if one is None else one for one in columns])
        rows = cls(np.arange(n), data.X, data.x, data.y, join_groups(data.x, groups), noise, targets)
        return rows if sample_weight is None else rows.take(np.flatnonzero(noise["sample_weight"]))

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: np.ndarray) -> MeasuredRows:
        """The rows with these numbers."""
        noise = {name: values[rows] for name, values in self.noise.items()}
        groups = np.unique(self.groups[rows], return_inverse=True)[1]
        targets = None if self.targets is None else self.targets.iloc[rows]
        return MeasuredRows(self.numbers[rows], self.X[rows], self.x.take(rows), self.y[rows], groups, noise, targets)

    def digest(self) -> str:
        """A digest of the rows, measurements, groups and noise."""
        noise = [self.noise] if self.noise else []
        targets = [] if self.targets is None else [list(self.targets.columns), self.targets.to_numpy()]
        return digest(self.x.rows, self.y, self.groups, *noise, *targets)

    @property
    def measured(self) -> Any:
        """The y of a reward: the measurements, or the targets of its quantities."""
        return self.y if self.targets is None else self.targets

    def of_target(self, i: int) -> MeasuredRows:
        """The rows with one of the targets as y."""
        assert self.targets is not None
        noise = {name: values if values.ndim == 1 else values[:, i] for name, values in self.noise.items()}
        noise = {name: values for name, values in noise.items() if not np.isnan(values).any()}
        return replace(self, y=self.targets.iloc[:, i].to_numpy(), noise=noise, targets=None)

    def describe_replicates(self) -> str:
        """Tell how many rows repeat a design, and what these differ by, in a line; empty if none does."""
        noise = merge_rows(self.x, self.y, RowNoise.read(len(self)), self.groups)[2]
        n_repeats = len(self) - len(noise.weights)
        if not n_repeats:
            return ""
        spread = (noise.within.sum() / n_repeats) ** 0.5
        differ = f"differ by {spread:.3g} (standard deviation)" if spread else "do not differ, so they are copies"
        return f"replicates: {n_repeats:,} of {len(self):,} rows repeat a design; they {differ}"

    def row_noise(self) -> RowNoise:
        """The known noise, in y's units."""
        return RowNoise.read(len(self), **self.noise)

    @property
    def told(self) -> dict[str, np.ndarray]:
        """Further arguments of a reward's `fit`, besides designs and measurements."""
        return {"groups": self.groups, **self.noise}


def read_rows(designer: Any, X: Any, y: Any, groups: Any, sample_weight: Any, y_error: Any) -> MeasuredRows:
    """Designs and measurements as a designer reads them, with all that is told of the rows."""
    targets = None
    if designer.objective is not None:
        if isinstance(designer.reward, (FrozenEstimator, ObjectiveReward)):
            what = "a frozen reward" if isinstance(designer.reward, FrozenEstimator) else "an ObjectiveReward"
            raise InvalidParameterError(
                f"{what} has its quantities, and an objective fits a reward to each: pass the reward of one, unfitted."
            )
        names, columns = read_targets(y)
        objective = Objective.parse(designer.objective, names)
        y = objective.measured(columns, objective.scales(columns))
        targets = pd.DataFrame(columns, columns=names)
    rows = MeasuredRows.read(designer._read(X, y), groups, sample_weight, y_error, targets)
    check_takes_noise(designer.reward, list(rows.noise))
    return rows
