"""Read a table of measured sequences: what a person has in hand, checked before anything long begins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braidkit.datasets._streams import open_table
from braidkit.exceptions import BraidkitError, InvalidDesignError, InvalidParameterError, InvalidTargetError
from braidkit.spaces import ALPHABETS, SequenceSpace

# Letters that stand for more than one nucleotide or amino acid (IUPAC), and amino acids beyond the twenty.
AMBIGUOUS = {"DNA": "NRYSWKMBDHV", "RNA": "NRYSWKMBDHV", "protein": "XBZJUO"}
# Squares of larger measurements are beyond what computers hold.
MAX_TARGET = 1e100
# What a spreadsheet takes for a formula begins so. What begins with an apostrophe gets one more, to come back whole.
_FORMULA, _QUOTED = r"^(?=['=+\-@\t\r])", r"^'(?=['=+\-@\t\r])"
# Sequences are nucleotides if at least this share of their letters is.
_NUCLEOTIDE_SHARE = 0.5


@dataclass(frozen=True)
class MeasuredTable:
    """Sequences with one measurement each, and what was done to the rows that were read.

    Attributes
    ----------
    sequences : list of str
        All different, of one length, in the order of their first row.
    y : ndarray of shape (n_sequences,)
        The mean measurement of each.
    space : SequenceSpace
        Their alphabet and length.
    n_rows : int
        Rows read.
    n_averaged : int
        Rows that repeat an earlier sequence; their measurements went into its mean.
    dropped : dict of str to int
        Rows left out, by the reason in words.
    """

    sequences: list[str]
    y: np.ndarray
    space: SequenceSpace
    n_rows: int
    n_averaged: int
    dropped: dict[str, int]

    def describe(self) -> str:
        """One line: rows read and kept, the kind of sequence, the target's quantiles."""
        changes = [f"{self.n_averaged:,} duplicate{'s' * (self.n_averaged > 1)} averaged"] if self.n_averaged else []
        changes += [f"{n:,} {reason} dropped" for reason, n in self.dropped.items()]
        unit = {"DNA": "nt", "RNA": "nt", "protein": "aa"}.get(self.space.name, "letters")
        note = f" ({', '.join(changes)})" if changes else ""
        low, middle, high = np.quantile(self.y, [0.05, 0.5, 0.95])
        return (
            f"read {self.n_rows:,} rows: {len(self.y):,} kept{note}; "
            f"{self.space.name}, {self.space.length} {unit}; "
            f"target 5/50/95 %: {low:.3g} / {middle:.3g} / {high:.3g}, max {self.y.max():.3g}"
        )


