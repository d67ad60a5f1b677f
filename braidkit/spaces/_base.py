"""The contract of a design space, and what tells strings from numbers."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from braidkit.exceptions import InvalidDesignError


class Space(abc.ABC):
    """What a design is, as a tensor and as the user's own kind of object.

    Attributes
    ----------
    shape : tuple of int
        Shape of one design as a tensor.
    n_features : int
        Number of entries of that tensor; the width of a flat 2-D array of designs.
    """

    shape: tuple[int, ...]

    @property
    def n_features(self) -> int:
        return math.prod(self.shape)

    @abc.abstractmethod
    def kind_of(self, X: Any) -> str:
        """Name the kind of object that `X` is, as `decode` takes it."""

    @abc.abstractmethod
    def encode(self, X: Any) -> Tensor:
        """Turn designs into a float32 tensor of shape (n, \\*shape)."""

    @abc.abstractmethod
    def decode(self, x: Tensor, kind: str | None = None) -> Any:
        """Turn points of shape (n, \\*shape) into designs of the given kind."""

    def discretise(self, x: Tensor) -> Tensor:
        """Move relaxed points onto designs, with gradients that pass; here every point is a design."""
        return x

    @abc.abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Give the plain constructor arguments, and the class name under ``"space"``."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.to_config() == other.to_config()

    def __hash__(self) -> int:
        return hash(repr(sorted(self.to_config().items())))

    def __repr__(self) -> str:
        config = self.to_config()
        arguments = ", ".join(f"{name}={value!r}" for name, value in config.items() if name != "space")
        return f"{config['space']}({arguments})"


def is_strings(X: Any) -> bool:
    """Whether `X` is a one-dimensional collection of strings."""
    if isinstance(X, str):
        raise InvalidDesignError(f"X is one string ({X[:20]!r}); pass a list of strings.")
    if isinstance(X, np.ndarray):
        return X.ndim == 1 and (X.dtype.kind in "UT" or (X.dtype == object and len(X) > 0 and isinstance(X[0], str)))
    if hasattr(X, "iloc"):
        return getattr(X, "ndim", 2) == 1 and len(X) > 0 and isinstance(X.iloc[0], str)
    return isinstance(X, Sequence) and len(X) > 0 and isinstance(X[0], str)


def as_str(row: Any, i: int) -> str:
    """The row itself if it is a string; an error by row if not (a missing value in a table, say)."""
    if not isinstance(row, str):
        raise InvalidDesignError(f"row {i:,} is {row!r}, not a string; drop such rows.")
    return row
