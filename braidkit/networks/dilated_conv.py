"""Residual networks of dilated convolutions along a sequence; features are laid out as (n, length, channels)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from braidkit.networks.time_embedding import TimeEmbedding


class DilatedConv1d(nn.Conv1d):
    """A convolution that keeps the length and leaves out taps that only see padding.

    At dilation d and length L, tap j sees position i + (j - kernel_size // 2) d, which is outside the sequence for
    every i once ``|j - kernel_size // 2| d >= L``. Output and gradients are those of `torch.nn.Conv1d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int
        Odd.
    dilation : int, default=1
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """(n, L, in_channels) to (n, L, out_channels)."""
        centre, dilation = self.kernel_size[0] // 2, self.dilation[0]
        reach = min(centre, (x.shape[1] - 1) // dilation)
        weight = self.weight[:, :, None, centre - reach : centre + reach + 1]
        # As an image of height 1 whose channels come last: on CPUs faster than conv1d, above all backwards.
        image = x.contiguous()[:, None].permute(0, 3, 1, 2)
        out = nn.functional.conv2d(image, weight, self.bias, padding=(0, reach * dilation), dilation=(1, dilation))
        return out.permute(0, 2, 3, 1)[:, 0]


class SequenceNorm(nn.Module):
    """Standardises each sequence over channels and positions together, then scales and shifts each channel.

    This is `torch.nn.GroupNorm` with one group, for channels that come last.

    Parameters
    ----------
    channels : int
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, L, channels) to the same."""
        shape = x.shape[1:]
        return nn.functional.layer_norm(x, shape, self.weight.expand(shape), self.bias.expand(shape))


class ResidualBlock(nn.Module):
    """``h + SiLU(conv(norm(h + A e)))`` for features h and an embedding e of the time.

    Parameters
    ----------
    width : int
        Channels.
    kernel_size, dilation : int
        Kernel size and dilation of the convolution.
    embedding_width : int
        Width of e.
    """

    def __init__(self, width: int, kernel_size: int, dilation: int, embedding_width: int) -> None:
        super().__init__()
        self.shift = nn.Linear(embedding_width, width)
        self.norm = SequenceNorm(width)
        self.conv = DilatedConv1d(width, width, kernel_size, dilation)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Features (n, L, width) and embeddings (n or 1, embedding_width) to features (n, L, width)."""
        shifted = h + self.shift(embedding)[:, None]
        return h + nn.functional.silu(self.conv(self.norm(shifted)))


class DilatedConvNet(nn.Module):
    """A network on sequences that also sees the time: the score network of DDSM, at any size.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of a position before and after.
    width : int
        Channels inside, and width of the time embedding; even.
    kernel_size : int
        Kernel width of every convolution; odd.
    dilations : sequence of int
        One residual block each.
    time_scale : float
        Scale of the time embedding's frequencies.

    References
    ----------
    P. Avdeyev et al., "Dirichlet diffusion score model for biological sequence generation", ICML 2023.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        kernel_size: int,
        dilations: Sequence[int],
        time_scale: float,
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(width, time_scale)
        self.first = DilatedConv1d(in_channels, width, kernel_size)
        self.blocks = nn.ModuleList(ResidualBlock(width, kernel_size, dilation, width) for dilation in dilations)
        self.last = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, out_channels))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Positions (n, L, in_channels) at times (n,), or (1,) for all, to (n, L, out_channels)."""
        embedding = self.time(t)
        h = nn.functional.silu(self.first(x))
        for block in self.blocks:
            h = block(h, embedding)
        return self.last(h)