def read_table(
    path: str | os.PathLike[str],
    *,
    sequence: str,
    target: str,
    alphabet: str | None = None,
    length: int | None = None,
    on_ambiguous: str = "error",
) -> MeasuredTable:
    """Read sequences and their measurements from a table with a header row.

    Blank lines are skipped, spaces around sequences are removed, and letters are upper-cased unless
    `alphabet` has lower-case letters. Rows of the same sequence are averaged.

    Parameters
    ----------
    path : path-like
        Separated by commas, tabs or semicolons (found from the header); .gz, .bz2, .xz and .zip are
        unpacked.
    sequence, target : str
        Names of the columns.
    alphabet : str, optional
        As in `SequenceSpace`; by default DNA or RNA if at least half of the letters are nucleotides, else protein.
    length : int, optional
        Keep only sequences of this length and leave the others out. By default all must have one length.
        Sequences are not cropped or padded: what was measured is the whole sequence.
    on_ambiguous : {"error", "drop"}, default="error"
        What to do with rows that have an ambiguous letter of the alphabet, such as N in DNA or X in protein.

    Returns
    -------
    table : MeasuredTable

    Raises
    ------
    InvalidParameterError
        If the file or a column is not there, or the file is not a table.
    InvalidDesignError
        If the table is empty, or a sequence is empty, of another length, or has a letter outside the
        alphabet.
    InvalidTargetError
        If a target is not a finite number, or all are equal.

    Examples
    --------
    >>> import tempfile
    >>> rows = pd.DataFrame({"seq": ["ACGT", "ACGA", "ACGT"], "mrl": [1, 5, 2]})
    >>> with tempfile.NamedTemporaryFile(suffix=".csv") as file:
    ...     rows.to_csv(file.name)
    ...     table = read_table(file.name, sequence="seq", target="mrl")
    >>> table.sequences, table.y.tolist()
    (['ACGT', 'ACGA'], [1.5, 5.0])
    >>> print(table.describe())
    read 3 rows: 2 kept (1 duplicate averaged); DNA, 4 nt; target 5/50/95 %: 1.68 / 3.25 / 4.83, max 5
    """
    if on_ambiguous not in ("error", "drop"):
        raise InvalidParameterError(f"on_ambiguous must be 'error' or 'drop'; got {on_ambiguous!r}.")
    path = Path(path)
    frame = _read_columns(path, sequence, target)
    _check_targets(frame, path, target)
    rows = frame["sequence"].tolist()
    space_letters, name = _letters(rows, alphabet)
    if space_letters.upper() == space_letters:
        rows = [row.upper() for row in rows]
    keep = np.ones(len(rows), dtype=bool)
    dropped = {}
    ambiguous = _check_letters(rows, frame, path, space_letters, AMBIGUOUS.get(name, ""), on_ambiguous)
    if ambiguous:
        keep[list(ambiguous)] = False
        dropped[f"with {', '.join(sorted(set(ambiguous.values())))}"] = len(ambiguous)
    lengths = np.array([len(row) for row in rows])
    if length is None:
        length = _only_length(lengths[keep])
    elif (lengths[keep] != length).any():
        dropped[f"of another length than {length}"] = int((lengths[keep] != length).sum())
        keep &= lengths == length
    if not keep.any():
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
        raise InvalidDesignError(f"{path} has no row to learn from: of {len(rows):,} rows, {reasons} were dropped.")
    kept = pd.Series(frame["target"].to_numpy()[keep]).groupby(np.array(rows, dtype=object)[keep], sort=False).mean()
    y = kept.to_numpy()
    if y.min() == y.max():
        raise InvalidTargetError(
            f"column {target!r} of {path} is {y[0]:g} in all rows; there is nothing to learn from a constant target."
        )
    return MeasuredTable(
        sequences=kept.index.tolist(),
        y=y,
        space=SequenceSpace(space_letters, length),
        n_rows=len(rows),
        n_averaged=int(keep.sum()) - len(y),
        dropped=dropped,
    )


def _read_columns(path: Path, sequence: str, target: str) -> pd.DataFrame:
    """The two columns as "sequence" and "text", with the line of each row in the file as the index."""
    if not path.is_file():
        raise InvalidParameterError(f"{path} is not a file; check the path of the table.")
    try:
        headers = {sep: _read_csv(path, sep=sep, nrows=0).columns for sep in ",\t;"}
        separator = max(headers, key=lambda sep: len(headers[sep]))
        columns = headers[separator].tolist()
        for column in (sequence, target):
            if column not in columns:
                shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
                raise InvalidParameterError(
                    f"{path} has no column {column!r}; its columns are: {shown}. Pass one of them."
                )
        frame = _read_csv(path, sep=separator, dtype=str, na_filter=False, skip_blank_lines=False)
    except BraidkitError:
        raise
    except pd.errors.EmptyDataError as error:
        raise InvalidDesignError(f"{path} is empty; pass a table with a header row.") from error
    except Exception as error:  # of any kind: each way of packing has errors of its own
        raise InvalidParameterError(
            f"{path} cannot be read as a table ({error}); pass a CSV or TSV file in UTF-8 with a header row."
        ) from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise InvalidParameterError(f"{path} has rows with more fields than the header has; correct the header.")
    table = pd.DataFrame({"sequence": unquoted(frame[sequence]).str.strip(), "text": frame[target].str.strip()})
    table.index += 2  # the header is line 1
    table = table[(table["sequence"] != "") | (table["text"] != "")]
    if table.empty:
        raise InvalidDesignError(f"{path} has a header but no rows; there is nothing to learn from.")
    empty = table.index[table["sequence"] == ""]
    if len(empty):
        raise InvalidDesignError(
            f"line {empty[0]:,} of {path}: the sequence is empty{_others(len(empty))}; drop such rows."
        )
    return table


