"""Columns of a table as text, whatever program wrote it: separators, comments, quotes, spreadsheets."""

from __future__ import annotations

import csv
import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from braidkit.datasets._spreadsheet import is_workbook, read_sheets
from braidkit.datasets._text import BLANKS, open_text, readable
from braidkit.exceptions import InvalidDesignError, InvalidParameterError

COMMENT = "#"
_SEPARATORS = ",\t;| "
# Some programs write the separator into the first line, for spreadsheets.
_HINT = re.compile(r'"?sep=(.)"?\s*')
_MOST_NAMES = 20
# Lines in which a header is looked for below a title.
_MOST_TITLES = 50
# The column of the sequences where none is named, and what to do if there is none of that name.
SEQUENCE = "sequence"
NAME_IT = "Pass the name of the sequences' column as sequence."


@dataclass(frozen=True)
class Cells:
    """Some columns of a table as text, without the blanks around each cell.

    Attributes
    ----------
    path : Path
    columns : dict of str to list of str
        By name.
    numbers : list of int
        Where each row is in the file.
    unit : str
        What is counted there: "line" or "row".
    n_comments : int
        Rows below the header that begin with the mark of comments, and are left out.
    """

    path: Path
    columns: dict[str, list[str]]
    numbers: list[int]
    unit: str = "line"
    n_comments: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def where(self, i: int) -> str:
        """Row i in words, as a person finds it in the file."""
        return f"{self.unit} {self.numbers[i]:,} of {self.path}"


def others(n: int) -> str:
    """A phrase with the number of rows that share a fault; empty if it is one."""
    return f" ({n:,} rows are so)" if n > 1 else ""


def read_cells(path: Path, names: Sequence[str], *, all_others: bool = False) -> Cells:
    """Read columns of a table, and after them all others that have a name if these are asked for.

    The separator (comma, tab, semicolon, bar or blanks) is the one by which the header has all the columns. Lines that
    begin with "#", and blank ones, are skipped. Cells may be quoted. If each row has one cell more than the header, the
    first cell is taken for the row's name, as R writes tables. These names must differ, and the other cells must fit.

    Parameters
    ----------
    path : Path
    names : sequence of str
        Of the columns, that of the sequences first.

    Raises
    ------
    InvalidParameterError
        If the file cannot be read, a column is missing or there twice, or a row has not as many cells as the header.
    InvalidDesignError
        If the table has no rows.
    """
    with readable(path):
        if is_workbook(path):
            return _of_workbook(path, names, all_others)
        with open_text(path) as file:
            lines = _Lines(file)
            header, separator = _split_header(path, lines, names)
            names = _with_others(path, header, names) if all_others else names
            return _collect(path, header, _split_rows(path, lines, separator), names, lines)


class _Lines:
    """Lines of a text that are no comments, with the number of the last one given."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file = iter(file)
        self.number = 0
        self.comments: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for line in self._file:
            self.number += 1
            if not line.startswith(COMMENT):
                return line
            self.comments.append(line)
        raise StopIteration

    def push_back(self, line: str) -> None:
        """Give the last line again."""
        self.number -= 1
        self._file = itertools.chain([line], self._file)

    def next_with_text(self) -> str:
        """The next line with anything on it; an empty one at the end."""
        return next((line for line in self if line.strip(BLANKS)), "")


def _split_header(path: Path, lines: _Lines, names: Sequence[str]) -> tuple[list[str], str]:
    """The names of all columns, and the separator."""
    line = lines.next_with_text()
    hint = _HINT.fullmatch(line)
    separators = hint[1] if hint else _SEPARATORS
    line = lines.next_with_text() if hint else line
    if not line:
        raise InvalidDesignError(f"{path} is empty; pass a table with a header row.")
    # Some programs mark the header itself as a comment.
    for candidate in (line, *(comment.lstrip(COMMENT) for comment in lines.comments)):
        split = {separator: _names_in(candidate, separator) for separator in separators}
        for separator, header in split.items():
            if set(names) <= set(header):
                if candidate is not line:
                    lines.push_back(line)
                _check_unique(path, header, names)
                lines.comments.clear()
                return header, separator
    headers = [_names_in(line, separator) for separator in separators]
    header = max(headers, key=lambda header: (names[0] in header, len({*names} & {*header})))
    if not {*names} & {*header}:
        # Blanks separate the words of a title, too.
        header = max(headers, key=lambda header: (header is not headers[-1] and len(header) > 1, len(header)))
    below = ((lines.number, [name for one in separators for name in _names_in(text, one)]) for text in lines)
    found = _header_below(below, names)
    raise _missing(path, header, names, "" if found is None else f"line {found:,}")


def _header_below(rows: Iterable[tuple[int, list[str]]], names: Sequence[str]) -> int | None:
    """The number of the first of some numbered rows that has all the names: the header below a title."""
    return next((number for number, row in itertools.islice(rows, _MOST_TITLES) if {*names} <= {*row}), None)


def _split_rows(path: Path, lines: _Lines, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows below the header, each with the number of its last line."""
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        yield from ((lines.number, row) for row in reader)
    except csv.Error as error:
        raise InvalidParameterError(
            f"line {lines.number:,} of {path} has a quote out of place, or a cell without end ({error}); quote whole "
            "cells, or remove the quote."
        ) from error


def _names_in(line: str, separator: str) -> list[str]:
    """The columns of a header line, without blank ones at its end."""
    try:
        row = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return [line.strip(BLANKS)]
    return _trimmed([name.strip(BLANKS) for name in row])


