"""Embedding of the time of a diffusion, as an input of networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Random Fourier features of a time, a linear layer, SiLU.

    ``SiLU(A [sin(2 pi w t), cos(2 pi w t)] + b)`` with frequencies w drawn from N(0, scale^2) once and kept.

    Parameters
    ----------
    n_features : int
        Width of the embedding; even.
    scale : float
        Deviation of the frequencies, cycles per unit of time.
    """

    frequencies: Tensor

    def __init__(self, n_features: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(n_features // 2))
        self.linear = nn.Linear(n_features, n_features)

    def forward(self, t: Tensor) -> Tensor:
        """Embeddings (n, n_features) of times (n,); one time does for a whole batch as t of shape (1,)."""
        angle = 2 * math.pi * t[:, None] * self.frequencies
        return nn.functional.silu(self.linear(torch.cat([angle.sin(), angle.cos()], dim=1)))
