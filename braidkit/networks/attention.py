"""Self-attention along a sequence, and attention pooling of it; features are laid out as (n, length, channels)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RelativeAttention(nn.Module):
    """Multi-head self-attention that knows how far apart two positions are.

    ``softmax(q_i . k_j / sqrt(d) + b_{j - i})`` in each head, with a learned bias b for every offset.

    Parameters
    ----------
    length : int
        Most positions.
    channels : int
        Width of the features; a multiple of `n_heads`.
    n_heads, key_width : int
        Heads, and the width d of a head's queries and keys.

    References
    ----------
    Vaswani et al. (2017), "Attention is all you need"; Raffel et al. (2020), J. Mach. Learn. Res. 21:140, section 2.1,
    for the bias, here without their bins.
    """

    offsets: Tensor

    def __init__(self, length: int, channels: int, *, n_heads: int, key_width: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query_key = nn.Linear(channels, 2 * n_heads * key_width, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(n_heads, 2 * length - 1))
        self.out = nn.Linear(channels, channels)
        positions = torch.arange(length)
        self.register_buffer("offsets", positions - positions[:, None] + length - 1, persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """(n, L, channels) to the same."""
        length = h.shape[1]
        query, key = (self._heads(part) for part in self.query_key(h).chunk(2, dim=-1))  # (n, heads, L, key_width)
        value = self._heads(self.value(h))  # (n, heads, L, channels / heads)
        bias = self.bias[:, self.offsets[:length, :length]]  # (heads, L, L)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _heads(self, h: Tensor) -> Tensor:
        """(n, L, heads * width) to (n, heads, L, width)."""
        return h.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class AttentionBlock(nn.Module):
    """A transformer block: ``h + attention(norm(h))``, then ``h + dense(norm(h))``.

    Parameters
    ----------
    length, channels, n_heads, key_width
        As in `RelativeAttention`.
    dropout : float
        Share of the layers' outputs left out in training.
    """

    def __init__(self, length: int, channels: int, *, n_heads: int, key_width: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.LayerNorm(channels),
            RelativeAttention(length, channels, n_heads=n_heads, key_width=key_width),
            nn.Dropout(dropout),
        )
        self.dense = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * channels),
            nn.Dropout(dropout),
            nn.ReLU(),
            nn.Linear(2 * channels, channels),
            nn.Dropout(dropout),
        )

    def forward(self, h: Tensor) -> Tensor:
        """(n, L, channels) to the same."""
        h = h + self.attention(h)
        return h + self.dense(h)


class SoftmaxPool(nn.Module):
    """Halve a sequence: each channel of two neighbours is their mean, weighted by a softmax of learned logits.

    A last position without a neighbour stays as it is.

    Parameters
    ----------
    channels : int

    References
    ----------
    Avsec et al. (2021), Nat. Methods 18:1196, "attention pooling"; the logits start at twice the features, which is
    near the larger of the two.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logits = nn.Linear(channels, channels, bias=False)
        with torch.no_grad():
            self.logits.weight.copy_(2 * torch.eye(channels))

    def forward(self, h: Tensor) -> Tensor:
        """(n, L, channels) to (n, ceil(L / 2), channels)."""
        last = h[:, h.shape[1] // 2 * 2 :]
        pairs = h[:, : h.shape[1] // 2 * 2].unflatten(1, (-1, 2))  # (n, L // 2, 2, channels)
        pooled = (self.logits(pairs).softmax(dim=2) * pairs).sum(dim=2)
        return torch.cat([pooled, last], dim=1)


class PositionalPool(nn.Module):
    """One vector a sequence: in each head the mean of the positions, by learned weights of features and positions.

    ``softmax_i(w . h_i + b_i)``: the bias of a position lets a head attend to a place, such as the end.

    Parameters
    ----------
    length : int
        Positions.
    channels : int
        A multiple of `n_heads`; each head pools its own share of them.
    n_heads : int
    """

    def __init__(self, length: int, channels: int, n_heads: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, n_heads, bias=False)
        self.place = nn.Parameter(torch.zeros(length, n_heads))

    def forward(self, h: Tensor) -> Tensor:
        """(n, length, channels) to (n, channels)."""
        weights = (self.score(h) + self.place).softmax(dim=1)  # (n, length, heads)
        return (weights[..., None] * h.unflatten(-1, (weights.shape[-1], -1))).sum(dim=1).flatten(1)
