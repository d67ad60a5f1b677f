"""Read a table of measured settings, such as recipes: columns of numbers, and of few labels, with a measurement."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from braidkit.datasets._cells import Cells, others, read_cells
from braidkit.datasets._numbers import is_number, read_numbers, remedy_of_units
from braidkit.datasets.measured import AskedColumns, MeasuredDesigns, check_any_kept, check_on_constant
from braidkit.datasets.table import unquoted
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.persistence import digest, read_path
from braidkit.spaces import VectorSpace, design_groups
from braidkit.spaces.columns import found_whole

# Different texts of a column that is taken for one of labels.
MAX_LABELS = 20
# What means a missing number may well be a label: "none" and "-".
_NO_LABEL = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "missing", "?"})
# Spreadsheets and languages write these in capitals or not, and change them when they open a table.
_BOOLEANS = {"true": "True", "false": "False"}
ALL = "all"
# In fewer rows settings may be all different by design.
_MIN_COUNTED = 20
# Columns that are named in a message.
_MOST_NAMES = 30

Parts = dict[str, NDArray[np.float64] | NDArray[np.object_]]  # columns of numbers, NaN where missing, or of labels


@dataclass(frozen=True, kw_only=True)
class MeasuredVectors(MeasuredDesigns):
    """Rows of numbers with one measurement each, and what was done to the rows that were read.

    Attributes
    ----------
    X : ndarray of shape (n_rows, n_features), float64
        All different, in the order of their first row; a label is a 1 among zeros.
    places : list of str
        Where the first row of each is in the file, such as "line 17".
    space : VectorSpace
        With the names of the columns, and which hold whole numbers or labels; designs stay in the range of the rows.
    y, n_rows, n_averaged, dropped, notes, targets, y_error, sample_weight, noise
        As in `MeasuredDesigns`.
    """

    X: NDArray[np.float64]
    places: list[str]
    space: VectorSpace

    def digest(self) -> str:
        """A digest of the rows, columns, measurements and noise."""
        return digest(self.X, self.space.columns.to_config(), self.y, *([self.told] if self.told else []))

    def describe(self) -> str:
        """One line: rows read and kept, the columns, the target's quantiles."""
        columns = self.space.columns
        assert columns.names is not None
        constant = (self.X[0] == self.X).all(axis=0)
        words = {
            columns.names[i]: f" ({self.X[0, i]:g} in all rows: held)" if constant[i] else "" for i in columns.plain
        }
        words |= {columns.names[i]: " (whole numbers)" for i in columns.whole}
        words |= {name: f" ({', '.join(columns.labels(name))})" for name in columns.one_of}
        shown = [name + words[name] for name in self.space.columns.frame_names]
        more = f" and {len(shown) - _MOST_NAMES} more" if len(shown) > _MOST_NAMES else ""
        return self.described_as(f"{len(shown)} columns: {', '.join(shown[:_MOST_NAMES])}{more}")


