"""Read the options of ``braidkit design`` that limit designs: mutants of a parent, and forbidden words."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from braidkit.exceptions import InvalidParameterError
from braidkit.spaces import Limits, SequenceSpace


def limited_space(
    space: SequenceSpace,
    *,
    parent: str | None,
    mutations: str | None,
    forbidden: Sequence[str],
    sites: Sequence[str],
    max_homopolymer: int | None,
    frame: str | None,
) -> SequenceSpace:
    """The space of a table, with the limits that the options ask for.

    Parameters
    ----------
    space : SequenceSpace
    parent, mutations, max_homopolymer, frame
        As in `Limits`, with ranges such as "1-3".
    forbidden, sites : sequence of str
        Words, or several of them separated by commas.

    Raises
    ------
    InvalidParameterError
        Naming the option and its value, or the two that contradict each other.
    """
    if parent is not None and os.path.isfile(parent):
        raise InvalidParameterError(f"--parent {parent} is a file; give the letters of the sequence.")
    limits = Limits(
        parent=parent,
        mutations=_range("--mutations", mutations),
        forbidden=_words(forbidden),
        sites=_words(sites),
        max_homopolymer=max_homopolymer,
        frame=_range("--frame", frame),
    )
    if limits == Limits():
        return space
    return space.restricted_as(SequenceSpace(space.alphabet, space.length, limits=limits))


def _range(option: str, text: str | None) -> int | tuple[int, int] | None:
    """A number, or two as in "1-3"."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", text)
    if match is None:
        raise InvalidParameterError(f"{option} has {text!r}; give a number, or two such as 1-3.")
    return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))


def _words(texts: Sequence[str]) -> tuple[str, ...]:
    """Words of texts in which commas separate them."""
    return tuple(word.strip() for text in texts for word in text.split(","))
