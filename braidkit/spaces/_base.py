"""The contract of a design space."""

from __future__ import annotations

import abc
import math
from typing import Any

from torch import Tensor


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
