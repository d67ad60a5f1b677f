"""Fitting Markov laws to sequences: frequencies of letters and of words, mixed as held-out rows want it.

A law of order m is a mixture of *levels*, from the coarsest to the finest: uniform letters; the letters' frequencies;
their frequencies by position; then for o = 1, ..., m the frequencies of a letter after the o letters before it,
anywhere, and by position. Level h takes the share ``w = s_h n / (n + a_h)`` from what coarser levels give,
``P_h = (1 - w) P_{h-1} + w f_h``, where n is how often its context was seen: nothing for a context that is new. All s
and a are those that make held-out rows likeliest.

References
----------
Jelinek and Mercer (1980), "Interpolated estimation of Markov source parameters from sparse data". Chen and Goodman
(1999), "An empirical study of smoothing techniques for language modeling".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]

N_FOLDS = 10
# Probability of a letter that the base makes impossible, so that its logarithm is finite.
_LEAST = 1e-12
# Held-out letters that the shares are fitted on.
_MAX_EVENTS = 50_000
# Expected counts from which a word that was never seen may be impossible.
_EXPECTED_COUNTS = (5.0, 10.0, 20.0, 40.0)
# How many words may be absent by chance among all that are called impossible, as far as the coarser law can tell.
_CHANCE = 0.05
# Share of held-out rows with a word that the other rows lack, and of held-out neighbours, up to which nothing is
# possible that was never seen: a reward that designs are tilted towards finds every gap.
_NEW_ROWS, _NEW_PAIRS = 0.02, 0.005


class Level(NamedTuple):
    """Frequencies of a letter after the `order` letters before it, anywhere or by position."""

    order: int
    by_position: bool


class Counts(NamedTuple):
    """Count the letters that follow each context at each position, by fold of the rows.

    Attributes
    ----------
    by_fold : ndarray of shape (n_folds, L, K ** order, K)
        Zero at positions that have fewer letters before them than `order`.
    """

    by_fold: Floats

    def of(self, level: Level, fold: int | None = None) -> Floats:
        """Counts (L or 1, K ** order, K) of all rows, or of those outside a fold."""
        counts = self.by_fold.sum(axis=0) - (0 if fold is None else self.by_fold[fold])
        return counts if level.by_position else counts.sum(axis=0, keepdims=True)


def levels_of(order: int) -> list[Level]:
    """The levels of a law, the coarsest first."""
    return [Level(o, by_position) for o in range(order + 1) for by_position in (False, True)]


def contexts_of(tokens: NDArray[np.int64], order: int, n_letters: int) -> NDArray[np.int64]:
    """Numbers (n, L) of the `order` letters before each position, the oldest most significant; 0 before the first."""
    padded = np.pad(tokens, ((0, 0), (order, 0)))
    numbers = np.zeros_like(tokens)
    for o in range(order):
        numbers = numbers * n_letters + padded[:, o : o + tokens.shape[1]]
    return numbers


def folds_of(tokens: NDArray[np.int64], rng: np.random.RandomState) -> NDArray[np.int64]:
    """A fold for each row (n, ...), the same for rows that are alike."""
    _, which = np.unique(tokens, axis=0, return_inverse=True)
    which = which.reshape(-1)
    return rng.permutation(np.arange(which.max() + 1) % N_FOLDS)[which]


def count(tokens: NDArray[np.int64], folds: NDArray[np.int64], weights: Floats, order: int, n_letters: int) -> Counts:
    """Weighted counts of letters after `order` others."""
    length, n_contexts = tokens.shape[1], n_letters**order
    cells = (contexts_of(tokens, order, n_letters) + n_contexts * np.arange(length)) * n_letters + tokens
    size = length * n_contexts * n_letters
    cells = cells + size * folds[:, None]
    used = cells[:, min(order, length) :]
    flat = np.bincount(used.ravel(), np.repeat(weights, used.shape[1]), minlength=N_FOLDS * size).astype(np.float64)
    return Counts(flat.reshape(N_FOLDS, length, n_contexts, n_letters))


class HeldOut(NamedTuple):
    """Probabilities of each fold's letters by the frequencies of the other folds; E letters, H levels.

    Attributes
    ----------
    contexts : ndarray of shape (H, E)
        How often each letter's context was seen.
    frequencies : ndarray of shape (H, E)
        Share of the letter after it; 0 for contexts that were not seen.
    weights : ndarray of shape (E,)
    base : ndarray of shape (E,)
        Probability of each letter before any level.
    """

    contexts: Floats
    frequencies: Floats
    weights: Floats
    base: Floats


def held_out(
    tokens: NDArray[np.int64],
    folds: NDArray[np.int64],
    weights: Floats,
    counts: list[Counts],
    n_letters: int,
    base: Floats | None = None,
) -> HeldOut:
    """Look rows up in the frequencies of the other folds; counts are by order.

    Before any level, letters have the probabilities of a table (L, K ** order, K), or are uniform.
    """
    length = tokens.shape[1]
    positions = np.arange(length)
    contexts, frequencies = [], []
    for order, table in enumerate(counts):
        numbers = contexts_of(tokens, order, n_letters)
        for by_position in (False, True):
            level = Level(order, by_position)
            seen, hits = np.zeros(tokens.shape), np.zeros(tokens.shape)
            where = positions if by_position else np.zeros_like(positions)
            for fold in range(N_FOLDS):
                rows = folds == fold
                others = table.of(level, fold)
                seen[rows] = others.sum(axis=2)[where, numbers[rows]]
                hits[rows] = others[where, numbers[rows], tokens[rows]]
            seen[:, :order] = 0
            contexts.append(seen.ravel())
            frequencies.append((hits / np.maximum(seen, 1e-300)).ravel() * (seen.ravel() > 0))
    start = np.full(tokens.shape, 1 / n_letters)
    if base is not None:
        order = round(math.log(base.shape[1], n_letters))
        start = base[positions, contexts_of(tokens, order, n_letters), tokens].clip(_LEAST)
    return HeldOut(np.stack(contexts), np.stack(frequencies), np.repeat(weights, length), start.ravel())


def mixture(parameters: Floats, events: HeldOut) -> tuple[Floats, list[Floats], list[Floats]]:
    """Probabilities of the letters after each level, from the base on, and each level's shares."""
    ceiling, half = _unpacked(parameters)
    p, shares = [events.base], []
    for h, (n, f) in enumerate(zip(events.contexts, events.frequencies, strict=True)):
        shares.append(ceiling[h] * n / (n + half[h]))
        p.append(p[-1] + shares[-1] * (f - p[-1]))
    return p[-1], p, shares


