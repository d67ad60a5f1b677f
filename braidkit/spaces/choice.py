"""Find the space of designs, or rebuild a space from its saved settings."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.spaces._base import Space
from braidkit.spaces.images import ImageSpace
from braidkit.spaces.letters import likely_alphabet
from braidkit.spaces.reading import read_designs
from braidkit.spaces.sequences import SequenceSpace
from braidkit.spaces.vectors import VectorSpace

# A row is far longer than others if it has more than so many times the letters that 95 % of the rows have at most. All
# sequences are padded to the longest, so one such row makes a fit many times as long.
_FAR_LONGER = 5
# Fewer rows do not show which lengths are usual.
_MIN_LENGTHS = 10


def space_from_config(config: dict[str, Any]) -> Space:
    """Build a space from what its `to_config` gave."""
    kinds: dict[str, type[Space]] = {kind.__name__: kind for kind in (SequenceSpace, VectorSpace, ImageSpace)}
    if not isinstance(config, dict) or config.get("space") not in list(kinds):
        raise InvalidParameterError(f"config must be what to_config of a space gives; got {config!r:.60}.")
    arguments = {name: value for name, value in config.items() if name != "space"}
    try:
        return kinds[config["space"]](**arguments)
    except TypeError as error:  # another name, or one that is missing
        raise InvalidParameterError(f"config must be what to_config of a space gives ({error}).") from error


def far_longer(lengths: np.ndarray) -> np.ndarray:
    """Numbers of the rows that are far longer than nearly all others, from their lengths (n,); none of a few rows."""
    if len(lengths) < _MIN_LENGTHS:
        return np.array([], dtype=int)
    return np.flatnonzero(lengths > _FAR_LONGER * np.quantile(lengths, 0.95, method="lower"))


def infer_space(X: Any) -> Space:
    """Find the space that designs live in: strings make a `SequenceSpace`, 2-D numbers a `VectorSpace`.

    Where half of the rows are nucleotides, the alphabet is DNA or RNA. Strings of several lengths are padded on the
    right. If a few are far longer than all others, an InvalidDesignError names the first.
    """
    X = read_designs(X)
    if len(X) == 0:
        raise InvalidDesignError("X is empty: pass a list of strings, or rows of numbers, with their measurements.")
    if X.ndim == 1 and X.dtype == object and isinstance(X[0], str):
        lengths = np.array([len(row) for row in X])
        far = far_longer(lengths)
        if len(far):
            raise InvalidDesignError(
                f"row {far[0]:,} has {lengths[far[0]]:,} letters, but nearly all others at most "
                f"{np.delete(lengths, far).max():,}: were rows joined? Correct or drop "
                f"{'it' if len(far) == 1 else f'the {len(far):,} rows that are so long'}, or name a space of all "
                f"lengths, SequenceSpace(length=({lengths.min()}, {lengths.max()}))."
            )
        return SequenceSpace(likely_alphabet(X), (max(1, int(lengths.min())), max(1, int(lengths.max()))))
    if X.ndim > 2:
        what = "SequenceSpace(alphabet, length)" if X.ndim == 3 else "ImageSpace(height, width, channels)"
        raise InvalidDesignError(
            f"X has shape {X.shape}, which does not say what its numbers mean; name the space: space={what}."
        )
    return VectorSpace.from_data(X)
