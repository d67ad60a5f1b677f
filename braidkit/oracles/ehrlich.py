"""Ehrlich functions: exact landscapes with impossible neighbours, spaced motifs and epistasis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from braidkit.exceptions import InvalidParameterError
from braidkit.oracles._base import Oracle
from braidkit.parameters import check_number, check_random_state
from braidkit.spaces import SequenceSpace

Tokens = NDArray[np.int64]  # (n, length): numbers of letters
Values = NDArray[np.float64]

BANNED_SHARE = 0.2  # of the other letters, banned after each letter
TEMPERATURE = 0.5  # of the softmax that makes transitions of normal draws


class EhrlichLandscape(Oracle):
    """A function of sequences that is known exactly, is hard to optimise, and has impossible designs.

    A sequence is *feasible* if it has no banned pair of neighbouring letters. Its value is

    ``f(x) = prod_i max_l floor(quantization * matches_i(x, l) / motif_length) / quantization``,

    where ``matches_i(x, l)`` counts the letters of motif i that stand at their places if it starts at position l, and 0
    for infeasible sequences. So every motif counts by its best occurrence, in steps, and one motif without a step makes
    the product 0. The largest value is 1, and is reached by a feasible sequence.

    An instance is drawn from `random_state`. It has a transition matrix, in which every letter may repeat, bans some
    neighbours, and can reach every other letter. It has motifs that this chain can make one after the other, and
    spacings with which all of them fit into the sequence.

    Parameters
    ----------
    alphabet : str, default="protein"
        Letters, or the name of an alphabet.
    length : int, default=32
        Letters of a sequence, at least ``n_motifs * motif_length``.
    n_motifs : int, default=2
    motif_length : int, default=4
        At least 2.
    quantization : int, optional
        Steps of a motif's share, from 1 to `motif_length`; by default `motif_length`, a step for each letter.
    random_state : int, RandomState instance or None, default=0

    Attributes
    ----------
    space : SequenceSpace
    initial : ndarray of shape (n_letters,)
        The chain's stationary law, from which first letters are drawn.
    transitions : ndarray of shape (n_letters, n_letters)
        Probability of the next letter (column) after a letter (row); 0 where banned.
    motifs : ndarray of shape (n_motifs, motif_length), int
        Numbers of letters.
    offsets : ndarray of shape (n_motifs, motif_length), int
        Places of a motif's letters after its first, which is 0.

    References
    ----------
    Stanton, Alberstein, Frey, Watkins and Cho (2024), "Closed-Form Test Functions for Biophysical Sequence Design
    Benchmarking", arXiv:2407.00236.

    Examples
    --------
    >>> from braidkit.oracles import EhrlichLandscape
    >>> landscape = EhrlichLandscape("DNA", length=12, n_motifs=2, motif_length=3)
    >>> best = landscape.optimum()
    >>> landscape.predict([best, best[::-1]]).tolist()
    [1.0, 0.0]
    >>> bool(landscape.is_valid(landscape.sample(5, random_state=0)).all())
    True
    """

    def __init__(
        self,
        alphabet: str = "protein",
        length: int = 32,
        *,
        n_motifs: int = 2,
        motif_length: int = 4,
        quantization: int | None = None,
        random_state: int | RandomState | None = 0,
    ) -> None:
        for name, value, least in (("length", length, 1), ("n_motifs", n_motifs, 1), ("motif_length", motif_length, 2)):
            check_number(name, value, low=least, whole=True)
        if length < n_motifs * motif_length:
            raise InvalidParameterError(
                f"length must be at least n_motifs * motif_length = {n_motifs * motif_length}; got {length}."
            )
        quantization = motif_length if quantization is None else quantization
        check_number("quantization", quantization, low=1, high=motif_length, whole=True)
        self.space = SequenceSpace(alphabet, int(length))
        if self.space.n_letters < 3:
            raise InvalidParameterError(f"alphabet must have at least three letters; got {self.space.alphabet!r}.")
        self.length, self.quantization = int(length), int(quantization)
        rng = check_random_state(random_state)
        self.transitions = _transitions(self.space.n_letters, rng)
        self.initial = _stationary(self.transitions)
        self.motifs = _motifs(self.initial, self.transitions, n_motifs, motif_length, rng)
        self.offsets = np.array([_offsets(self.length // n_motifs, motif_length, rng) for _ in range(n_motifs)])

    def predict(self, X: Any) -> Values:
        """Value without noise, 0 where infeasible.

        Parameters
        ----------
        X : list of str, or any other kind that `space` encodes
            Sequences of `length` letters.

        Returns
        -------
        value : ndarray of shape (n_samples,)
            From 0 to 1.

        Raises
        ------
        InvalidDesignError
            Naming the first row of another length or with another letter.
        """
        tokens = self._tokens(X)
        return self._qualities(tokens).prod(axis=1) * self._feasible(tokens)

    def qualities(self, X: Any) -> Values:
        """Best quantised share of each motif, (n_samples, n_motifs), whether or not the sequence is feasible."""
        return self._qualities(self._tokens(X))

    def is_valid(self, X: Any) -> NDArray[np.bool_]:
        """Whether each sequence is feasible."""
        return self._feasible(self._tokens(X))

    def sample(self, n_samples: int = 1, random_state: int | RandomState | None = None) -> list[str]:
        """Draw feasible sequences from the chain of the transitions: the initial solutions of the benchmark."""
        check_number("n_samples", n_samples, low=1, whole=True)
        tokens = _walk(self.initial, self.transitions, n_samples, self.length, check_random_state(random_state))
        return self._strings(tokens)

    def optimum(self) -> str:
        """A feasible sequence whose value is 1: the motifs in a row, every letter repeated up to the next."""
        letters: list[int] = []
        for motif, offsets in zip(self.motifs, self.offsets, strict=True):
            letters.extend(np.repeat(motif, np.diff(offsets, append=offsets[-1] + 1)).tolist())
        letters.extend([letters[-1]] * (self.length - len(letters)))
        return self._strings(np.array([letters]))[0]

    def _tokens(self, X: Any) -> Tokens:
        """Letter codes (n, length)."""
        return self.space.encode(X).argmax(dim=-1).numpy()

    def _strings(self, tokens: Tokens) -> list[str]:
        """Sequences of letter codes."""
        return ["".join(row) for row in np.array(list(self.space.alphabet))[tokens]]

    def _feasible(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Whether no neighbours (n, length) are banned."""
        allowed: NDArray[np.bool_] = self.transitions[tokens[:, :-1], tokens[:, 1:]] > 0
        return np.asarray(allowed.all(axis=1))

    def _qualities(self, tokens: Tokens) -> Values:
        """Largest quantised share (n, n_motifs) over the positions at which each motif can start."""
        shares = []
        for motif, offsets in zip(self.motifs, self.offsets, strict=True):
            places = np.arange(self.length - offsets[-1])[:, None] + offsets  # (starts, motif_length)
            matches = (tokens[:, places] == motif).sum(axis=2).max(axis=1)
            shares.append(matches * self.quantization // len(motif) / self.quantization)
        return np.stack(shares, axis=1)


def _transitions(n_letters: int, rng: RandomState) -> Values:
    """A transition matrix with banned pairs, in which every letter repeats and reaches every other."""
    n_banned = max(1, round(BANNED_SHARE * (n_letters - 1)))
    while True:
        weights = np.exp(rng.normal(size=(n_letters, n_letters)) / TEMPERATURE)
        for i, row in enumerate(weights):
            row[rng.choice(np.delete(np.arange(n_letters), i), n_banned, replace=False)] = 0.0
        # Self-transitions make it aperiodic; a power without zeros makes it irreducible.
        reached = np.linalg.matrix_power((weights > 0).astype(float), n_letters)
        if (reached > 0).all():
            return weights / weights.sum(axis=1, keepdims=True)


def _stationary(transitions: Values) -> Values:
    """The law that the transitions keep."""
    n = len(transitions)
    system = np.vstack([transitions.T - np.eye(n), np.ones(n)])
    law = np.linalg.lstsq(system, np.append(np.zeros(n), 1.0), rcond=None)[0].clip(min=0)
    return law / law.sum()


def _motifs(initial: Values, transitions: Values, n_motifs: int, motif_length: int, rng: RandomState) -> Tokens:
    """Motifs (n_motifs, motif_length): one walk, without repeats of a letter, cut into equal parts.

    The walk is feasible, so the motifs can stand one after the other, with letters repeated between their own.
    """
    moving = transitions * (1 - np.eye(len(transitions)))
    moving /= moving.sum(axis=1, keepdims=True)
    return _walk(initial, moving, 1, n_motifs * motif_length, rng).reshape(n_motifs, motif_length)


def _offsets(room: int, motif_length: int, rng: RandomState) -> Tokens:
    """Increasing places (motif_length,) from 0 to below room, drawn uniformly."""
    later = rng.choice(np.arange(1, room), motif_length - 1, replace=False)
    return np.append(0, np.sort(later))


def _walk(initial: Values, transitions: Values, n: int, length: int, rng: RandomState) -> Tokens:
    """Letters (n, length) of a Markov chain, by the inverse distribution function."""
    cumulative = transitions.cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    first = initial.cumsum() / initial.sum()
    tokens = np.empty((n, length), dtype=np.int64)
    tokens[:, 0] = np.searchsorted(first, rng.random_sample(n), side="right")
    for i in range(1, length):
        uniform = rng.random_sample(n)
        tokens[:, i] = (uniform[:, None] >= cumulative[tokens[:, i - 1]]).sum(axis=1)
    return tokens
