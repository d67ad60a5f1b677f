"""Families of near-copies: the effective number of designs in a set, and rows that must stay in one fold."""

from __future__ import annotations

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

# Two sequences of a family differ by at most this share of their letters, or are linked by such pairs.
NEAR = 0.2


def families(sequences: list[str], sizes: tuple[int, ...], *, least: int) -> np.ndarray:
    """Number the families of near-copies in several sets together.

    Near-copies are pairs with at most 20 % edits, and sequences that such pairs link. If a set then has fewer than
    `least` families, as the mutants of one protein, the limit is halved. In the end only equal sequences are a family.

    Parameters
    ----------
    sequences : list of str
        The sets, one after the other.
    sizes : tuple of int
        Sequences in each set.
    least : int
        Families that each set should have, as an effective number.

    Returns
    -------
    family : ndarray of shape (n_sequences,)
        From 0.

    Examples
    --------
    >>> families(["AAAAAAAAAA", "AAAAAAAAAC", "GTGTGTGTGT"], (3,), least=1).tolist()
    [0, 0, 1]
    """
    different, row = np.unique(np.array(sequences, dtype=object), return_inverse=True)
    limit = int(NEAR * np.median([len(sequence) for sequence in different]))
    dtype = np.uint8 if limit < 255 else np.uint32
    distance = cdist(
        different.tolist(), different.tolist(), scorer=Levenshtein.distance, score_cutoff=limit, dtype=dtype
    )
    ends = np.cumsum(sizes)[:-1]
    while True:
        family = connected_components(csr_array(distance <= limit), directed=False)[1][row]
        if limit == 0 or min(map(effective_number, np.split(family, ends))) >= least:
            return family
        limit //= 2


def effective_number(family: np.ndarray) -> float:
    """The effective number of families: the inverse of the chance that two rows are of one family.

    Examples
    --------
    >>> effective_number(np.array([0, 0, 1, 1]))
    2.0
    >>> round(effective_number(np.array([0] * 290 + [1, 2, 3])), 2)
    1.02
    """
    counts = np.bincount(family).astype(float)
    return float(counts.sum() ** 2 / np.square(counts).sum())
