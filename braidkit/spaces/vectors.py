"""VectorSpace: designs that are rows of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.spaces._base import Space
from braidkit.spaces.reading import is_strings


class VectorSpace(Space):
    """Vectors of one width; points are standardised, so that chains and networks see entries near one.

    Parameters
    ----------
    n_features : int
    loc, scale : array-like of shape (n_features,), optional
        What is subtracted, and then divided by; zeros and ones by default.
    """

    def __init__(
        self,
        n_features: int,
        loc: Sequence[float] | np.ndarray | None = None,
        scale: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        self.shape = (int(n_features),)
        self.loc = np.zeros(n_features) if loc is None else np.asarray(loc, dtype=np.float64)
        self.scale = np.ones(n_features) if scale is None else np.asarray(scale, dtype=np.float64)
        if self.loc.shape != self.shape or self.scale.shape != self.shape:
            raise InvalidParameterError(f"loc and scale must have n_features = {n_features} entries each.")
        if not (self.scale > 0).all():
            raise InvalidParameterError(f"scale must be > 0; got {self.scale.min()}.")

    @classmethod
    def from_data(cls, X: Any) -> VectorSpace:
        """Standardise by the columns of `X`; a constant column keeps scale 1."""
        array = np.asarray(X, dtype=np.float64)
        deviation = array.std(axis=0)
        constant = deviation <= 1e-12 * np.maximum(1.0, np.abs(array).max(axis=0))
        return cls(array.shape[1], array.mean(axis=0), np.where(constant, 1.0, deviation))

    def kind_of(self, X: Any) -> str:
        """There is one kind, "vectors": a 2-D array."""
        if is_strings(X):
            raise InvalidDesignError("designs are strings, but the space holds vectors; use a SequenceSpace.")
        return "vectors"

    def encode(self, X: Any) -> Tensor:
        """Standardise rows; `X` is an array-like of shape (n, n_features)."""
        self.kind_of(X)
        array = np.asarray(X.detach().cpu() if isinstance(X, Tensor) else X, dtype=np.float64)
        if array.ndim != 2 or array.shape[1:] != self.shape:
            raise InvalidDesignError(
                f"X has shape {array.shape}, but the space holds vectors of {self.shape[0]} features."
            )
        if not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            raise InvalidDesignError(
                f"row {row:,}: feature {column} is {array[row, column]}; drop or impute such rows."
            )
        return torch.tensor((array - self.loc) / self.scale, dtype=torch.float32)

    def decode(self, x: Tensor, kind: str | None = None) -> np.ndarray:
        """Undo the standardisation; gives a float64 array of shape (n, n_features)."""
        return x.detach().cpu().numpy().astype(np.float64) * self.scale + self.loc

    def to_config(self) -> dict[str, Any]:
        return {
            "space": "VectorSpace",
            "n_features": self.shape[0],
            "loc": self.loc.tolist(),
            "scale": self.scale.tolist(),
        }