def fit_shares(events: HeldOut, start: Floats) -> Floats:
    """Parameters (2 H,) of the levels' shares that make held-out letters likeliest; `start` is for the coarsest."""
    n_levels = len(events.contexts)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        p_last, p, shares = mixture(parameters, events)
        ceiling, half = _unpacked(parameters)
        total = events.weights.sum()
        rest, gradient = events.weights / p_last, np.zeros_like(parameters)
        for h in range(n_levels - 1, -1, -1):
            n = events.contexts[h]
            by_share = rest * (events.frequencies[h] - p[h])
            gradient[h] = (by_share * shares[h]).sum() * (1 - ceiling[h])
            gradient[n_levels + h] = -(by_share * shares[h] / (n + half[h])).sum() * half[h]
            rest = rest * (1 - shares[h])
        # A weak prior on the parameters: what the rows do not decide stays where it is.
        away = parameters - _default(n_levels)
        value = -(events.weights * np.log(p_last)).sum() + 0.01 * away @ away
        return value / total, (-gradient + 0.02 * away) / total

    half_start = len(start) // 2
    begin = _default(n_levels)
    begin[:half_start], begin[n_levels : n_levels + half_start] = start[:half_start], start[half_start:]
    bounds = [(-12.0, 12.0)] * n_levels + [(-7.0, 14.0)] * n_levels
    return minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}).x


def _default(n_levels: int) -> Floats:
    """Shares of 0.9, reached by half where a context was seen three times."""
    return np.repeat([2.2, 1.1], n_levels)


def _unpacked(parameters: Floats) -> tuple[Floats, Floats]:
    """The levels' shares of contexts that were seen often, and the counts at which half of it is reached."""
    s, a = np.split(parameters, 2)
    return 1 / (1 + np.exp(-s)), np.exp(a)