def _read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """A table by pandas, unpacked no further than our own limit."""
    with open_table(path) as file:
        return pd.read_csv(file, encoding="utf-8-sig", **options)


def quoted(cells: pd.Series) -> pd.Series:
    """Texts as a spreadsheet shows them: one that it would take for a formula gets an apostrophe in front."""
    return cells.str.replace(_FORMULA, "'", regex=True)


def unquoted(cells: pd.Series) -> pd.Series:
    """Texts without the apostrophes that `quoted` put in front."""
    return cells.str.replace(_QUOTED, "", regex=True)


def _check_targets(frame: pd.DataFrame, path: Path, target: str) -> None:
    """Add the column "target"; refuse what is no finite number."""
    frame["target"] = pd.to_numeric(frame["text"], errors="coerce").astype(float)
    wrong = frame.index[~np.isfinite(frame["target"])]
    if len(wrong):
        raise InvalidTargetError(
            f"line {wrong[0]:,} of {path}: {target!r} is {frame['text'][wrong[0]]!r}, not a finite number"
            f"{_others(len(wrong))}; drop such rows or correct them."
        )
    large = frame.index[frame["target"].abs() > MAX_TARGET]
    if len(large):
        raise InvalidTargetError(
            f"line {large[0]:,} of {path}: {target!r} is {frame['text'][large[0]]}, too large to compute with"
            f"{_others(len(large))}; pass measurements in a larger unit."
        )


def _letters(rows: list[str], alphabet: str | None) -> tuple[str, str]:
    """Letters of the alphabet and its name, guessed from the sequences unless given."""
    if alphabet is not None:
        space = SequenceSpace(alphabet, length=1)  # of any length: only its letters are looked at
        return space.alphabet, space.name
    text = "".join(rows).upper()
    counts = {letter: text.count(letter) for letter in "ACGTU"}
    name = "DNA" if counts["T"] >= counts["U"] else "RNA"
    share = sum(counts[letter] for letter in ALPHABETS[name]) / len(text)
    name = name if share >= _NUCLEOTIDE_SHARE else "protein"
    return ALPHABETS[name], name


def _check_letters(
    rows: list[str], frame: pd.DataFrame, path: Path, letters: str, ambiguous: str, on_ambiguous: str
) -> dict[int, str]:
    """Rows with an ambiguous letter, as {row number: letter}; any other letter is refused."""
    strange = {i: row.translate(_deleting(letters)) for i, row in enumerate(rows)}
    strange = {i: letters for i, letters in strange.items() if letters}
    allowed = ambiguous if on_ambiguous == "drop" else ""
    wrong = {i: row.translate(_deleting(allowed)) for i, row in strange.items()}
    wrong = {i: letters for i, letters in wrong.items() if letters}
    if wrong:
        i = min(wrong)
        letter = wrong[i][0]
        remedy = (
            'drop such rows or pass on_ambiguous="drop"'
            if letter in ambiguous
            else "drop or correct such rows, or pass the alphabet that the sequences use"
        )
        raise InvalidDesignError(
            f"line {frame.index[i]:,} of {path}: {letter!r} at position {rows[i].index(letter) + 1} is not in the "
            f"alphabet {letters}{_others(len(wrong))}; {remedy}."
        )
    return {i: letters[0] for i, letters in strange.items()}


def _deleting(letters: str) -> dict[int, None]:
    """Translation table that removes letters."""
    return dict.fromkeys(map(ord, letters))


def _only_length(lengths: np.ndarray) -> int:
    """The one length of all rows; 0 without rows."""
    if len(lengths) and lengths.min() != lengths.max():
        values, counts = np.unique(lengths, return_counts=True)
        common = values[counts.argmax()]
        raise InvalidDesignError(
            f"lengths run from {values[0]} to {values[-1]}; pass length={common} to keep only that length "
            f"({counts.max():,} of {len(lengths):,} rows), or crop or pad the sequences beforehand."
        )
    return int(lengths[0]) if len(lengths) else 0


def _others(n: int) -> str:
    """How many rows share a fault, where more than one does."""
    return f" ({n:,} rows are so)" if n > 1 else ""
