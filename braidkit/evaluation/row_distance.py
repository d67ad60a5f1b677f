"""Distances between rows of numbers, in which each column counts alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from sklearn.metrics import pairwise_distances_argmin_min

from braidkit.spaces import VectorSpace

# Measured rows, drawn at random, whose distances are typical.
_N_COMPARED = 300


class RowDistance:
    """Root mean square difference of rows over the columns that vary, in standard deviations of the measured rows.

    A label counts as one column: two that differ are as far apart as makes its mean square difference that of a number.

    Parameters
    ----------
    space : VectorSpace
    measured : ndarray of shape (n, n_features)
    """

    def __init__(self, space: VectorSpace, measured: NDArray[np.float64]) -> None:
        self.measured = np.asarray(measured, dtype=np.float64)
        scale = self.measured.std(axis=0)
        for places in space.columns.one_of.values():
            # Two random rows differ by 2 (1 - sum p^2) in squares, and by 2 deviation^2 in a number.
            shares = self.measured[:, list(places)].mean(axis=0)
            scale[list(places)] = max(0.0, 1 - float(np.square(shares).sum())) ** 0.5
        varies = scale > 1e-12 * np.abs(self.measured).max(axis=0)
        labels = [any(varies[list(places)]) for places in space.columns.one_of.values()]
        n_columns = sum(bool(varies[i]) for i in space.columns.plain) + sum(labels)
        free = np.isin(np.arange(space.n_features), space.held_columns, invert=True)
        self._free = free & varies
        self._weight = np.where(varies, 1 / np.where(varies, scale, 1.0), 0.0) / max(1, n_columns) ** 0.5
        self._centre = self.measured.mean(axis=0)

    def coordinates(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points whose Euclidean distances are those of the rows."""
        return (np.asarray(rows, dtype=np.float64) - self._centre) * self._weight

    def typical(self) -> float:
        """Median distance of two measured rows in the columns that are not held."""
        some = self.measured[np.random.RandomState(0).permutation(len(self.measured))[:_N_COMPARED]]
        apart = pdist(self.coordinates(some)[:, self._free])
        return float(np.median(apart)) if len(apart) else 0.0

    def nearest(self, rows: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers of the nearest measured rows, and the distances to them: (n,) each."""
        index, _ = pairwise_distances_argmin_min(self.coordinates(rows), self.coordinates(self.measured))
        # By differences: the products that the search uses leave small distances to rounding.
        apart = self.coordinates(rows) - self.coordinates(self.measured[index])
        return index, np.sqrt(np.square(apart).sum(axis=1))
