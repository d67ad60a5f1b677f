"""Base of the baselines that do not fine-tune."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from braidkit.finetuning.designer import Designer
from braidkit.parameters import resolve_device
from braidkit.spaces import Points


class TrainingData(NamedTuple):
    """Checked designs and measurements.

    Attributes
    ----------
    X : ndarray
        One entry or row a design.
    x : Points of shape (n, \\*space.shape)
    y : ndarray of shape (n,)
    device : torch.device
    """

    X: np.ndarray
    x: Points
    y: np.ndarray
    device: torch.device


class Baseline(Designer):
    """Base of designers that fine-tune no chain.

    Attributes
    ----------
    kind_ : str
        Kind of designs that `fit` saw.
    """

    def _start(self, X: Any, y: Any) -> TrainingData:
        """Check what all share, then the data; sets ``space_`` and ``kind_``."""
        self._check_shared_parameters()
        device = resolve_device(self.device)
        _, X, x, y = self._read(X, y)
        self.kind_ = self.space_.kind_of(X)
        return TrainingData(X, x, y, device)
