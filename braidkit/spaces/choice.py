"""Find the space of designs, or rebuild a space from its saved settings."""

from __future__ import annotations

from typing import Any

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.spaces._base import Space
from braidkit.spaces.images import ImageSpace
from braidkit.spaces.letters import likely_alphabet
from braidkit.spaces.reading import read_designs
from braidkit.spaces.sequences import SequenceSpace
from braidkit.spaces.vectors import VectorSpace


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


def infer_space(X: Any) -> Space:
    """Find the space that designs live in: strings make a `SequenceSpace`, 2-D numbers a `VectorSpace`.

    Where half of the rows are nucleotides, the alphabet is DNA or RNA. Strings of several lengths are padded on the
    right.
    """
    X = read_designs(X)
    if len(X) == 0:
        raise InvalidDesignError("X is empty: pass a list of strings, or rows of numbers, with their measurements.")
    if X.ndim == 1 and X.dtype == object and isinstance(X[0], str):
        lengths = [len(row) for row in X]
        return SequenceSpace(likely_alphabet(X), (max(1, min(lengths)), max(1, max(lengths))))
    if X.ndim > 2:
        what = "SequenceSpace(alphabet, length)" if X.ndim == 3 else "ImageSpace(height, width, channels)"
        raise InvalidDesignError(
            f"X has shape {X.shape}, which does not say what its numbers mean; name the space: space={what}."
        )
    return VectorSpace.from_data(X)
