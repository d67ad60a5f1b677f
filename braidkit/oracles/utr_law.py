"""The law that `UTRLandscape` draws its 5'UTRs from: a Markov chain with forbidden words."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

A, C, G, T = range(4)

# Letters at the cap end and at the start codon; positions between are interpolated.
CAP_COMPOSITION = np.array([0.20, 0.29, 0.30, 0.21])
START_COMPOSITION = np.array([0.28, 0.27, 0.24, 0.21])
# Odds of each consensus letter of GCCRCC, the last six positions, over what they would be elsewhere.
KOZAK_CONSENSUS = ((G,), (C,), (C,), (A, G), (C,), (C,))
KOZAK_ODDS = 2.0
# Runs of five letters, and the recognition sites of EcoRI and of BsaI on either strand.
FORBIDDEN_WORDS = ("AAAAA", "CCCCC", "GGGGG", "TTTTT", "GAATTC", "GGTCTC", "GAGACC")


def _dinucleotide_odds() -> NDArray[np.float64]:
    """Odds of letter b after letter a, shape (4, 4): few CpG and TpA, more of what CpG decays to."""
    odds = np.ones((4, 4))
    odds[C, G], odds[T, A] = 0.2, 0.5
    odds[T, G] = odds[C, A] = 1.3
    return odds


class UTRLaw:
    """Law of natural-looking 5'UTRs: where they may go, and how likely each is.

    ``p(x) = p_1(x_1) prod_t p_t(x_t | x_{t-1}, allowed_t)``: a first-order chain whose letter composition drifts from
    the cap to the start codon, with few CpG and TpA dinucleotides, and with the Kozak consensus favoured in the last six
    positions. A letter that would complete a forbidden word has probability 0, the others being scaled up, so the law
    is exact and each draw is one pass from left to right.

    Parameters
    ----------
    length : int
        Number of nucleotides.

    References
    ----------
    Bird (1980), Nucleic Acids Res. 8:1499 (CpG and its decay to TpG and CpA); Beutler et al. (1989), PNAS 86:192 (TpA);
    Kozak (1987), Nucleic Acids Res. 15:8125 (GCCRCC before the start codon).
    """

    def __init__(self, length: int) -> None:
        self.length = length
        start = np.linspace(0, 1, length)[:, None]
        composition = (1 - start) * CAP_COMPOSITION + start * START_COMPOSITION
        for position, letters in zip(range(length - 6, length), KOZAK_CONSENSUS, strict=True):
            composition[position, list(letters)] *= KOZAK_ODDS
        weights = composition[:, None, :] * _dinucleotide_odds()
        self._transition = weights / weights.sum(axis=2, keepdims=True)  # (length, from, to)
        self._initial = composition[0] / composition[0].sum()
        self._words = [np.array(["ACGT".index(letter) for letter in word]) for word in FORBIDDEN_WORDS]

    def _conditional(self, tokens: NDArray[np.int64], t: int) -> NDArray[np.float64]:
        """Probabilities (n, 4) of the letter at position t after tokens[:, :t]."""
        if t == 0:
            return np.tile(self._initial, (len(tokens), 1))
        p = self._transition[t][tokens[:, t - 1]]
        for word in self._words:
            prefix = word[:-1]
            if t >= len(prefix):
                p[(tokens[:, t - len(prefix) : t] == prefix).all(axis=1), word[-1]] = 0.0
        return p / p.sum(axis=1, keepdims=True)

    def sample(self, n_samples: int, rng: RandomState) -> NDArray[np.int64]:
        """Draw tokens of shape (n_samples, length), 0 to 3 for A, C, G, T."""
        tokens = np.zeros((n_samples, self.length), dtype=np.int64)
        for t in range(self.length):
            below = self._conditional(tokens, t).cumsum(axis=1)
            # The last entry may fall short of 1 by rounding; without it the count is at most 3.
            tokens[:, t] = (rng.uniform(size=(n_samples, 1)) > below[:, :3]).sum(axis=1)
        return tokens

    def log_prob(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log-probability (n,) in nats; -inf where a forbidden word occurs."""
        p = np.stack(
            [
                np.take_along_axis(self._conditional(tokens, t), tokens[:, t : t + 1], axis=1)[:, 0]
                for t in range(self.length)
            ],
            axis=1,
        )
        with np.errstate(divide="ignore"):
            return np.log(p).sum(axis=1)
