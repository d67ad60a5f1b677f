"""Designs of a space, as compact as they came, that become points when a batch of them is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Points:
    """A view of many designs as points: indexing gives a float32 tensor, and nothing else holds one.

    Parameters
    ----------
    rows : ndarray of shape (n, ...)
        Checked designs: codes of letters, pixels or numbers. Neither changed nor copied.
    to_points : callable
        From a tensor of some of the rows to their points, on its device.
    shape : tuple of int
        Shape of one point.
    index : ndarray of int, optional
        Row numbers to use; all by default.
    device : torch.device
        Device of the points.
    """

    def __init__(
        self,
        rows: np.ndarray,
        to_points: Callable[[Tensor], Tensor],
        shape: tuple[int, ...],
        index: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._all = rows
        self._to_points = to_points
        self._index = index
        self._point_shape = shape
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self._all if self._index is None else self._index)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._point_shape)

    @property
    def rows(self) -> np.ndarray:
        """The designs as they are kept; one entry, or row, a design."""
        return self._all if self._index is None else self._all[self._index]

    def take(self, rows: Any) -> Points:
        """A view of some of the designs, by number, without making points of them."""
        index = np.arange(len(self._all)) if self._index is None else self._index
        return Points(self._all, self._to_points, self._point_shape, index[_as_index(rows)], self.device)

    def __getitem__(self, rows: Any) -> Tensor:
        """Points (n, ...) of some of the designs: a slice, or an array or tensor of numbers."""
        rows = _as_index(rows)
        part = self._all[rows if self._index is None else self._index[rows]]
        # Copied: the caller's array may be read-only, and a point must not share its memory.
        return self._to_points(torch.from_numpy(np.array(part, order="C")).to(self.device))

    def split(self, size: int) -> Iterator[Tensor]:
        """The points of all designs, `size` at a time."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, device: torch.device | str) -> Points:
        """The same designs, whose points are made on a device."""
        return Points(self._all, self._to_points, self._point_shape, self._index, device)


def _as_index(rows: Any) -> Any:
    """Row numbers on the CPU as NumPy takes them, or a slice."""
    return rows if isinstance(rows, slice) else np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows)