def read_vectors(
    path: str | os.PathLike[str],
    *,
    target: str | Sequence[str],
    columns: str | Sequence[str] = ALL,
    target_se: str | Sequence[str] = (),
    weight: str | None = None,
    real: Sequence[str] = (),
    on_missing: str = "error",
    on_constant: str = "error",
) -> MeasuredVectors:
    """Read settings, such as recipes, and their measurements from a table with a header row.

    A column of texts, none of which is a number, is one of labels; designs have one of those in the table. Where all
    numbers of a column are whole, designs have whole numbers too. Rows of the same settings are averaged. Rows without
    a measurement are dropped.

    Parameters
    ----------
    path : path-like
        A table as `read_table` reads it.
    target, target_se, weight
        As in `read_table`.
    columns : str or list of str, default="all"
        The columns that were set. "all" takes every column of numbers or labels but those of the measurements, and
        leaves out texts of which there are more than 20, and a column that numbers the rows.
    real : list of str
        Columns of whole numbers in which designs may have any number.
    on_missing : {"error", "drop"}, default="error"
        Treatment of rows with a blank cell in one of the columns: a blank may mean zero, which only you know.
    on_constant : {"error", "keep"}, default="error"
        Treatment of a target, or of all settings, that are the same in all rows. There is nothing to learn from them
        alone; rows that are added to others, as a second round's, may be kept.

    Returns
    -------
    vectors : MeasuredVectors

    Raises
    ------
    InvalidDesignError
        Naming row and column of a cell that is blank, or is no number among numbers.
    InvalidParameterError
        If a column is not there, is a measurement as well, or has too many labels.
    InvalidTargetError
        As `read_table` does.

    Examples
    --------
    >>> import tempfile
    >>> rows = pd.DataFrame({"temp": [20.5, 60.0, 40.2], "solvent": ["water", "dmf", "dmf"], "yield": [1, 5, 2]})
    >>> with tempfile.NamedTemporaryFile(suffix=".csv") as file:
    ...     rows.to_csv(file.name, index=False)
    ...     table = read_vectors(file.name, target="yield")
    >>> table.X.tolist()
    [[20.5, 0.0, 1.0], [60.0, 1.0, 0.0], [40.2, 1.0, 0.0]]
    >>> print(table.describe())
    read 3 rows: 3 kept; 2 columns: temp, solvent (dmf, water); target 5/50/95 %: 1.1 / 2 / 4.7, max 5
    """
    if on_missing not in ("error", "drop"):
        raise InvalidParameterError(f"on_missing must be 'error' or 'drop'; got {on_missing!r}.")
    check_on_constant(on_constant)
    path = read_path("path", path)
    asked = AskedColumns.parse(target, target_se, weight)
    wanted = [columns] if isinstance(columns, str) else list(columns)
    everything = wanted == [ALL]
    _check_names(wanted, asked)
    cells = read_cells(path, asked.names if everything else [*asked.names, *wanted], all_others=everything)
    dropped: dict[str, int] = {}
    measured, keep = asked.values(cells), np.ones(len(cells), dtype=bool)
    asked.drop_unmeasured(measured, keep, dropped)
    weights = asked.drop_weightless(cells, keep, dropped)
    check_any_kept(path, keep, dropped)
    if everything:
        wanted, notes = _usable(cells, [name for name in cells.columns if name not in asked.names], keep)
    else:
        notes = []
    parts: Parts = {name: _read_column(cells, name, keep) for name in wanted}
    _drop_incomplete(cells, parts, keep, dropped, on_missing)
    check_any_kept(path, keep, dropped)
    if on_constant == "error" and all(len(set(part[keep])) == 1 for part in parts.values()):
        raise InvalidDesignError(f"{path} has the same {', '.join(parts)} in all rows; name columns that differ.")
    X, space = to_space({name: part[keep] for name, part in parts.items()}, real)
    groups = design_groups(X)
    first = np.unique(groups, return_index=True)[1]
    if cells.n_comments:
        notes.append(f"{cells.n_comments:,} commented out")
    return MeasuredVectors(
        X=X[first],
        places=[f"{cells.unit} {cells.numbers[i]}" for i in np.flatnonzero(keep)[first]],
        space=space,
        n_rows=len(cells),
        n_averaged=len(X) - len(first),
        dropped=dropped,
        notes=tuple(notes),
        **asked.averaged(cells, measured, weights, keep, groups, on_constant),
    )


