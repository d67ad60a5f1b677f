"""Measured antibodies that may be designed from, splits of their rows, and the figures of the benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from braidkit import MaskedDiffusion, SequenceSpace

Strings = NDArray[np.object_]
Values = NDArray[np.float64]

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
QUANTILE = 0.8
N_REPLACED = 3  # letters of a random mutant
TITESEQ_ROWS = 800


@dataclass(frozen=True)
class Antibodies:
    """Measured variants of one chain.

    Attributes
    ----------
    X, y : ndarray of shape (n,)
        Rows that methods may learn from, and their affinities, -log10 of KD in M.
    all_X, all_y : ndarray
        All measured rows, for the judge.
    free : list of int
        Positions that vary; all others are held.
    """

    X: Strings
    y: Values
    all_X: Strings
    all_y: Values
    free: list[int]

    @property
    def space(self) -> SequenceSpace:
        template = ["_" if i in self.free else letter for i, letter in enumerate(self.X[0])]
        return SequenceSpace("protein", template="".join(template))

    @property
    def cut(self) -> float:
        """The quantile of affinity that splits the rows."""
        return float(np.quantile(self.y, QUANTILE))

    @property
    def below(self) -> tuple[Strings, Values]:
        return self.X[self.y <= self.cut], self.y[self.y <= self.cut]

    @property
    def binders(self) -> Strings:
        """Rows above the quantile."""
        return self.X[self.y > self.cut]


def her2(data_home: Path) -> Antibodies:
    """Binders that differ from trastuzumab in CDR3 alone, in 13 letters as it has."""
    table = pd.read_csv(data_home / "antibody_her2_spr.csv.gz").dropna(subset="minus_log10_kd")
    table = table[(table["cdr1"] == "GFNIKDTY") & (table["cdr2"] == "IYPTNGYT") & (table["cdr3"].str.len() == 13)]
    X, y = table["sequence"].to_numpy(dtype=object), table["minus_log10_kd"].to_numpy()
    return Antibodies(X, y, X, y, varying(X))


def titeseq(data_home: Path) -> Antibodies:
    """Variants of 4-4-20, with the mean of their replicates."""
    table = pd.read_csv(data_home / "antibody_titeseq.csv.gz")
    y = table.filter(like="minus_log10_kd").mean(axis=1)
    X, y = table["sequence"][y.notna()].to_numpy(dtype=object), y.dropna().to_numpy()
    rows = np.sort(np.random.default_rng(0).permutation(len(y))[:TITESEQ_ROWS])
    return Antibodies(X[rows], y[rows], X, y, varying(X))


TABLES: dict[str, Callable[[Path], Antibodies]] = {"trastuzumab": her2, "4-4-20": titeseq}


def varying(X: Strings) -> list[int]:
    """Positions at which rows differ."""
    letters = np.array([list(row) for row in X])
    return np.flatnonzero((letters != letters[0]).any(axis=0)).tolist()


def split(data: Antibodies, kind: str, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from and to be judged by: a fifth at random, or those above the quantile by 90 % of the others."""
    order = np.random.default_rng(seed).permutation(len(data.y))
    if kind == "random":
        n = len(order) // 5
        return order[n:], order[:n]
    low = order[data.y[order] <= data.cut]
    return low[len(low) // 10 :], np.flatnonzero(data.y > data.cut)


def quality(predicted: Values, y: Values) -> dict[str, float]:
    """R2 and Spearman's correlation of predictions, and by how much they are too low on average."""
    residual = float(((predicted - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    return {
        "R2": 1 - residual,
        "rank": float(spearmanr(predicted, y).statistic),
        "too low": float((y - predicted).mean()),
    }


@torch.no_grad()
def pseudo_perplexity(chain: MaskedDiffusion, X: list[str]) -> Values:
    """Of each sequence the exponential of the mean nats of its free letters, each hidden alone."""
    space = chain.space
    x = space.encode(X)
    free = [i for i, letter in enumerate(space.template or "_" * space.length) if letter == "_"]
    nats = torch.zeros(len(x))
    for position in free:
        state = x.clone()
        state[:, position] = 0
        nats -= (chain.letter_log_probs(state)[:, position] * x[:, position]).sum(dim=-1)
    return (nats / len(free)).exp().double().numpy()


def replaced(X: Strings, free: list[int], n: int, seed: int) -> list[str]:
    """Sequences of X, drawn at random, with `N_REPLACED` free letters replaced by other ones."""
    rng = np.random.default_rng(seed)
    mutants = []
    for row in rng.choice(X, size=n):
        letters = list(row)
        for position in rng.choice(free, size=N_REPLACED, replace=False):
            letters[position] = rng.choice([a for a in RESIDUES if a != letters[position]])
        mutants.append("".join(letters))
    return mutants


def among_measured(designs: list[str], X: Strings, y: Values) -> dict[str, float]:
    """The share of designs that were measured, and the mean of their measurements."""
    known = dict(zip(X, y, strict=True))
    values = [known[design] for design in designs if design in known]
    return {"measured": len(values) / len(designs), "their mean": float(np.mean(values)) if values else math.nan}
