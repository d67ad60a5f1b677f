"""Landscapes whose truth is known for every design, and small noisy tables of their lower part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from braidkit.datasets import make_ehrlich, make_utr
from braidkit.oracles import EhrlichLandscape, Optimus5Prime, UTRLandscape

Tokens = NDArray[np.int64]  # (n, length): numbers of letters
Values = NDArray[np.float64]
PROTEIN = "ACDEFGHIKLMNPQRSTVWY"
NOISE = 0.25  # of the measurements, in standard deviations of the truth


@dataclass(frozen=True)
class Landscape:
    """What a laboratory could measure, and what only the benchmark knows.

    Attributes
    ----------
    alphabet : str
    length : int
    pool : callable
        ``pool(n, seed)``: sequences that could have been measured, and their noise.
    truth : callable
        Exact value of sequences; of an impossible one the least.
    valid : callable
        Whether sequences are possible.
    quantile : float
        Rows measured below this quantile of the pool are shown.
    """

    alphabet: str
    length: int
    pool: Callable[[int, int], tuple[NDArray[np.object_], Values]]
    truth: Callable[[NDArray[np.object_]], Values]
    valid: Callable[[NDArray[np.object_]], NDArray[np.bool_]]
    quantile: float = 0.6

    @property
    def small(self) -> bool:
        """Whether all designs can be looked at."""
        return len(self.alphabet) ** self.length <= 200_000

    def tokens(self, X: NDArray[np.object_]) -> Tokens:
        """Numbers of letters (n, length)."""
        codes = np.full(128, -1)
        codes[np.frombuffer(self.alphabet.encode(), np.uint8)] = np.arange(len(self.alphabet))
        return codes[np.array([np.frombuffer(x.encode(), np.uint8) for x in X])]

    def strings(self, tokens: Tokens) -> NDArray[np.object_]:
        """Sequences of numbers of letters."""
        return np.array(["".join(row) for row in np.array(list(self.alphabet))[tokens]], dtype=object)

    def rows(self, n: int, seed: int) -> Rows:
        """A table of n rows below the quantile, and fresh rows of the same kind and above it, without noise."""
        X, noise = self.pool(max(4 * n, 8000), seed)
        X, first = np.unique(X.astype(str), return_index=True)
        order = np.random.default_rng(seed).permutation(len(X))
        X, noise = X[order].astype(object), noise[first][order]
        truth = self.truth(X)
        y = truth + noise * truth.std()
        low = np.flatnonzero(y <= np.quantile(y, self.quantile))
        high = np.flatnonzero(y > np.quantile(y, self.quantile))[:2000]
        shown, fresh = low[:n], low[n : n + 2000]
        if len(shown) < n:
            raise ValueError(f"only {len(shown)} of {n} rows lie below the quantile; draw a larger pool.")
        return Rows(X[shown], y[shown], truth[shown], X[fresh], truth[fresh], X[high], truth[high])


@dataclass(frozen=True)
class Rows:
    """A small table, and rows by which rewards are judged."""

    X: NDArray[np.object_]
    y: Values
    truth: Values
    X_fresh: NDArray[np.object_]
    truth_fresh: Values
    X_high: NDArray[np.object_]
    truth_high: Values


def ehrlich(alphabet: str, length: int, n_motifs: int, motif_length: int) -> Landscape:
    """An Ehrlich function, infeasible sequences counting 0."""
    oracle = EhrlichLandscape(alphabet, length, n_motifs=n_motifs, motif_length=motif_length, random_state=0)

    def pool(n: int, seed: int) -> tuple[NDArray[np.object_], Values]:
        X, _ = make_ehrlich(n, landscape=oracle, random_state=seed)
        return X, NOISE * np.random.default_rng(seed).normal(size=n)

    return Landscape(oracle.space.alphabet, length, pool, oracle.predict, oracle.is_valid)


def table(path: Path, sequence: str, target: str, alphabet: str, quantile: float = 0.6) -> Landscape:
    """A table of all, or nearly all, designs; one that it lacks is impossible and has the least value."""
    frame = pd.read_csv(path)
    values = dict(zip(frame[sequence], frame[target].astype(float), strict=True))
    X = frame[sequence].to_numpy(dtype=object)
    least = min(values.values())

    def pool(n: int, seed: int) -> tuple[NDArray[np.object_], Values]:
        rng = np.random.default_rng(seed)
        return X[rng.permutation(len(X))[: len(X) // 2]], NOISE * rng.normal(size=len(X) // 2)

    return Landscape(
        alphabet,
        len(X[0]),
        pool,
        lambda X: np.array([values.get(x, least) for x in X]),
        lambda X: np.array([x in values for x in X], dtype=bool),
        quantile,
    )


def utr() -> Landscape:
    """The generated 5'UTRs."""
    oracle = UTRLandscape()

    def pool(n: int, seed: int) -> tuple[NDArray[np.object_], Values]:
        X, _ = make_utr(n, random_state=seed)
        return X, NOISE * np.random.default_rng(seed).normal(size=n)

    return Landscape("ACGT", 50, pool, oracle.predict, oracle.is_valid)


