"""Networks from points of a design space to features, small enough for a few hundred to some ten thousand rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Pixels of a side of images: a dense layer on more would not fit in memory.
MAX_SIDE = 32


class SequenceFeatures(nn.Module):
    """Convolutions along the sequence, then one dense layer that sees every position.

    Positions are flattened, not pooled, so that a network can learn where an element lies and in which reading frame.
    Long sequences are averaged over neighbours, so that at most 64 positions reach the dense layer. The shape is that
    of Optimus 5-Prime (Sample et al., Nature Biotechnology 37:803, 2019), narrower.

    Parameters
    ----------
    length, n_letters : int
    n_channels : int
    n_features : int
    kernel_size : int, default=8
    n_layers : int, default=3
    dropout : float, default=0.2
        Share of the dense layer's inputs left out in training.
    pooled : bool, default=False
        For few rows: the dense layer also sees each channel's mean over the positions, so that what an element does
        need not be learnt at each position anew, and negative values pass at a tenth, so that no channel dies of the
        high learning rate that few rows take.
    """

    def __init__(
        self,
        length: int,
        n_letters: int,
        *,
        n_channels: int,
        n_features: int,
        kernel_size: int = 8,
        n_layers: int = 3,
        dropout: float = 0.2,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        kernel_size = min(kernel_size, length)
        self.pooled = pooled
        widths = [n_letters] + [n_channels] * n_layers
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel_size) for before, after in zip(widths, widths[1:], strict=False)
        )
        self.padding = ((kernel_size - 1) // 2, kernel_size // 2)
        self.pooling = math.ceil(length / 64)
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(n_channels * (math.ceil(length / self.pooling) + pooled), n_features)

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(1, 2)  # (n, n_letters, length)
        for i, convolution in enumerate(self.convolutions):
            h = self._activate(convolution(F.pad(h, self.padding)))
            if i == 0 and self.pooling > 1:
                h = F.avg_pool1d(h, self.pooling, ceil_mode=True)
        seen = h.flatten(1)
        if self.pooled:
            # Scaled as a sum of independent positions is, so that the mean weighs as much as each of them.
            seen = torch.cat([seen, h.mean(dim=2) * math.sqrt(h.shape[2])], dim=1)
        return self._activate(self.dense(self.dropout(seen)))

    def _activate(self, h: Tensor) -> Tensor:
        return F.leaky_relu(h, 0.1) if self.pooled else F.relu(h)


class LatentFeatures(nn.Module):
    """A sum of effects of letters by position, and smooth functions of it.

    With a linear head this is a model of global epistasis: effects add up to a hidden quantity, such as stability, and
    what is measured is a function of that, such as the share of folded protein, which saturates. Such a model predicts
    designs that combine more changes than any row has.

    Parameters
    ----------
    length, n_letters : int
    n_functions : int, default=16

    References
    ----------
    Otwinowski, McCandlish and Plotkin (2018), "Inferring the shape of global epistasis", PNAS 115:E7550.
    """

    def __init__(self, length: int, n_letters: int, *, n_functions: int = 16) -> None:
        super().__init__()
        self.effects = nn.Linear(length * n_letters, 1)
        # Effects of letters that no row has stay as they begin: next to nothing.
        nn.init.normal_(self.effects.weight, std=0.02)
        self.functions = nn.Linear(1, n_functions)

    def forward(self, x: Tensor) -> Tensor:
        latent = self.effects(x.flatten(1))
        return torch.cat([latent, torch.tanh(self.functions(latent))], dim=1)


def shrunk(x: Tensor) -> Tensor:
    """Images (n, channels, height, width) averaged over neighbouring pixels to at most 32 a side; all else as it is."""
    if x.ndim != 4 or max(x.shape[2:]) <= MAX_SIDE:
        return x
    height, width = (min(side, MAX_SIDE) for side in x.shape[2:])
    return F.adaptive_avg_pool2d(x, (height, width))


class VectorFeatures(nn.Module):
    """Two hidden layers on the flattened point, in float64; large images are `shrunk` first.

    At this size float64 costs little, and a row's prediction does not depend on the rows beside it, as it does in
    float32 in the seventh digit.

    Parameters
    ----------
    n_inputs : int
    n_features : int
        Width of both layers.
    """

    def __init__(self, n_inputs: int, n_features: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_inputs, n_features),
            nn.SiLU(),
            nn.Linear(n_features, n_features),
            nn.SiLU(),
        ).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(shrunk(x).double())
