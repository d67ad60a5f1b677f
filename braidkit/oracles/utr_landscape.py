"""An exact 5'UTR landscape: ribosome load by leaky scanning, over sequences of a known law."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from braidkit.exceptions import InvalidParameterError
from braidkit.oracles.utr_law import A, C, G, T, UTRLaw
from braidkit.spaces import SequenceSpace

MAX_LOAD = 9.0  # ribosomes per transcript
START = (A, T, G, G)  # the reporter's start codon and the G at +4

# Log-odds of initiation at an AUG, and what letters of its context add; offsets from the A of AUG.
AUG_LOG_ODDS = -0.9
CONTEXT: dict[int, dict[int, float]] = {
    -6: {G: 0.2},
    -5: {C: 0.1},
    -4: {C: 0.3},
    -3: {A: 1.5, G: 1.2},
    -2: {C: 0.4, A: 0.2},
    -1: {C: 0.4},
    3: {G: 0.8},
}
STOPS = ((T, A, A), (T, A, G), (T, G, A))
REINITIATION = 0.35  # share of an upstream frame's ribosomes that go on to the start codon after its stop

# Stacking energies of Watson-Crick pairs, kcal/mol at 37 degrees C; row: the 5' letter, column: the next one.
STACKING = np.array(
    [
        [-0.93, -2.24, -2.08, -1.10],
        [-2.11, -3.26, -2.36, -2.08],
        [-2.35, -3.42, -3.26, -2.24],
        [-1.33, -2.35, -2.11, -0.93],
    ]
)
RT = 0.616  # kcal/mol at 37 degrees C
MIN_LOOP = 3  # nucleotides
LOOP_ENERGY = 5.4  # kcal/mol, for a loop of three nucleotides
CAP_BONUS, CAP_REACH = 1.5, 8.0  # kcal/mol by which a helix at the cap counts more, and its decay in nucleotides
GC_ENERGY = -0.3  # kcal/mol for each G or C: the structure that single helices do not show
UNWOUND, UNWINDING_WIDTH = -15.0, 2.5  # kcal/mol: where half of the scanning ribosomes are stopped, and the spread

A_WINDOW, A_HALF, A_WIDTH = 10, 7.5, 0.5  # nucleotides, A's in the window at half repression, spread


class UTRLandscape:
    def __init__(self, length: int = 50) -> None:
        if not isinstance(length, (int, np.integer)) or length < 12:
            raise InvalidParameterError(f"length must be a whole number of at least 12; got {length!r}.")
        self.length = int(length)
        self.space = SequenceSpace("DNA", self.length)
        self.law = UTRLaw(self.length)

    def _tokens(self, X):
        return self.space.encode(X).argmax(dim=-1).numpy()

    def predict(self, X: Any) -> NDArray[np.float64]:
        t = self._tokens(X)
        return MAX_LOAD * accessibility(t) * not_repressed(t) * initiation(t)

    def log_prob(self, X):
        return self.law.log_prob(self._tokens(X))

    def sample(self, n_samples=1, random_state=None):
        tokens = self.law.sample(n_samples, check_random_state(random_state))
        return self.space.decode(__import__("torch").eye(4)[tokens])


def _recognition(transcript, start):
    """Probability (n,) that a scanning ribosome starts at the AUG at `start`."""
    log_odds = np.full(len(transcript), AUG_LOG_ODDS)
    for offset, letters in CONTEXT.items():
        if 0 <= start + offset:
            for letter, weight in letters.items():
                log_odds += weight * (transcript[:, start + offset] == letter)
    return 1 / (1 + np.exp(-log_odds))


def initiation(tokens):
    n, length = tokens.shape
    transcript = np.hstack([tokens, np.tile(START, (n, 1))])
    def codon(i, c): return (transcript[:, i:i+3] == c).all(axis=1)
    closed = np.zeros((n, length + 3), dtype=bool)  # a stop at this codon or later in its frame
    for i in reversed(range(length)):
        closed[:, i] = closed[:, i+3] if i+3 < length else False
        for stop in STOPS: closed[:, i] |= codon(i, stop)
    scanning = np.ones(n)
    reading = np.zeros(n)
    rejoined = np.zeros(n)
    for i in range(length - 2):
        caught = scanning * codon(i, START[:3]) * _recognition(transcript, i)
        scanning = scanning - caught
        rejoined += REINITIATION * caught * closed[:, i]
        if (length - i) % 3 == 0:
            reading += caught * ~closed[:, i]
    return reading + (scanning + rejoined) * _recognition(transcript, length)


def folding_energy(tokens):
    n, length = tokens.shape
    stack = np.exp(-STACKING / RT)[tokens[:, :-1], tokens[:, 1:]]
    cap = np.exp(CAP_BONUS / RT * np.exp(-np.arange(length) / CAP_REACH))
    helices = {d: np.zeros((n, max(length - d, 0))) for d in (MIN_LOOP - 1, MIN_LOOP)}
    total = np.ones(n)
    for d in range(MIN_LOOP + 1, length):
        starts = length - d
        loop = np.exp(-(LOOP_ENERGY + 1.75 * RT * np.log((d - 1) / MIN_LOOP)) / RT)
        paired = tokens[:, :starts] + tokens[:, d:] == 3
        helices[d] = paired * (loop + stack[:, :starts] * helices.pop(d - 2)[:, 1:starts+1])
        total += helices[d] @ cap[:starts]
    gc = ((tokens == C) | (tokens == G)).sum(axis=1)
    return -RT * np.log(total) , GC_ENERGY * gc


def accessibility(tokens):
    return 1 / (1 + np.exp((UNWOUND - sum(folding_energy(tokens))) / UNWINDING_WIDTH))


def not_repressed(tokens):
    a = np.lib.stride_tricks.sliding_window_view(tokens == A, A_WINDOW, axis=1).sum(axis=2).max(axis=1)
    return 1 / (1 + np.exp((a - A_HALF) / A_WIDTH))