def measured_utr(home: Path) -> Landscape:
    """Measured random 5'UTRs; the truth is what Optimus 5-Prime predicts."""
    oracle = Optimus5Prime.from_npz(home / "optimus5p_mrl.npz")
    X = pd.read_csv(home / "utr_mrl.csv.gz")["sequence"].to_numpy(dtype=object)

    def pool(n: int, seed: int) -> tuple[NDArray[np.object_], Values]:
        rng = np.random.default_rng(seed)
        return X[rng.permutation(len(X))[:n]], NOISE * rng.normal(size=n)

    def truth(X: NDArray[np.object_]) -> Values:
        return np.asarray(oracle.predict(list(X)), float)

    return Landscape("ACGT", 50, pool, truth, lambda X: np.ones(len(X), dtype=bool))


def epistatic() -> Landscape:
    """Ten nucleotides: effects of letters, of 12 pairs and of 6 triples, drawn at random."""
    rng, length, n_letters = np.random.default_rng(100), 10, 4
    single = rng.normal(size=(length, n_letters))
    pairs = [sorted(rng.choice(length, 2, replace=False)) for _ in range(12)]
    of_pairs = rng.normal(size=(12, n_letters, n_letters))
    triples = [sorted(rng.choice(length, 3, replace=False)) for _ in range(6)]
    of_triples = rng.normal(size=(6, n_letters, n_letters, n_letters)) * 1.2

    def truth(X: NDArray[np.object_]) -> Values:
        t = landscape.tokens(X)
        value = single[np.arange(length), t].sum(axis=1)
        for (i, j), effect in zip(pairs, of_pairs, strict=True):
            value = value + effect[t[:, i], t[:, j]]
        for (i, j, k), effect in zip(triples, of_triples, strict=True):
            value = value + effect[t[:, i], t[:, j], t[:, k]]
        return value / 6

    def pool(n: int, seed: int) -> tuple[NDArray[np.object_], Values]:
        rng = np.random.default_rng(seed)
        X = np.array(["".join(rng.choice(list("ACGT"), length)) for _ in range(n)], dtype=object)
        return X, NOISE * rng.normal(size=n)

    landscape = Landscape("ACGT", length, pool, truth, lambda X: np.ones(len(X), dtype=bool))
    return landscape


def variants() -> Landscape:
    """Variants of a protein of 40 residues, 3.5 mutations each: most do harm, pairs interact, activity saturates."""
    rng, length, n_letters = np.random.default_rng(300), 40, 20
    parent = rng.integers(n_letters, size=length)
    effect = -np.abs(rng.normal(size=(length, n_letters)))
    effect *= rng.choice([0.1, 0.3, 1.5], size=(length, 1), p=[0.4, 0.3, 0.3])
    good = rng.random((length, n_letters)) < 0.06
    effect[good] = np.abs(rng.normal(size=good.sum())) * 0.6
    effect[np.arange(length), parent] = 0
    pairs = [tuple(rng.choice(length, 2, replace=False)) for _ in range(30)]
    of_pairs = rng.normal(size=(30, n_letters, n_letters)) * 0.5
    for (i, j), table_of_pair in zip(pairs, of_pairs, strict=True):
        table_of_pair[parent[i], :] = 0
        table_of_pair[:, parent[j]] = 0

    def truth(X: NDArray[np.object_]) -> Values:
        t = landscape.tokens(X)
        value = effect[np.arange(length), t].sum(axis=1)
        for (i, j), table_of_pair in zip(pairs, of_pairs, strict=True):
            value = value + table_of_pair[t[:, i], t[:, j]]
        return 4 / (1 + np.exp(0.5 - value))

    def pool(n: int, seed: int) -> tuple[NDArray[np.object_], Values]:
        rng, tokens = np.random.default_rng(seed), np.tile(parent, (n, 1))
        for row in tokens:
            mutated = rng.choice(length, min(1 + rng.poisson(2.5), length), replace=False)
            row[mutated] = rng.integers(n_letters, size=len(mutated))
        return landscape.strings(tokens), NOISE * rng.normal(size=n)

    landscape = Landscape(PROTEIN, length, pool, truth, lambda X: np.ones(len(X), dtype=bool), 0.8)
    return landscape


def landscapes(home: Path) -> dict[str, Callable[[], Landscape]]:
    """Landscapes by name."""
    tfbind8, gb1 = home / "tfbind8.csv.gz", home / "gb1_4site.csv.gz"
    return {
        "ehrlich-20-32": lambda: ehrlich("protein", 32, 2, 4),
        "ehrlich-4-30": lambda: ehrlich("DNA", 30, 3, 4),
        "ehrlich-20-64": lambda: ehrlich("protein", 64, 2, 4),
        "crx": lambda: table(tfbind8, "sequence", "CRX", "ACGT"),
        "gfi1": lambda: table(tfbind8, "sequence", "GFI1", "ACGT"),
        "pax4": lambda: table(tfbind8, "sequence", "PAX4", "ACGT"),
        # Nearly all variants are dead: below a lower quantile there would be nothing to learn.
        "gb1": lambda: table(gb1, "variant", "fitness", PROTEIN, 0.95),
        "utr": utr,
        "utr-measured": lambda: measured_utr(home),
        "epistatic-4-10": epistatic,
        "variants-20-40": variants,
    }
