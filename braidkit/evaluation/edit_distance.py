"""Edit (Levenshtein) distance from a few designs to very many sequences.

Bit-parallel dynamic programming (Myers, J. ACM 46:395, 1999, in the form of Hyyro, Nordic J. Computing 10:29,
2003): one column of the table of a sequence is held as bits of 64-bit words, and NumPy moves many sequences
on at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from braidkit.exceptions import InvalidDesignError

# The rows whose working arrays fit the cache of a core together.
_CHUNK = 8192
_ONE = np.uint64(1)
_TOP = np.uint64(63)


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

    Examples
    --------
    >>> edit_distances(["ACGT"], ["ACGT", "CGT", "AGGTT"]).tolist()
    [[0, 1, 2]]
    """
    queries = as_strings(queries)
    chunks = [_Packed(chunk) for chunk in _chunks(as_strings(references))]
    return np.stack([np.concatenate([chunk.distances(query) for chunk in chunks]) for query in queries])


def nearest(designs: Sequence[str], reference: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Nearest reference sequence of each design by edit distance; the search is exhaustive, so it is exact.

    Parameters
    ----------
    designs, reference : sequence of str
        Of any lengths.

    Returns
    -------
    index : ndarray of shape (n_designs,)
        Place of the nearest sequence in `reference`, the first of them where several are as near.
    distance : ndarray of shape (n_designs,)
        Edit distance to it.

    Examples
    --------
    >>> index, distance = nearest(["ACGT"], ["TTTT", "ACT"])
    >>> index.tolist(), distance.tolist()
    ([1], [1])
    """
    designs, reference = as_strings(designs), as_strings(reference)
    index = np.zeros(len(designs), dtype=np.int64)
    distance = np.full(len(designs), np.iinfo(np.int64).max)
    for i, chunk in enumerate(_chunks(reference)):
        packed = _Packed(chunk)
        for j, design in enumerate(designs):
            distances = packed.distances(design)
            best = int(distances.argmin())
            if distances[best] < distance[j]:
                index[j], distance[j] = i * _CHUNK + best, distances[best]
    return index, distance


def as_strings(sequences: Sequence[str]) -> list[str]:
    """The sequences as a list; refused when empty or when an entry is no string or an empty one."""
    rows = [sequences] if isinstance(sequences, str) else list(sequences)
    for i, row in enumerate(rows):
        if not isinstance(row, str) or not row:
            raise InvalidDesignError(f"row {i:,} is {row!r}; sequences must be strings of at least one letter.")
    if not rows:
        raise InvalidDesignError("the list of sequences is empty; pass at least one sequence.")
    return [str(row) for row in rows]


def code_points(sequences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Unicode numbers of all letters end to end (total,), and the lengths of the sequences (n,)."""
    letters = np.frombuffer("".join(sequences).encode("utf-32-le"), dtype=np.uint32)
    return letters, np.array([len(row) for row in sequences])


def _chunks(sequences: list[str]) -> list[list[str]]:
    """Runs of at most `_CHUNK` sequences."""
    return [sequences[start : start + _CHUNK] for start in range(0, len(sequences), _CHUNK)]


class _Packed:
    """Sequences as bits: bit i of word w of `match[letter, w]` says that position 64 w + i is that letter."""

    def __init__(self, sequences: list[str]) -> None:
        letters, lengths = code_points(sequences)
        n, words = len(sequences), (int(lengths.max()) + 63) // 64
        alphabet, codes = np.unique(letters, return_inverse=True)
        self._code = {chr(letter): code for code, letter in enumerate(alphabet)}
        rows = np.repeat(np.arange(n), lengths)
        positions = np.arange(len(letters)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        bits = np.left_shift(_ONE, (positions % 64).astype(np.uint64))
        # The last entry stands for letters that no sequence has.
        self._match = np.zeros((len(alphabet) + 1, words, n), dtype=np.uint64)
        np.bitwise_or.at(self._match, (codes, positions // 64, rows), bits)
        self._within = np.bitwise_or.reduce(self._match, axis=0)  # (words, n)
        self._column = np.empty((2, words, n), dtype=np.uint64)
        self._scratch = np.empty((4, n), dtype=np.uint64)

    def distances(self, query: str) -> np.ndarray:
        """Edit distance of the query to each sequence, (n,)."""
        up, down = self._column  # where the column steps up and down by one, (words, n) each
        t, xv, ph, mh = self._scratch
        up.fill(~np.uint64(0))
        down.fill(0)
        for letter in query:
            match = self._match[self._code.get(letter, -1)]
            # The row above the first grows by one with each letter of the query.
            carry_up: np.uint64 | np.ndarray = _ONE
            carry_down: np.uint64 | np.ndarray = np.uint64(0)
            last = len(match) - 1
            for w, (eq, pv, mv) in enumerate(zip(match, up, down, strict=True)):
                np.bitwise_or(eq, mv, out=xv)
                # Diagonal zeros: (((eq & pv) + pv) ^ pv) | eq, with a step down that enters this word.
                entering_up, entering_down = carry_up, carry_down
                if w:
                    eq = np.bitwise_or(eq, entering_down)
                np.bitwise_and(eq, pv, out=t)
                np.add(t, pv, out=t)
                np.bitwise_xor(t, pv, out=t)
                np.bitwise_or(t, eq, out=t)
                # Horizontal differences +1 = mv | ~(zeros | pv) and -1 = pv & zeros.
                np.bitwise_or(t, pv, out=ph)
                np.invert(ph, out=ph)
                np.bitwise_or(ph, mv, out=ph)
                np.bitwise_and(pv, t, out=mh)
                if w < last:
                    carry_up, carry_down = ph >> _TOP, mh >> _TOP
                np.left_shift(ph, _ONE, out=ph)
                np.bitwise_or(ph, entering_up, out=ph)
                np.left_shift(mh, _ONE, out=mh)
                if w:
                    np.bitwise_or(mh, entering_down, out=mh)
                # Vertical differences +1 = mh | ~(xv | ph) and -1 = ph & xv.
                np.bitwise_or(xv, ph, out=pv)
                np.invert(pv, out=pv)
                np.bitwise_or(pv, mh, out=pv)
                np.bitwise_and(ph, xv, out=mv)
        return len(query) + self._count(up) - self._count(down)

    def _count(self, words: np.ndarray) -> np.ndarray:
        """Bits set within each sequence, (n,)."""
        return np.bitwise_count(words & self._within).sum(axis=0, dtype=np.int64)
