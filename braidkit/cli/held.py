"""Read the options of ``braidkit design`` that hold positions, which are counted from 1."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from braidkit.exceptions import InvalidParameterError
from braidkit.spaces import SequenceSpace
from braidkit.spaces.sequences import FREE


def held_space(
    space: SequenceSpace, sequences: Sequence[str], template: str | None, hold: str | None, free: str | None
) -> SequenceSpace:
    """The space of a table, with the template that the options ask for.

    Parameters
    ----------
    space : SequenceSpace
    sequences : sequence of str
        The measured ones: without a template, the letters that are the same in all of them are held.
    template : str or None
        A letter a position, or "_" where it is free.
    hold, free : str or None
        Positions such as "1-26,34", from 1, both ends included; all others are free, or held.

    Raises
    ------
    InvalidParameterError
        Naming the option and the position, if they contradict each other, the alphabet or the length.
    """
    if template is None and hold is None and free is None:
        return space
    if hold is not None and free is not None:
        raise InvalidParameterError("--hold and --free say the same of different positions: give one of them.")
    letters = template
    if letters is None:
        letters = space.holding_constants(space.points(sequences)).template or FREE * space.length
    if len(letters) != space.length:
        raise InvalidParameterError(
            f"--template has {len(letters)} letters, but the sequences have {space.length}: give a letter, or "
            f"{FREE!r}, for each position."
        )
    if hold is not None or free is not None:
        held = ~_positions(free, space.length, "--free") if hold is None else _positions(hold, space.length, "--hold")
        for i in np.flatnonzero(held):
            if letters[i] == FREE:
                where = f"--hold names position {i + 1}" if hold is not None else f"--free leaves position {i + 1} held"
                why = f"free in --template ({FREE!r})" if template is not None else "not the same in all sequences"
                raise InvalidParameterError(f"{where}, which is {why}: give the letter to hold there by --template.")
        letters = "".join(letter if h else FREE for letter, h in zip(letters, held, strict=True))
        if not held.any():
            raise InvalidParameterError("--free names every position, so that nothing is held: leave it out.")
    if FREE not in letters:
        raise InvalidParameterError(
            f"--template holds every position: mark free ones by {FREE!r}, or name them by --free."
        )
    try:
        return space.restricted_as(SequenceSpace(space.alphabet, space.length, letters))
    except InvalidParameterError as error:
        raise InvalidParameterError(f"--{error}") from error


def _positions(text: str | None, length: int, option: str) -> np.ndarray:
    """The positions, as booleans (length,), that a text such as "1-26,34" names."""
    named = np.zeros(length, dtype=bool)
    for part in (text or "").split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise InvalidParameterError(
                f"{option} has {part!r}; give positions and ranges of them, from 1, such as 1-26,34."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= length:
            raise InvalidParameterError(
                f"{option} has {part.strip()!r}, but positions run from 1 to {length}, the smaller one first."
            )
        named[first - 1 : last] = True
    return named