def transition_tables(counts: list[Counts], parameters: Floats, n_letters: int, base: Floats | None = None) -> Floats:
    """Transitions (L, K ** order, K) of the mixture, without what cannot be; counts are by order.

    With a `base` of the same shape, the mixture starts from that, and what it makes impossible stays so.
    """
    order = len(counts) - 1
    length = counts[0].by_fold.shape[1]
    ceiling, half = _unpacked(parameters)
    p = np.full((length, n_letters**order, n_letters), 1 / n_letters) if base is None else base
    possible = p > 0
    for h, level in enumerate(levels_of(order)):
        table = counts[level.order].of(level)
        n = table.sum(axis=2, keepdims=True)
        f = table / np.maximum(n, 1e-300)
        share = np.broadcast_to(ceiling[h] * n / (n + half[h]), (length, *n.shape[1:])).copy()
        share[: level.order] = 0
        allowed = _allowed(level, counts[level.order], p, possible, is_draw=base is not None)
        p = p + _widened(share, order, n_letters) * (_widened(f, order, n_letters) - p)
        possible = possible & _widened(allowed, order, n_letters)
    return _trimmed(p, possible)


def _allowed(
    level: Level, counts: Counts, p: Floats, possible: NDArray[np.bool_], *, is_draw: bool
) -> NDArray[np.bool_]:
    """Booleans (L, K ** order, K): the letters that may follow each context, as far as this level shows.

    Where held-out rows hardly ever have a word that the other rows lack, a word that was never seen is impossible.
    Elsewhere it is so if coarser levels expect it so often that its absence is no chance, for none of all such words,
    and if no word of a fold's rows is impossible by the same rule in the other folds; but not among draws of a law,
    whose own support holds.
    """
    n_letters = p.shape[2]
    table = counts.of(level)
    allowed = np.ones(table.shape, dtype=bool)
    coarse = np.where(possible, p, 0.0)
    coarse = coarse / np.maximum(coarse.sum(axis=2, keepdims=True), 1e-300)
    # The coarser law's letters after this level's shorter contexts, which it does not tell apart any further.
    coarse = coarse.reshape(len(p), -1, n_letters**level.order, n_letters)[:, 0]
    visits = counts.by_fold.sum(axis=(0, 3))[:, :, None]
    expected = visits * coarse
    folds = counts.by_fold
    if not level.by_position:
        expected, folds = expected.sum(axis=0, keepdims=True), folds.sum(axis=1, keepdims=True)
    in_one_fold = (folds > 0).sum(axis=0) == 1
    n_new = folds.sum(axis=0)[in_one_fold].sum()
    pairs_anywhere = level == Level(1, by_position=False)
    if n_new <= _NEW_ROWS * visits.sum(axis=1).max() or (pairs_anywhere and n_new <= _NEW_PAIRS * visits.sum()):
        allowed = np.broadcast_to(table > 0, (len(p), *table.shape[1:])).copy()
        allowed[: level.order] = True
        return allowed
    if is_draw:
        return np.ones_like(p, dtype=bool)[:, : n_letters**level.order]
    largest = (expected * (1 - 1 / N_FOLDS))[in_one_fold].max(initial=0.0)
    for enough in _EXPECTED_COUNTS:
        if largest < enough and np.exp(-expected[expected >= enough]).sum() < _CHANCE:
            allowed[(table == 0) & (expected >= enough)] = False
            break
    allowed = np.broadcast_to(allowed, (len(p), *table.shape[1:])).copy()
    allowed[: level.order] = True
    return allowed


def _widened(table: NDArray, order: int, n_letters: int) -> NDArray:
    """A table of shorter contexts (..., K ** o, K or 1), for all contexts of `order` letters that end in them."""
    return np.tile(table, (1, n_letters**order // table.shape[1], 1))


def _trimmed(p: Floats, possible: NDArray[np.bool_]) -> Floats:
    """The law restricted to what is possible; a letter that nothing may follow is impossible too."""
    length, n_contexts, n_letters = p.shape
    restricted = np.where(possible, p, 0.0)
    alive = np.ones(n_contexts, dtype=bool)
    after = (np.arange(n_contexts)[:, None] * n_letters + np.arange(n_letters)) % n_contexts
    for i in range(length - 1, -1, -1):
        restricted[i] *= alive[after]
        alive = restricted[i].sum(axis=1) > 0
        # No sequence comes to a dead context, so that anything may stand there.
        restricted[i, ~alive] = p[i, ~alive]
    return restricted / restricted.sum(axis=2, keepdims=True)
