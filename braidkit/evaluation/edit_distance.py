"""Edit (Levenshtein) distances between sequences, by rapidfuzz."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from braidkit.exceptions import InvalidDesignError
from braidkit.spaces import read_designs

# Most distances that are held at once: 64 MiB of them.
_BLOCK = 2**24


def edit_distances(queries: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Edit distance of every query to every reference.

    Parameters
    ----------
    queries, references : sequence of str
        Of any lengths.

    Returns
    -------
    distances : ndarray of shape (n_queries, n_references)
        The least number of letters to insert, delete or replace.

    Raises
    ------
    InvalidDesignError
        If a set is empty, or an entry is not a string of at least one letter.

    Examples
    --------
    >>> edit_distances(["ACGT"], ["ACGT", "CGT", "AGGTT"]).tolist()
    [[0, 1, 2]]
    """
    return _distances(as_strings(queries), as_strings(references))


def nearest(designs: Sequence[str], reference: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Nearest reference sequence of each design by edit distance. The search is exhaustive, so it is exact.

    Parameters
    ----------
    designs, reference : sequence of str
        Of any lengths.

    Returns
    -------
    index : ndarray of shape (n_designs,)
        Place of the nearest sequence in `reference`; the first of several that are equally near.
    distance : ndarray of shape (n_designs,)
        Edit distance to it.

    Raises
    ------
    InvalidDesignError
        If a set is empty, or an entry is not a string of at least one letter.

    Examples
    --------
    >>> index, distance = nearest(["ACGT"], ["TTTT", "ACT"])
    >>> index.tolist(), distance.tolist()
    ([1], [1])
    """
    designs, reference = as_strings(designs), as_strings(reference)
    index, distance = np.empty((2, len(designs)), dtype=np.int64)
    size = max(1, _BLOCK // len(reference))
    for start in range(0, len(designs), size):
        block = slice(start, start + size)
        distances = _distances(designs[block], reference)
        index[block], distance[block] = distances.argmin(axis=1), distances.min(axis=1)
    return index, distance


def as_strings(sequences: Any) -> list[str]:
    """The sequences as a list; refused when empty or when an entry is not a string of at least one letter."""
    rows = read_designs(sequences).tolist()
    for i, row in enumerate(rows):
        if not isinstance(row, str) or not row:
            raise InvalidDesignError(f"row {i:,} is {row!r}; sequences must be strings of at least one letter.")
    if not rows:
        raise InvalidDesignError("the list of sequences is empty; pass at least one sequence.")
    return rows


def _distances(queries: list[str], references: list[str]) -> np.ndarray:
    return cdist(queries, references, scorer=Levenshtein.distance, dtype=np.int32)
