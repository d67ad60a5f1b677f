"""Padding in a Markov law: exactly at its side, with the lengths of the sequences that it was fitted on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from braidkit.diffusion.markov import MarkovLaw
from braidkit.spaces.letters import Letters

# Added to the number of sequences of each length, so that none of the space is impossible.
_PRIOR_COUNT = 0.5


@torch.no_grad()
def pad_exactly(law: MarkovLaw, tokens: Tensor, letters: Letters) -> None:
    """Give a law the padding of its sequences: no letter comes after it (on the right; before it, on the left).

    Lengths have their frequencies in the data, whatever the letters are: the probability that padding begins (or ends)
    at a position is that of its length among those that are still possible. Letters keep their probabilities beside
    each other.

    Parameters
    ----------
    law : MarkovLaw
        Of the letters and, last, padding; changed in place.
    tokens : Tensor of shape (n, length)
        What it was fitted on.
    letters : Letters
    """
    if letters.padding is None:
        return
    pad, longest = len(letters.alphabet), letters.length
    lengths = (tokens.cpu().numpy() != pad).sum(axis=1)
    counts = np.bincount(lengths, minlength=longest + 1).astype(float)
    counts[letters.shortest :] += _PRIOR_COUNT
    # Where the border between padding and letters lies: its position from the left, 0 to `longest`.
    at = counts if letters.padding == "right" else counts[::-1]
    still = at[::-1].cumsum()[::-1]
    border = at / np.maximum(still, 1e-300)

    table = law.transitions
    real = table[..., :pad]
    total = real.sum(dim=2, keepdim=True)
    real = torch.where(total > 0, real / total.clamp(min=1e-300), torch.full_like(real, 1 / pad))
    after_padding = torch.arange(table.shape[1], device=table.device) % law.n_letters == pad
    for i in range(longest):
        if letters.padding == "right":
            chance = torch.where(after_padding, 1.0, float(border[i]) if i else 0.0)
        else:
            before = torch.ones_like(after_padding) if i == 0 else after_padding
            chance = torch.where(before, 1.0 - float(border[i]), 0.0)
        chance = chance.to(table)[:, None]
        table[i] = torch.cat([(1 - chance) * real[i], chance], dim=1)
