"""An exact 5'UTR landscape: ribosome load by leaky scanning, over sequences of a known law."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from braidkit.exceptions import InvalidParameterError
from braidkit.oracles._base import Oracle
from braidkit.oracles.utr_law import UTRLaw
from braidkit.parameters import check_number, check_random_state
from braidkit.spaces import SequenceSpace

Tokens = NDArray[np.int64]  # (n, length): 0 to 3 for A, C, G, T
Values = NDArray[np.float64]  # (n,)

A, C, G, T = range(4)
MIN_LENGTH = 12

CODING_LOAD = 9.0  # ribosomes on the coding sequence, if each that scans starts there
UPSTREAM_LOAD = 2.0  # the same for an upstream frame, which is short
EXTENDED_SHARE = 0.85  # load of a coding sequence that is started upstream and in frame, over CODING_LOAD
REINITIATION = 0.35  # share of the ribosomes of a closed upstream frame that scan on to the start codon
CODING_START = (A, T, G, G)
STOPS = ((T, A, A), (T, A, G), (T, G, A))

# Log-odds that a ribosome starts at an AUG, and what letters around it add; offsets from its A.
START_LOG_ODDS = -0.3
CONTEXT: dict[int, dict[int, float]] = {
    -6: {G: 0.2},
    -5: {C: 0.1},
    -4: {C: 0.3},
    -3: {A: 1.8, G: 1.5},
    -2: {C: 0.5, A: 0.3},
    -1: {C: 0.5},
    3: {G: 1.0},
}

# Free energy of a Watson-Crick pair on the next one, kcal/mol; row: the letter on the 5' strand, column: the next.
STACKING = np.array(
    [
        [-0.93, -2.24, -2.08, -1.10],
        [-2.11, -3.26, -2.36, -2.08],
        [-2.35, -3.42, -3.26, -2.24],
        [-1.33, -2.35, -2.11, -0.93],
    ]
)
RT = 0.616  # kcal/mol, 37 degrees C
MIN_LOOP = 3  # nucleotides
LOOP_ENERGY = 5.4  # kcal/mol, of the smallest loop
CAP_ENERGY, CAP_REACH = -1.5, 8.0  # kcal/mol added to a helix at the cap; nucleotides over which it decays
STALLED_SHARE = 0.25  # ribosomes that the most stable hairpins stop
STALLING_ENERGY, STALLING_WIDTH = -6.0, 1.5  # kcal/mol: where half of them are stopped; width of the step
GC_HALF, GC_WIDTH = 0.64, 0.06  # share of G and C at which half of the ribosomes scan; width of the step
TRACT = 10  # nucleotides
TRACT_HALF, TRACT_WIDTH = 7.5, 0.5  # A's in such a window at which half of the transcripts are repressed; width

_CHUNK = 8192


class UTRLandscape(Oracle):
    """Exact mean ribosome load of 5'UTRs, with the law of the sequences that count as valid.

    A stand-in for an assay whose truth is known: a scanning ribosome starts at each AUG that it meets with a
    probability given by its context, and goes on otherwise,

    ``load(x) = scan(x) * (9 * coding(x) + 2 * upstream(x))``.

    `coding` is the share of ribosomes that translate the coding sequence: those that reach the start codon and start
    there, and 0.85 of those that start upstream, in frame and without a stop between. `upstream` is the share that
    translates any other upstream frame; from one that ends before the start codon, 0.35 scan on to it. `scan` is the
    product of three shares between 0 and 1: hairpins (the exact ensemble of single perfect helices with loops of at
    least three nucleotides; those near the cap count more), G and C content, and A-rich tracts, which bind the
    poly(A)-binding protein. The constants that no source gives are chosen to make a landscape that a small network can
    learn and that can be improved upon; they are the module's upper-case names.

    A-rich tracts and very low G and C content increase the load, but are rare under the law of the valid sequences. So
    a reward model that is optimised too far leaves the valid space.

    Parameters
    ----------
    length : int, default=50
        Nucleotides between the cap and the start codon, at least 12.

    Attributes
    ----------
    space : SequenceSpace
        DNA letters, T for U, 5' to 3'.
    law : UTRLaw
        The generator's law.
    min_log_prob : float
        Least log-probability of a valid sequence, in nats.

    Notes
    -----
    A sequence is valid if it has no forbidden word (a run of five equal letters; GAATTC, GGTCTC, GAGACC) and is at
    least as probable as 99 % of the law's own draws (of 10,000, from a fixed seed).

    References
    ----------
    Kozak (1986), Cell 44:283, and Kozak (1987), Nucleic Acids Res. 15:8125: context of the start codon, a purine at
    -3 and G at +4 first. Kozak (1987), Mol. Cell. Biol. 7:3438: reinitiation. Calvo et al. (2009), PNAS 106:7507, and
    Sample et al. (2019), Nat. Biotechnol. 37:803: upstream AUGs and their frame. Kozak (1989), Mol. Cell. Biol. 9:5134,
    and Babendure et al. (2006), RNA 12:851: hairpins, their distance to the cap, and GC content. Xia et al. (1998),
    Biochemistry 37:14719: stacking energies. Wu and Bag (1998), J. Biol. Chem. 273:34535: A-rich tracts.

    Examples
    --------
    >>> from braidkit.oracles import UTRLandscape
    >>> landscape = UTRLandscape(length=20)
    >>> open_leader, upstream_start = "TTCTTACATTTCAAGCCACC", "TTCTTACATGTCAAGCCACC"
    >>> landscape.predict([open_leader, upstream_start]).round(1)
    array([8.6, 4.2])
    >>> landscape.is_valid([open_leader, "TTCTTAAAAATTAAGCCACC"])
    array([ True, False])
    """

    def __init__(self, length: int = 50) -> None:
        if not isinstance(length, (int, np.integer)) or length < MIN_LENGTH:
            raise InvalidParameterError(f"length must be a whole number of at least {MIN_LENGTH}; got {length!r}.")
        self.length = int(length)
        self.space = SequenceSpace("DNA", self.length)
        self.law = UTRLaw(self.length)

    def predict(self, X: Any) -> Values:
        """Ribosome load without noise.

        Parameters
        ----------
        X : list of str, or any other kind that `space` encodes
            Sequences of `length` DNA letters.

        Returns
        -------
        load : ndarray of shape (n_samples,)
            Ribosomes per transcript, above 0 and below 9.

        Raises
        ------
        InvalidDesignError
            Naming the first row of another length or with another letter.
        """
        tokens = self._tokens(X)
        chunks = [tokens[i : i + _CHUNK] for i in range(0, len(tokens), _CHUNK)]
        return np.concatenate([_scanning(chunk) * _translation(chunk) for chunk in chunks])

    def log_prob(self, X: Any) -> Values:
        """Log-probability of each sequence under the law, in nats; -inf where it has a forbidden word."""
        return self.law.log_prob(self._tokens(X))

    def is_valid(self, X: Any) -> NDArray[np.bool_]:
        """Whether each sequence could have been drawn from the law, and is not among its unlikeliest percent."""
        return self.log_prob(X) >= self.min_log_prob

    def sample(self, n_samples: int = 1, random_state: int | RandomState | None = None) -> list[str]:
        """Draw sequences from the law."""
        check_number("n_samples", n_samples, low=1, whole=True)
        tokens = self.law.sample(n_samples, check_random_state(random_state))
        return ["".join(row) for row in np.array(list("ACGT"))[tokens]]

    @cached_property
    def min_log_prob(self) -> float:
        draws = self.law.sample(10_000, np.random.RandomState(0))
        return float(np.quantile(self.law.log_prob(draws), 0.01))

    def _tokens(self, X: Any) -> Tokens:
        """Letter codes (n, length)."""
        return self.space.encode(X).argmax(dim=-1).numpy()


def _translation(tokens: Tokens) -> Values:
    """Load (n,) of the ribosomes that scan, whichever frame they translate."""
    n, length = tokens.shape
    transcript = np.hstack([tokens, np.tile(CODING_START, (n, 1))])
    closed = _closed_frames(transcript, length)
    scanning = np.ones(n)
    coding = np.zeros(n)
    upstream = np.zeros(n)
    resumed = np.zeros(n)
    for i in range(length - 2):
        started = scanning * _is_codon(transcript, i, CODING_START[:3]) * _start_probability(transcript, i)
        scanning = scanning - started
        extends = ~closed[:, i] if (length - i) % 3 == 0 else np.zeros(n, dtype=bool)
        coding += EXTENDED_SHARE * started * extends
        upstream += started * ~extends
        resumed += REINITIATION * started * closed[:, i]
    coding += (scanning + resumed) * _start_probability(transcript, length)
    return CODING_LOAD * coding + UPSTREAM_LOAD * upstream


def _is_codon(transcript: Tokens, i: int, codon: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether each transcript (n, length + 4) has the codon at position i."""
    return (transcript[:, i : i + 3] == codon).all(axis=1)


