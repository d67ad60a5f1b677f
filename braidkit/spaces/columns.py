"""Columns of vectors: their names, and which of them hold whole numbers, or labels as zeros and a one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braidkit.exceptions import InvalidDesignError, InvalidParameterError

# In a column of a wider range whole numbers are as good as any.
_MAX_WIDTH = 1e6


class Columns:
    """What the columns of vectors hold.

    Parameters
    ----------
    n : int
    names : sequence of n str or None
        Columns of a label are named by the labels.
    whole : collection of int
        Numbers of the columns of whole numbers.
    one_of : mapping of str to collection of int
        The columns of each label, of which one is 1 and the others are 0, by the label's name.
    """

    def __init__(self, n: int, names: Any, whole: Any, one_of: Any) -> None:
        self.n = n
        self.names = None if names is None else _texts(names, n)
        self.whole = _numbers_of("whole", whole, n)
        if not isinstance(one_of, Mapping) or not all(isinstance(name, str) for name in one_of):
            raise InvalidParameterError(
                f"one_of must be a dictionary, such as {{'solvent': [2, 3, 4]}}; got {one_of!r:.60}."
            )
        self.one_of = {name: _numbers_of(f"one_of[{name!r}]", places, n) for name, places in one_of.items()}
        used = [*self.whole, *(i for places in self.one_of.values() for i in places)]
        twice = [i for i in used if used.count(i) > 1]
        if twice or not all(self.one_of.values()):
            why = f"column {twice[0]} is named twice" if twice else "a label has no column"
            raise InvalidParameterError(f"whole and one_of must name different columns, and labels some; {why}.")
        if self.names is not None:
            shown = [*self.one_of, *(self.names[i] for i in self.plain)]
            within = [[self.names[i] for i in places] for places in self.one_of.values()]
            for group in (shown, *within):
                if twice := [name for name in group if group.count(name) > 1]:
                    raise InvalidParameterError(f"names has {twice[0]!r} twice; name each column once.")
        self.steps = np.isin(np.arange(n), used)  # the columns in which designs have whole numbers

    @property
    def plain(self) -> list[int]:
        """The columns that are no part of a label."""
        labels = {i for places in self.one_of.values() for i in places}
        return [i for i in range(self.n) if i not in labels]

    def name(self, i: int) -> str:
        """A column in words."""
        return f"column {i}" if self.names is None else repr(self.names[i])

    @property
    def all_names(self) -> list[str]:
        """Names of the columns; "x0", "x1" and on where they have none."""
        return [f"x{i}" for i in range(self.n)] if self.names is None else list(self.names)

    @property
    def frame_names(self) -> list[str]:
        """Names of the columns of `to_frame`, in their order: each label has one."""
        first = {places[0]: name for name, places in self.one_of.items()}
        plain = {i: self.all_names[i] for i in self.plain}
        return [name for _, name in sorted((first | plain).items())]

    def labels(self, name: str) -> list[str]:
        """The labels of a name, in the order of their columns."""
        return [self.all_names[i] for i in self.one_of[name]]

    @property
    def says_nothing(self) -> bool:
        """Whether columns have no names, and may hold any number."""
        return self.names is None and not self.steps.any()

    def to_config(self) -> dict[str, Any]:
        """The arguments that are not those of a space that says nothing."""
        labels = {name: list(places) for name, places in self.one_of.items()}
        names = None if self.names is None else list(self.names)
        config = {"whole": list(self.whole), "one_of": labels, "names": names}
        return {name: value for name, value in config.items() if value}

    def nearest(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The nearest rows (n, n_columns), float64, within bounds, that have whole numbers and one of each label."""
        rows = rows.clamp(low, high)
        if not self.steps.any():
            return rows
        whole = list(self.whole)
        rows[:, whole] = rows[:, whole].round().clamp(low[whole].ceil(), high[whole].floor())
        for places in self.one_of.values():
            chosen = rows[:, list(places)].argmax(dim=1)
            rows[:, list(places)] = torch.nn.functional.one_hot(chosen, len(places)).to(rows)
        return rows

    def to_frame(self, rows: np.ndarray) -> pd.DataFrame:
        """Rows (n, n_columns) as a table in which each label is one column of texts, at the place of its first."""
        names = self.all_names
        first = {places[0]: name for name, places in self.one_of.items()}
        table: dict[str, Any] = {}
        for i in range(self.n):
            if i in first:
                places = self.one_of[first[i]]
                table[first[i]] = np.array(self.labels(first[i]), dtype=object)[rows[:, list(places)].argmax(1)]
            elif i in self.plain:
                whole = i in self.whole and np.array_equal(rows[:, i], np.round(rows[:, i]))
                table[names[i]] = rows[:, i].astype(np.int64) if whole else rows[:, i]
        return pd.DataFrame(table)

    def from_frame(self, table: pd.DataFrame) -> np.ndarray:
        """Rows (n, n_columns) of a table as `to_frame` gives it; columns are found by their names.

        Raises
        ------
        InvalidDesignError
            Naming a column that is missing, there twice or without numbers, or the row of a blank or unknown label.
        """
        if not isinstance(table, pd.DataFrame):
            raise InvalidDesignError(f"the table must be a DataFrame; got {table!r:.60}.")
        names, header = self.all_names, list(table.columns)
        for name in self.frame_names:
            if header.count(name) != 1:
                what = "no column" if name not in header else f"{header.count(name)} columns"
                raise InvalidDesignError(f"the table has {what} {name!r}; pass one that has one.")
        rows = np.zeros((len(table), self.n))
        for i in self.plain:
            rows[:, i] = _finite(table[names[i]])
        for name, places in self.one_of.items():
            labels = self.labels(name)
            unknown = np.flatnonzero(~table[name].isin(labels))
            if len(unknown):
                raise InvalidDesignError(
                    f"row {unknown[0]:,}: {name!r} is {table[name].iloc[unknown[0]]!r}, and designs have one of "
                    f"{', '.join(labels)}; drop such rows."
                )
            for label, i in zip(labels, places, strict=True):
                rows[:, i] = table[name] == label
        return rows