def read_rows(path: str | os.PathLike[str], space: VectorSpace) -> NDArray[np.float64]:
    """Read rows of a space, without measurements: (n, n_features).

    Raises
    ------
    InvalidParameterError
        If a column is missing.
    InvalidDesignError
        Naming row and column of a cell that is blank, no number among numbers, or an unknown label.
    """
    columns = space.columns
    if columns.names is None:
        raise InvalidParameterError("the space has no names of columns, by which a table could be read.")
    cells = read_cells(read_path("path", path), [*(columns.names[i] for i in columns.plain), *columns.one_of])
    keep = np.ones(len(cells), dtype=bool)
    numbers = {columns.names[i]: _read_numbers(cells, columns.names[i]) for i in columns.plain}
    parts: Parts = numbers | {name: _texts(cells, name) for name in columns.one_of}
    _drop_incomplete(cells, parts, keep, {}, "error", "fill them in")
    for name in columns.one_of:
        labels = columns.labels(name)
        unknown = [i for i, text in enumerate(parts[name]) if text not in labels]
        if unknown:
            raise InvalidDesignError(
                f"{cells.where(unknown[0])}: {name!r} is {parts[name][unknown[0]]!r}, and designs have one of "
                f"{', '.join(labels)}{others(len(unknown))}; drop such rows."
            )
    rows = space.from_frame(pd.DataFrame(parts))
    far = np.argwhere(space.too_far(rows))
    if len(far):
        i, column = far[0]
        raise InvalidDesignError(
            f"{cells.where(i)}: {columns.name(int(column))} is {rows[i, column]:g}, far from all that was measured"
            f"{others(len(far))}; correct or drop such rows."
        )
    return rows


def _check_names(wanted: list[Any], asked: AskedColumns) -> None:
    """Raise unless the columns are texts, different, and none of them is a measurement."""
    if not wanted or not all(isinstance(name, str) and name for name in wanted):
        raise InvalidParameterError(f"columns must be names of columns, or 'all'; got {wanted!r:.60}.")
    for name in wanted:
        if wanted.count(name) > 1:
            raise InvalidParameterError(f"columns names {name!r} twice; name each column once.")
        if name in asked.names:
            raise InvalidParameterError(
                f"column {name!r} cannot be a column of the designs and of the measurements; leave it out of one."
            )


def _usable(cells: Cells, names: list[str], keep: np.ndarray) -> tuple[list[str], list[str]]:
    """Of all columns those that designs can have, and which were left out, in words."""
    usable: list[str] = []
    counts: list[str] = []
    texts: list[str] = []
    for name in names:
        filled = [text for text, kept in zip(cells.columns[name], keep, strict=True) if kept and text]
        if not any(map(is_number, filled)):
            _check_units(cells, name, filled)
            (usable if filled and len(set(filled)) <= MAX_LABELS else texts).append(name)
        elif len(filled) == keep.sum() and _counts(filled):
            counts.append(name)
        else:
            usable.append(name)
    if not usable:
        raise InvalidParameterError(
            f"{cells.path} has no column of numbers or labels besides the measurements; name some."
        )
    why = {"it numbers the rows": counts, f"blank, or more than {MAX_LABELS} texts": texts}
    left_out = [f"column {name!r} left out: {reason}" for reason, some in why.items() for name in some]
    return usable, left_out


def _counts(texts: list[str]) -> bool:
    """Whether a column numbers the rows: nearly all whole numbers of a range, each once; or half of them, in order."""
    if len(texts) < _MIN_COUNTED or not all(text.isdecimal() for text in texts):
        return False
    listed = list(map(int, texts))
    numbers = set(listed)
    in_order = len(numbers) == len(listed) and listed == sorted(listed)  # rows between them were taken out
    least = 0.5 if in_order else 0.9
    return len(numbers) > least * max(len(texts), max(numbers) - min(numbers) + 1)


def _read_column(cells: Cells, name: str, keep: np.ndarray) -> NDArray[Any]:
    """A column of numbers, NaN where there is none, or of labels, "" where there is none."""
    kept = [text for text, one in zip(_texts(cells, name), keep, strict=True) if one and text]
    if not kept or any(map(is_number, kept)):
        return _read_numbers(cells, name)
    _check_units(cells, name, kept)
    labels = set(kept)
    if len(labels) > MAX_LABELS:
        raise InvalidParameterError(
            f"column {name!r} of {cells.path} has {len(labels):,} texts, such as {min(labels)!r}; designs can "
            f"have one of {MAX_LABELS} labels at most: leave the column out, or put texts that belong together under "
            "one name."
        )
    check_labels(name, labels, str(cells.path))
    return _texts(cells, name)