def _closed_frames(transcript: Tokens, length: int) -> NDArray[np.bool_]:
    """Whether the frame of the codon at i meets a stop that starts before the coding sequence; (n, length)."""
    closed = np.zeros((len(transcript), length + 3), dtype=bool)
    for i in reversed(range(length)):
        stop = np.any([_is_codon(transcript, i, codon) for codon in STOPS], axis=0)
        closed[:, i] = stop | closed[:, i + 3]
    return closed[:, :length]


def _start_probability(transcript: Tokens, i: int) -> Values:
    """Probability (n,) that a scanning ribosome starts at the AUG at position i; letters before the cap add nothing."""
    log_odds = np.full(len(transcript), START_LOG_ODDS)
    for offset, weights in CONTEXT.items():
        if i + offset >= 0:
            for letter, weight in weights.items():
                log_odds += weight * (transcript[:, i + offset] == letter)
    return 1 / (1 + np.exp(-log_odds))


def _hairpin_energy(tokens: Tokens) -> Values:
    """Free energy (n,) of the ensemble of single perfect helices, kcal/mol, at most 0.

    With q(i, j) the summed weight of the helices whose outer pair is (i, j),
    ``q(i, j) = pair(i, j) (exp(-loop(j - i - 1) / RT) + exp(-stack(i) / RT) q(i + 1, j - 1))``.
    """
    n, length = tokens.shape
    stack = np.exp(-STACKING / RT)[tokens[:, :-1], tokens[:, 1:]]  # (n, length - 1)
    cap = np.exp(-CAP_ENERGY / RT * np.exp(-np.arange(length) / CAP_REACH))
    partition = np.ones(n)
    inner = [np.zeros((n, length))] * 2  # q of spans two and one shorter
    for span in range(MIN_LOOP + 1, length):
        n_pairs = length - span
        # Jacobson-Stockmayer: a longer loop costs 1.75 RT for each unit of log length.
        loop = np.exp(-LOOP_ENERGY / RT) * ((span - 1) / MIN_LOOP) ** -1.75
        pair = tokens[:, :n_pairs] + tokens[:, span:] == 3  # A with T, C with G
        helices = pair * (loop + stack[:, :n_pairs] * inner[0][:, 1 : n_pairs + 1])
        partition += helices @ cap[:n_pairs]
        inner = [inner[1], helices]
    return -RT * np.log(partition)


def _scanning(tokens: Tokens) -> Values:
    """Share (n,) of the ribosomes that scan the leader."""
    stalled = STALLED_SHARE * _step(STALLING_ENERGY - _hairpin_energy(tokens), STALLING_WIDTH)
    gc = ((tokens == C) | (tokens == G)).mean(axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(tokens == A, TRACT, axis=1)
    tract = windows.sum(axis=2).max(axis=1)
    return (1 - stalled) * _step(GC_HALF - gc, GC_WIDTH) * _step(TRACT_HALF - tract, TRACT_WIDTH)


def _step(distance: Values, width: float) -> Values:
    """Smooth step from 0 to 1 at distance 0."""
    return 1 / (1 + np.exp(-distance / width))