def found_whole(rows: np.ndarray) -> list[int]:
    """The columns of rows (n, n_columns) in which all numbers are whole and some differ.

    Examples
    --------
    >>> found_whole(np.array([[1.0, 0.5, 3.0], [2.0, 1.0, 3.0]]))
    [0]
    """
    low, high = rows.min(axis=0), rows.max(axis=0)
    whole = (rows == np.round(rows)).all(axis=0) & (low < high) & (high - low <= _MAX_WIDTH)
    return [int(i) for i in np.flatnonzero(whole)]


def _finite(column: pd.Series) -> np.ndarray:
    """Finite numbers of a column; anything else is refused by row."""
    if column.dtype.kind not in "biufO":
        raise InvalidDesignError(f"column {column.name!r} holds no numbers, but {column.dtype}; pass numbers.")
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise InvalidDesignError(
            f"row {wrong[0]:,}: {column.name!r} is {column.tolist()[wrong[0]]!r}, not a finite number; correct or drop "
            "such rows."
        )
    return numbers


def _numbers_of(name: str, places: Any, n: int) -> tuple[int, ...]:
    """Numbers of columns, checked."""
    listed = list(places) if isinstance(places, Iterable) and not isinstance(places, str) else [places]
    if not all(isinstance(i, (int, np.integer)) and not isinstance(i, bool) and 0 <= i < n for i in listed):
        raise InvalidParameterError(f"{name} must be numbers of columns, from 0 to {n - 1}; got {places!r:.60}.")
    return tuple(int(i) for i in listed)


def _texts(names: Any, n: int) -> tuple[str, ...]:
    """Names of n columns, checked."""
    listed = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [names]
    if len(listed) != n or not all(isinstance(name, str) and name for name in listed):
        raise InvalidParameterError(f"names must be {n} texts, one a column; got {names!r:.60}.")
    return tuple(listed)
