"""Base of the oracles, and the check that an oracle shares no training rows with a method that it judges."""

from __future__ import annotations

import abc
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braidkit.exceptions import InvalidDesignError
from braidkit.spaces import is_strings, read_designs


class Oracle(abc.ABC):
    """A stand-in for the laboratory: ``predict(X)``, or a call with the designs.

    One that was trained on rows of ours keeps their digests, ``row_hashes_``, for `refuse_shared_rows`.
    """

    @abc.abstractmethod
    def predict(self, X: Any) -> NDArray[Any]:
        """Reward of each design, (n_samples,)."""

    def __call__(self, X: Any) -> NDArray[Any]:
        return self.predict(X)


def hash_rows(X: Any) -> NDArray[np.uint64]:
    """Digests (n,) of a list of strings: 8 bytes of BLAKE2b of the upper-case letters, U read as T."""
    rows = (str(row).upper().replace("U", "T").encode() for row in X)
    return np.fromiter((int.from_bytes(blake2b(row, digest_size=8).digest()) for row in rows), np.uint64, len(X))


def refuse_shared_rows(oracle: Any, X: Any) -> None:
    """Raise if an oracle was trained on any of these rows.

    Parameters
    ----------
    oracle : object
        Anything that judges designs, or its ``predict``; one without ``row_hashes_`` has no training rows of ours.
    X : list of str, or any other kind that the oracle's space encodes
        Rows that a method is trained on.

    Raises
    ------
    InvalidDesignError
        With the number of shared rows, the first of them, and the remedy.

    Examples
    --------
    >>> from braidkit.oracles import UTRLandscape, refuse_shared_rows
    >>> refuse_shared_rows(UTRLandscape(), ["ACGT"])
    """
    oracle = getattr(oracle, "__self__", oracle)
    known = getattr(oracle, "row_hashes_", None)
    if known is None:
        return
    rows = list(read_designs(X)) if is_strings(X) else oracle.space_.strings(X)
    shared = np.flatnonzero(np.isin(hash_rows(rows), known))
    if len(shared):
        raise InvalidDesignError(
            f"{len(shared):,} of these {len(rows):,} rows trained the {type(oracle).__name__}, row {shared[0]:,} "
            f"({rows[shared[0]]}) first: it would judge by what it learned from the same measurements; split the data "
            "first with offline_split (equal rows in one group), and fit the oracle on its share (X_oracle, y_oracle)."
        )
