"""The law that `UTRLandscape` draws 5'UTRs from: a Markov chain in which some words are rare or forbidden."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

A, C, G, T = range(4)

# Letters at the cap and at the start codon; positions between them are interpolated.
CAP_COMPOSITION = np.array([0.18, 0.30, 0.34, 0.18])
START_COMPOSITION = np.array([0.30, 0.29, 0.23, 0.18])
# The last six letters favour the consensus GCCRCC by these odds.
KOZAK_CONSENSUS = ((G,), (C,), (C,), (A, G), (C,), (C,))
KOZAK_ODDS = 2.0
# Odds that a word is completed: upstream ATG is rare; runs of five letters and the recognition sites of two cloning
# enzymes (EcoRI; BsaI on either strand) do not occur.
FORBIDDEN_WORDS = ("AAAAA", "CCCCC", "GGGGG", "TTTTT", "GAATTC", "GGTCTC", "GAGACC")
WORD_ODDS = {"ATG": 0.4} | dict.fromkeys(FORBIDDEN_WORDS, 0.0)


def _dinucleotide_odds() -> NDArray[np.float64]:
    """Odds of a letter (column) after a letter (row), shape (4, 4): few CpG and TpA, more TpG and CpA."""
    odds = np.ones((4, 4))
    odds[C, G], odds[T, A] = 0.2, 0.4
    odds[T, G] = odds[C, A] = 1.3
    return odds


class UTRLaw:
    """Law of natural-looking 5'UTRs: which can occur, and how likely each is.

    ``p(x) = p_1(x_1) prod_t p_t(x_t | x_1 .. x_{t-1})``: a first-order chain whose letters drift from the cap to the
    start codon, with few CpG and TpA dinucleotides and the Kozak consensus favoured before the start codon. The
    probability of a letter that completes one of `WORD_ODDS` is multiplied by the word's odds and the four are scaled
    to sum to one, so the log-probability is exact and a draw is one pass from left to right.

    Parameters
    ----------
    length : int
        Number of nucleotides, at least 6.

    References
    ----------
    Bird (1980), Nucleic Acids Res. 8:1499 (CpG decays to TpG and CpA); Beutler et al. (1989), PNAS 86:192 (TpA is
    rare); Kozak (1987), Nucleic Acids Res. 15:8125 (GCCRCC before the start codon, few upstream AUG).
    """

    def __init__(self, length: int) -> None:
        self.length = length
        towards_start = np.linspace(0, 1, length)[:, None]
        composition = (1 - towards_start) * CAP_COMPOSITION + towards_start * START_COMPOSITION
        for position, letters in zip(range(length - 6, length), KOZAK_CONSENSUS, strict=True):
            composition[position, list(letters)] *= KOZAK_ODDS
        weights = composition[:, None, :] * _dinucleotide_odds()
        self._transition = weights / weights.sum(axis=2, keepdims=True)  # (length, from, to)
        self._initial = composition[0] / composition[0].sum()
        self._words = [(np.array(["ACGT".index(a) for a in word]), odds) for word, odds in WORD_ODDS.items()]

    def sample(self, n_samples: int, rng: RandomState) -> NDArray[np.int64]:
        """Draw tokens of shape (n_samples, length), 0 to 3 for A, C, G, T."""
        tokens = np.zeros((n_samples, self.length), dtype=np.int64)
        for t in range(self.length):
            # Cumulative probability of the first three letters; the fourth has the rest.
            below = self._conditional(tokens, t).cumsum(axis=1)[:, :3]
            tokens[:, t] = (rng.uniform(size=(n_samples, 1)) >= below).sum(axis=1)
        return tokens

    def log_prob(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log-probability (n,) of tokens (n, length) in nats; -inf where a forbidden word occurs."""
        rows = np.arange(len(tokens))
        total = np.zeros(len(tokens))
        with np.errstate(divide="ignore"):
            for t in range(self.length):
                total += np.log(self._conditional(tokens, t)[rows, tokens[:, t]])
        return total

    def _conditional(self, tokens: NDArray[np.int64], t: int) -> NDArray[np.float64]:
        """Probabilities (n, 4) of the letter at position t after tokens[:, :t]."""
        if t == 0:
            return np.tile(self._initial, (len(tokens), 1))
        p = self._transition[t][tokens[:, t - 1]]
        for word, odds in self._words:
            if t >= len(word) - 1:
                p[(tokens[:, t - len(word) + 1 : t] == word[:-1]).all(axis=1), word[-1]] *= odds
        return p / p.sum(axis=1, keepdims=True)
