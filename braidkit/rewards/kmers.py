"""Counts of k-mers, in place of a network that few sequences teach nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from braidkit.spaces import Space

# Counts of k-mers are for few letters. With fewer rows than these a network learns nothing that they do not say better;
# in long sequences, where what matters may lie anywhere, it needs many more.
KMER_LETTERS = 5
NETWORK_ROWS = 750
LONG, LONG_NETWORK_ROWS = 64, 20_000
# Of 4 letters and more: the posterior's matrices have as many rows as there are features.
MAX_KMERS = 1024


class KmerFeatures(nn.Module):
    """Counts of k-mers, and, unless there are very many, the letter at each position, with nothing to learn.

    k goes up to 3, in sequences of more than 64 letters up to 5. Counts are centred and scaled as in sequences of
    independent, equally frequent letters, and each k and the letters by position weigh alike. On relaxed points a k-mer
    counts as the product of its letters.

    Parameters
    ----------
    length, n_letters : int
    """

    def __init__(self, length: int, n_letters: int) -> None:
        super().__init__()
        longest = min(5 if length > LONG else 3, length)
        self.sizes = [k for k in range(1, longest + 1) if k <= 3 or n_letters**k <= MAX_KMERS]
        self.by_position = length * n_letters <= 1000
        self.n_letters = n_letters

    def forward(self, x: Tensor) -> Tensor:
        groups = [self._scaled(x.flatten(1), 1, 1)] if self.by_position else []
        groups.append(self._scaled(x.sum(dim=1), 1, x.shape[1]))
        windows = [x]  # of k = 1, 2, 3 letters: (n, length - k + 1, n_letters**k)
        for k in self.sizes[1:]:
            # A k-mer is a window and the one that follows: their product, summed over positions, is a matrix product.
            first, second = (k + 1) // 2, k // 2
            if first > len(windows):
                windows.append((windows[-1][:, :-1, :, None] * x[:, first - 1 :, None, :]).flatten(2))
            n_positions = x.shape[1] - k + 1
            counts = windows[first - 1][:, :n_positions].transpose(1, 2) @ windows[second - 1][:, first:]
            groups.append(self._scaled(counts.flatten(1), k, n_positions))
        return torch.cat(groups, dim=1)

    @property
    def n_groups(self) -> int:
        """Groups of features, each with a mean square norm of 1 in independent letters."""
        return len(self.sizes) + self.by_position

    def _scaled(self, counts: Tensor, k: int, n_positions: int) -> Tensor:
        """Counts (n, d) of k-mers at some positions, standardised, over sqrt(d)."""
        share = float(self.n_letters) ** -k
        deviation = math.sqrt(n_positions * share * (1 - share) * counts.shape[1])
        return (counts - n_positions * share) / deviation


def few_row_features(features: nn.Module | None, space: Space, n_rows: int) -> nn.Module | None:
    """Counts of k-mers where no features were asked for and a network would learn nothing, else what was asked for."""
    if features is not None or space.alphabet is None or len(space.alphabet) > KMER_LETTERS:
        return features
    enough = LONG_NETWORK_ROWS if space.shape[0] > LONG else NETWORK_ROWS
    return KmerFeatures(*space.visible_shape) if n_rows < enough else None
