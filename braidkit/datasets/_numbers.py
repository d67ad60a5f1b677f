"""Numbers as tables write them: with decimal points or commas, and blanks where there is none."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from braidkit.datasets._cells import Cells, others
from braidkit.exceptions import BraidkitError, InvalidTargetError

# Texts that mean a missing measurement, in small letters.
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "nd", "n.d.", "-", "--", ".", "?", "missing"})
# Squares of larger measurements are beyond what computers hold.
MAX_TARGET = 1e100
_POINT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
# A comma that may as well set thousands apart.
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
# A value that lies beyond what could be measured, and one with its unit or error behind it.
_BEYOND = re.compile(r"[<>\N{LESS-THAN OR EQUAL TO}\N{GREATER-THAN OR EQUAL TO}]=?\s*(.+)")
_FIGURES = r"[+-]?[0-9]+(?:[.,][0-9]+)?"
# Labels may begin with a number too, as "96 wells" does; three different ones are a quantity.
_FEWEST_WITH_UNITS = 3
_WITH_MORE = re.compile(rf"({_FIGURES})\s*(%|[^\W\d_]|\N{{DEGREE SIGN}}|\N{{PLUS-MINUS SIGN}}|\+/-).*")


def read_numbers(
    cells: Cells,
    name: str,
    *,
    kind: type[BraidkitError] = InvalidTargetError,
    remedy: str = "correct such rows, or leave their cells blank to drop them",
) -> np.ndarray:
    """A column of numbers (n,), such as measurements; NaN where a cell is blank, or says that there is none.

    Commas are decimal ones if no cell has a point, and not every comma may as well set thousands apart.

    Raises
    ------
    kind
        Naming the first row that has no finite number, or one that can be read in two ways.
    """
    texts = [text.replace("\N{MINUS SIGN}", "-") for text in cells.columns[name]]
    missing = [text.lower() in MISSING for text in texts]
    commas = [_COMMA.fullmatch(text) is not None for text in texts]
    if any(commas):
        _check_commas(cells, name, texts, commas, kind)
        texts = [text.replace(",", ".") if comma else text for text, comma in zip(texts, commas, strict=True)]
    wrong = [i for i, text in enumerate(texts) if not missing[i] and not _is_finite(text)]
    if wrong:
        i = wrong[0]
        raise kind(
            f"{cells.where(i)}: {name!r} is {cells.columns[name][i]!r}, not a finite number{others(len(wrong))}; "
            f"{_remedy(texts[i]) or remedy}."
        )
    y = np.array([np.nan if gone else float(text) for text, gone in zip(texts, missing, strict=True)])
    large = np.flatnonzero(np.abs(y) > MAX_TARGET)
    if len(large):
        raise kind(
            f"{cells.where(large[0])}: {name!r} is {texts[large[0]]}, too large to compute with{others(len(large))}; "
            "pass it in a larger unit."
        )
    return y


def is_number(text: str) -> bool:
    """Whether a cell is a finite number, or is written as one with a decimal comma.

    Examples
    --------
    >>> is_number("1,5"), is_number("water")
    (True, False)
    """
    text = text.replace("\N{MINUS SIGN}", "-")
    return _is_finite(text) or _COMMA.fullmatch(text) is not None


def remedy_of_units(texts: Sequence[str]) -> str:
    """What to do about a column of texts that are all a number with the same text behind it; empty if they are not.

    Examples
    --------
    >>> remedy_of_units(["20 C", "35 C", "50 C"])
    "write the numbers alone, and ' C' into the header"
    """
    found = [_WITH_MORE.fullmatch(text) for text in texts]
    units = {text[len(match[1]) :] for text, match in zip(texts, found, strict=True) if match}
    numbers = {match[1] for match in found if match}
    if None in found or len(units) != 1 or len(numbers) < _FEWEST_WITH_UNITS:
        return ""
    return f"write the numbers alone, and {units.pop()!r} into the header"


def _remedy(text: str) -> str:
    """What to do about a cell that is nearly a number; empty if it is nothing like one."""
    beyond = _BEYOND.fullmatch(text)
    if beyond and is_number(beyond[1]):
        return f"write the limit itself, {beyond[1]}, or leave such cells blank to drop their rows"
    more = _WITH_MORE.fullmatch(text)
    return (
        f"write the number alone, {more[1]}, and what stands behind it into the header or another column"
        if more
        else ""
    )


def _is_finite(text: str) -> bool:
    return _POINT.fullmatch(text) is not None and np.isfinite(float(text))


def _check_commas(
    cells: Cells, name: str, texts: Sequence[str], commas: Sequence[bool], kind: type[BraidkitError]
) -> None:
    """Raise where a comma may not be a decimal one."""
    first = commas.index(True)
    points = [i for i, text in enumerate(texts) if "." in text and _POINT.fullmatch(text)]
    if points:
        raise kind(
            f"{cells.where(first)}: {name!r} is {texts[first]!r} with a comma, and {cells.where(points[0])} has "
            f"{texts[points[0]]!r} with a point; write all decimals with a point."
        )
    if all(_THOUSANDS.fullmatch(text) for text, comma in zip(texts, commas, strict=True) if comma):
        raise kind(
            f"{cells.where(first)}: {name!r} is {texts[first]!r}, which may be {texts[first].replace(',', '.')} or "
            f"{texts[first].replace(',', '')}; write it with a decimal point, or without the comma."
        )
