"""The noise of single measurements: weights, standard errors, and the differences of replicates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import has_fit_parameter
from torch import Tensor

from braidkit.data import read_errors, read_weights
from braidkit.exceptions import InvalidParameterError
from braidkit.spaces import Points, design_groups

# Least share of y's variance that is taken for the function's, however large the standard errors are.
LEAST_SIGNAL = 0.05


@dataclass(frozen=True)
class RowNoise:
    """The variance of the noise of row i is ``noise / weights_i + known_i``, where evidence finds `noise`.

    A row that merges several measurements of one design has their mean, the sum of their weights, and their sum of
    squares about the mean, `within`; they add ``-0.5 ((counts_i - 1) log noise + within_i / noise)`` to the evidence.

    Attributes
    ----------
    weights : ndarray of shape (n,)
        > 0.
    known : ndarray of shape (n,)
        Squares of standard errors; 0 where none was told.
    within : ndarray of shape (n,)
        In the units of `known`.
    counts : ndarray of shape (n,)
        Measurements of each row.
    """

    weights: np.ndarray
    known: np.ndarray
    within: np.ndarray
    counts: np.ndarray

    @classmethod
    def read(cls, n: int, sample_weight: Any = None, y_error: Any = None) -> RowNoise:
        """Check what `fit` was told of n rows; a weight may be 0 until `merge_rows` drops its row."""
        weights = np.ones(n) if sample_weight is None else read_weights(sample_weight, n)
        errors = np.zeros(n) if y_error is None else read_errors(y_error, n)
        return cls(weights, np.square(errors), np.zeros(n), np.ones(n))

    @property
    def is_plain(self) -> bool:
        """Whether all rows are alike: nothing is known of any, and each is one measurement."""
        return not self.known.any() and bool((self.weights == 1).all())

    def take(self, rows: Any) -> RowNoise:
        """The noise of the rows with these numbers."""
        return RowNoise(self.weights[rows], self.known[rows], self.within[rows], self.counts[rows])

    def over(self, scale: float) -> RowNoise:
        """The noise of measurements that are divided by a number."""
        return replace(self, known=self.known / scale**2, within=self.within / scale**2)

    def of_mean_weight(self) -> RowNoise:
        """The same with weights divided by their mean per measurement, so that the unknown noise has a usual size."""
        factor = self.counts.sum() / self.weights.sum()
        return replace(self, weights=self.weights * factor, within=self.within * factor)

    def repeats(self) -> tuple[float, float]:
        """Measurements beyond one a row, and their sum of squares: what `noise` alone explains of them."""
        # Where standard errors are told, replicates add nothing to them.
        return (0.0, 0.0) if self.known.any() else (float(np.sum(self.counts - 1)), float(self.within.sum()))

    def root_precision(self, noise: float) -> Tensor:
        """Roots (n,) of ``noise / variance_i``: rows times these have noise of one variance."""
        return torch.from_numpy(np.sqrt(noise / (noise / self.weights + self.known)))

    def least_squares_weights(self) -> np.ndarray | None:
        """Weights (n,) of mean 1 for networks, for measurements of variance 1; None where all are alike.

        What is not known noise is taken for the function's variance: a row's weight is the precision with which it
        tells the function where nothing else does.
        """
        if self.is_plain:
            return None
        signal = max(1 - float(np.average(self.known, weights=self.weights)), LEAST_SIGNAL)
        weights = self.weights / (signal + self.known * self.weights)
        return weights / weights.mean()

    def tensors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """``1 / weights`` and `known` (n,) as tensors."""
        return torch.from_numpy(1 / self.weights).to(like), torch.from_numpy(self.known).to(like)


def check_takes_noise(reward: Any, names: list[str]) -> None:
    """Raise unless a reward, or a regressor in its place, learns from what was told of the noise."""
    if reward is None or isinstance(reward, FrozenEstimator):  # the default takes all, and a frozen one learns nothing
        return
    learner = getattr(reward, "regressor", reward)  # of a BlackBoxReward
    for name in names:
        if not has_fit_parameter(learner, name):
            raise InvalidParameterError(
                f"reward, a {type(learner).__name__}, takes no {name} in fit; leave it out, or pass a reward that "
                "does, such as GPBonusReward()."
            )


def merge_rows(
    x: Points, y: np.ndarray, noise: RowNoise, groups: np.ndarray
) -> tuple[Points, np.ndarray, RowNoise, np.ndarray]:
    """One row a design: replicates are averaged, and what they differ by is kept; rows of weight 0 are dropped.

    Without standard errors, the posterior and the evidence are those of all rows, exactly. But where no replicates
    differ at all, they are taken for copies of one measurement, as a weight would count them, and show no noise.

    Parameters
    ----------
    x : Points of shape (n, \\*space.shape)
    y : ndarray of shape (n,)
    noise : RowNoise
    groups : ndarray of int of shape (n,)
        All rows of a design are in one.

    Returns
    -------
    x, y, noise, groups
        Of the different designs, in the order of their first row; groups are numbered from 0.
    """
    used = np.flatnonzero(noise.weights > 0)
    if len(used) < len(y):
        x, y, noise, groups = x.take(used), y[used], noise.take(used), groups[used]
    designs = design_groups(x)
    _, first, n_rows = np.unique(designs, return_index=True, return_counts=True)
    if len(first) < len(y):
        w = noise.weights
        weights = np.bincount(designs, weights=w)
        centred = y - y[first][designs]  # exact where all replicates are alike
        means = np.bincount(designs, weights=w * centred) / weights
        within = np.bincount(designs, weights=w * np.square(centred - means[designs]))
        known = np.bincount(designs, weights=np.square(w) * noise.known) / np.square(weights)
        counts = n_rows.astype(np.float64) if within.any() else np.ones(len(first))
        noise = RowNoise(weights, known, within, counts)
        x, y, groups = x.take(first), y[first] + means, groups[first]
    return x, y, noise, np.unique(groups, return_inverse=True)[1]
