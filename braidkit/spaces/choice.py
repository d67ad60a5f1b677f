"""Which space: from designs, or from what a space wrote down of itself."""

from __future__ import annotations

from typing import Any

from braidkit.exceptions import InvalidDesignError
from braidkit.spaces._base import Space, as_str, is_strings
from braidkit.spaces.images import ImageSpace
from braidkit.spaces.sequences import ALPHABETS, SequenceSpace
from braidkit.spaces.vectors import VectorSpace


def space_from_config(config: dict[str, Any]) -> Space:
    """Build a space from what its `to_config` gave."""
    kinds: dict[str, type[Space]] = {kind.__name__: kind for kind in (SequenceSpace, VectorSpace, ImageSpace)}
    arguments = {name: value for name, value in config.items() if name != "space"}
    return kinds[config["space"]](**arguments)


def infer_space(X: Any) -> Space:
    """Find the space that designs live in: strings make a `SequenceSpace`, 2-D numbers a `VectorSpace`.

    Where half of the rows are nucleotides, the alphabet is DNA or RNA; the length is that of the first row.
    """
    if is_strings(X):
        if len(X) == 0:
            raise InvalidDesignError("X is empty: there is nothing to learn from.")
        rows = [as_str(row, i) for i, row in enumerate(X)]
        # Rows, not letters: N is an amino acid, but one of it does not make DNA a protein.
        share = {
            letters: sum(set(row.upper()) <= set(letters) for row in rows) / len(rows) for letters in ALPHABETS.values()
        }
        nucleotides = max("ACGT", "ACGU", key=lambda letters: share[letters])
        likely = nucleotides if share[nucleotides] >= 0.5 else max(share, key=lambda letters: share[letters])
        return SequenceSpace(likely, max(1, len(rows[0])))
    return VectorSpace.from_data(X)