def _trimmed(row: list[str]) -> list[str]:
    """Cells without blank ones at the end."""
    end = len(row)
    while end and not row[end - 1].strip(BLANKS):
        end -= 1
    return row[:end]


def _missing(path: Path, header: list[str], names: Sequence[str], below: str = "") -> InvalidParameterError:
    """The error of a column that is not there; `below` is the place of a later row that has all the names."""
    if below:
        return InvalidParameterError(
            f"{path} has these columns in {below}, below other text; remove the rows above it, or begin them with "
            f"{COMMENT!r}."
        )
    name = next(name for name in names if name not in header)
    whole = next((one for one in header if name in _pieces(one)), None)
    if whole is not None:
        return InvalidParameterError(
            f"{path} has no column {name!r}, but {whole!r}: commas separate columns, and what stands before a = is "
            "another name for them; rename this column."
        )
    shown = ", ".join(header[:_MOST_NAMES]) + (", ..." if len(header) > _MOST_NAMES else "")
    near = difflib.get_close_matches(name, header, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    remedy = NAME_IT if name == SEQUENCE else "Pass one of them."
    return InvalidParameterError(f"{path} has no column {name!r}; its columns are: {shown}. {remedy}{meant}")


def _pieces(name: str) -> list[str]:
    """What a column's name falls into where it is passed as that of a target, or in a list of columns."""
    pieces = [piece.strip() for piece in re.split("[,=]", name)]
    return pieces if len(pieces) > 1 else []


def _with_others(path: Path, header: list[str], names: Sequence[str]) -> list[str]:
    """The names of columns, and after them those of all others."""
    joined = [*names, *(name for name in header if name and name not in names)]
    _check_unique(path, header, joined)
    return joined


def _check_unique(path: Path, header: list[str], names: Sequence[str]) -> None:
    for name in names:
        places = [str(i + 1) for i, other in enumerate(header) if other == name]
        if len(places) > 1:
            raise InvalidParameterError(
                f"{path} has {len(places)} columns called {name!r}, the {' and the '.join(map(_ordinal, places))}; "
                "rename all but one."
            )


def _ordinal(number: str) -> str:
    ending = "th" if number[-2:] in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return number + ending


def _collect(
    path: Path,
    header: list[str],
    rows: Iterable[tuple[int, list[str]]],
    names: Sequence[str],
    lines: _Lines | None = None,
) -> Cells:
    """Pick columns out of numbered rows, each of which must have as many cells as the header."""
    unit = "line" if lines is not None else "row"
    places = [header.index(name) for name in names]
    columns: list[list[str]] = [[] for _ in names]
    numbers: list[int] = []
    labels: set[str] = set()  # of rows, where they have one cell more than the header
    shift = 0
    for number, cells in rows:
        row = _trimmed(cells)
        if not row:
            continue
        if not numbers:
            shift = int(len(row) == len(header) + 1)
        row += [""] * (min(len(cells), len(header) + shift) - len(row))
        if len(row) != len(header) + shift:
            raise InvalidParameterError(
                f"{unit} {number:,} of {path} has {len(row)} cells, and the header has {len(header)}; correct the row, "
                "or quote cells that have a separator in them."
            )
        if not any(row[place + shift].strip(BLANKS) for place in places):
            continue
        for column, place in zip(columns, places, strict=True):
            column.append(row[place + shift].strip(BLANKS))
        numbers.append(number)
        if shift:
            labels.add(row[0])
    if not numbers:
        raise InvalidDesignError(f"{path} has a header but no rows; there is nothing to learn from.")
    if shift and (len(labels) < len(numbers) or any(re.search(r"\d", cell) for cell in columns[0])):
        raise InvalidParameterError(
            f"{path} has rows with more cells than the header has; name the first column in the header, or quote cells "
            "that have a separator in them, as decimal commas may be."
        )
    return Cells(
        path, dict(zip(names, columns, strict=True)), numbers, unit, 0 if lines is None else len(lines.comments)
    )


def _of_workbook(path: Path, names: Sequence[str], all_others: bool) -> Cells:
    """Columns of the one sheet of a workbook that has them."""
    found: dict[str, Cells] = {}
    headers: list[list[str]] = []
    below = ""
    for sheet, rows in read_sheets(path):
        full = ((i, row) for i, row in enumerate(rows, start=1) if row and not row[0].startswith(COMMENT))
        header = next((_trimmed([name.strip(BLANKS) for name in row]) for _, row in full if any(row)), [])
        headers.append(header)
        if set(names) <= set(header):
            _check_unique(path, header, names)
            # A sheet does not keep blank cells at the end of a row.
            whole = ((i, [*row, *[""] * (len(header) - len(row))]) for i, row in full)
            wanted = _with_others(path, header, names) if all_others else names
            found[sheet] = _collect(path, header, whole, wanted)
        elif (
            number := _header_below(((i, [name.strip(BLANKS) for name in row]) for i, row in full), names)
        ) is not None:
            below = f"row {number:,} of the sheet {sheet!r}"
    if not found:
        raise _missing(path, max(headers, key=len, default=[]), names, below)
    if len(found) > 1:
        raise InvalidParameterError(
            f"{path} has these columns in the sheets {', '.join(map(repr, found))}; save the one that is meant as CSV."
        )
    return next(iter(found.values()))