def _check_units(cells: Cells, name: str, texts: Sequence[str]) -> None:
    """Raise if all texts of a column are numbers with a unit, which are no labels."""
    if remedy := remedy_of_units(texts):
        raise InvalidDesignError(
            f"column {name!r} of {cells.path} has numbers with a unit, such as {texts[0]!r}; {remedy}, or put a letter "
            "before each if they are labels."
        )


def check_labels(name: str, labels: Iterable[str], where: str) -> None:
    """Raise if labels of a column differ only in capitals, in blanks, or in how a character is encoded."""
    alike: dict[str, str] = {}
    for label in sorted(set(labels)):
        plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        other = alike.setdefault(plain, label)
        if other != label:
            looks = unicodedata.normalize("NFC", label) == unicodedata.normalize("NFC", other)
            told = (ascii(other), ascii(label)) if looks else (repr(other), repr(label))
            raise InvalidDesignError(
                f"column {name!r} of {where} has {' and '.join(told)}; write labels that are the same alike."
            )


def _read_numbers(cells: Cells, name: str) -> NDArray[np.float64]:
    remedy = "correct such rows; a column of labels has no numbers in it"
    return read_numbers(cells, name, kind=InvalidDesignError, remedy=remedy)


def _texts(cells: Cells, name: str) -> NDArray[np.object_]:
    """Cells as labels; "" where one says that there is none."""
    texts = unquoted(pd.Series(cells.columns[name], dtype=str))
    return np.array([label_of(text) for text in texts], dtype=object)


def label_of(text: str) -> str:
    """A text as a label: "" for one that says that there is none, and one way to write true and false."""
    return "" if text.lower() in _NO_LABEL else _BOOLEANS.get(text.lower(), text)


def _drop_incomplete(
    cells: Cells,
    parts: Parts,
    keep: np.ndarray,
    dropped: dict[str, int],
    on_missing: str,
    remedy: str = "fill them in (0, if none was used), or leave such rows out (--skip-missing, or on_missing='drop')",
) -> None:
    """Refuse rows that lack a cell, or take them out of `keep` and count them in `dropped`."""
    for name, part in parts.items():
        gone = np.array([text == "" for text in part]) if part.dtype == object else np.isnan(part.astype(float))
        rows = np.flatnonzero(keep & gone)
        if len(rows) and on_missing == "error":
            told = cells.columns[name][rows[0]] or "blank"
            what = "is blank" if told == "blank" else f"is {told!r}, which says that it is missing"
            raise InvalidDesignError(f"{cells.where(rows[0])}: {name!r} {what}{others(len(rows))}; {remedy}.")
        if len(rows):
            dropped[f"without {name}"] = len(rows)
        keep &= ~gone


def to_space(parts: Parts, real: Sequence[str]) -> tuple[NDArray[np.float64], VectorSpace]:
    """Rows of numbers, with ones and zeros for labels, and their space."""
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    one_of: dict[str, list[int]] = {}
    for name, part in parts.items():
        if part.dtype != object:
            names.append(name)
            columns.append(part.astype(np.float64))
            continue
        labels = sorted(set(part))
        one_of[name] = list(range(len(names), len(names) + len(labels)))
        names += labels
        columns += [(part == label).astype(np.float64) for label in labels]
    X = np.column_stack(columns)
    plain = {names[i]: i for i in range(len(names)) if not any(i in places for places in one_of.values())}
    if unknown := [name for name in real if name not in plain]:
        raise InvalidParameterError(
            f"real names {unknown[0]!r}, which is no column of numbers; those are {', '.join(plain) or 'none'}."
        )
    whole = [i for i in found_whole(X) if i in plain.values() and names[i] not in real]
    return X, VectorSpace.from_data(X, whole=whole, one_of=one_of, names=names)
