"""Networks of a masked chain: what each position's letter is, by the letters that are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from braidkit.diffusion._zero_layer import zero_at_first
from braidkit.diffusion.simplex import NETWORKS
from braidkit.networks import DilatedConvNet


class FlatLetterNetwork(nn.Module):
    """Three hidden layers on all positions at once: letters, conditions, and whether they are masked."""

    def __init__(self, length: int, n_letters: int, n_hidden: int, n_conditions: int = 0) -> None:
        super().__init__()
        self.n_letters = n_letters
        self.first = nn.Linear(length * (n_letters + n_conditions + 1), n_hidden)
        self.hidden = nn.ModuleList(nn.Linear(n_hidden, n_hidden) for _ in range(2))
        self.last = nn.Linear(n_hidden, length * n_letters)
        zero_at_first(self.last)

    @property
    def output(self) -> nn.Linear:
        """The layer that gives the logits."""
        return self.last

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, length, n_letters) of states (n, length, n_letters + n_conditions)."""
        h = nn.functional.silu(self.first(_with_mask(x, self.n_letters).flatten(1)))
        for layer in self.hidden:
            h = h + nn.functional.silu(layer(h))
        return self.last(h).reshape(*x.shape[:2], self.n_letters)


class ConvLetterNetwork(nn.Module):
    """Dilated convolutions along the sequence; their time is the share of positions that are masked."""

    def __init__(self, n_letters: int, n_conditions: int = 0) -> None:
        super().__init__()
        self.n_letters = n_letters
        self.convolutions = DilatedConvNet(n_letters + n_conditions + 1, n_letters, **NETWORKS["small"])
        zero_at_first(self.output)

    @property
    def output(self) -> nn.Linear:
        """The layer that gives the logits."""
        layer = self.convolutions.last[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, length, n_letters) of states (n, length, n_letters + n_conditions)."""
        seen = _with_mask(x, self.n_letters)
        return self.convolutions(seen, seen[..., -1].mean(dim=1))


def masked_positions(x: Tensor) -> Tensor:
    """1 at the masked positions (n, L) of states, 0 elsewhere; without gradient."""
    return (x.detach().sum(dim=-1) < 0.5).to(x.dtype)


def _with_mask(x: Tensor, n_letters: int) -> Tensor:
    """States, and conditions beside them, with a mask as one more channel, the last."""
    return torch.cat([x, masked_positions(x[..., :n_letters])[..., None]], dim=-1)
