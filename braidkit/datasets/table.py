"""Read a table of measured sequences: what a person has in hand, checked before anything long begins."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from braidkit.datasets._cells import SEQUENCE, Cells, others, read_cells
from braidkit.datasets._fasta import is_fasta, read_measured_records
from braidkit.datasets.measured import AskedColumns, MeasuredDesigns, check_any_kept, check_on_constant
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.persistence import digest, read_path
from braidkit.spaces import SequenceSpace
from braidkit.spaces.choice import far_longer

# Letters for more than one nucleotide or amino acid (IUPAC), and amino acids beyond the twenty.
AMBIGUOUS = {"DNA": "NRYSWKMBDHV", "RNA": "NRYSWKMBDHV", "protein": "XBZJUO"}
# What a spreadsheet takes for a formula begins so. What begins with an apostrophe gets one more, to come back whole.
_FORMULA, _QUOTED = r"^(?=['=+\-@\t\r])", r"^'(?=['=+\-@\t\r])"
# A mutation as "A23V", "p.A23V", "p.Ala23Val", "c.76A>T" or "23del" names it, in capitals.
_RESIDUE = r"(?:[A-Z]|ALA|ARG|ASN|ASP|CYS|GLN|GLU|GLY|HIS|ILE|LEU|LYS|MET|PHE|PRO|SER|THR|TRP|TYR|VAL)"
_MUTATION = re.compile(rf"(?:[CGNP]\.)?{_RESIDUE}?[0-9]+(?:{_RESIDUE}|DEL|TER|[*=]|[A-Z]>[A-Z])(?![A-Z])")
# Sequences are nucleotides if at least this share of their letters is.
_NUCLEOTIDE_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class MeasuredTable(MeasuredDesigns):
    """Sequences with one measurement each, and what was done to the rows that were read.

    Attributes
    ----------
    sequences : list of str
        All different, in the order of their first row.
    space : SequenceSpace
        Their alphabet and lengths.
    y, n_rows, n_averaged, dropped, notes, targets, y_error, sample_weight, noise
        As in `MeasuredDesigns`.
    """

    sequences: list[str]
    space: SequenceSpace

    @property
    def X(self) -> list[str]:
        """The designs, as `fit` takes them."""
        return self.sequences

    def digest(self) -> str:
        """A digest of the sequences, measurements and noise."""
        return digest(self.sequences, self.y, *([self.told] if self.told else []))

    def describe(self) -> str:
        """One line: rows read and kept, the kind of sequence, the target's quantiles."""
        unit = {"DNA": "nt", "RNA": "nt", "protein": "aa"}.get(self.space.name, "letters")
        lengths, side = self.space.letters.in_words(), self.space.letters.padding
        padded = "" if side is None else f", padded on the {side}"
        return self.described_as(f"{self.space.name}, {lengths} {unit}{padded}")


def read_table(
    path: str | os.PathLike[str],
    *,
    target: str | Sequence[str],
    sequence: str | None = None,
    values: str | os.PathLike[str] | None = None,
    target_se: str | Sequence[str] = (),
    weight: str | None = None,
    alphabet: str | None = None,
    length: int | None = None,
    padding: str = "right",
    on_ambiguous: str = "error",
    on_constant: str = "error",
) -> MeasuredTable:
    """Read sequences and their measurements from a table with a header row, or from FASTA.

    Rows of the same sequence are averaged. Rows without a measurement (a blank, NA, nan and their like) are dropped.
    Blank lines, and lines that begin with "#", are skipped. Blanks around cells and names of columns, and within
    sequences, are removed. Letters are upper-cased unless `alphabet` has lower-case letters; in DNA, U is read as T,
    and in RNA T as U. What was done to how many rows is told by `MeasuredTable.describe`.

    Parameters
    ----------
    path : path-like
        Text with columns separated by commas, tabs, semicolons, bars or blanks, in UTF-8, UTF-16 or Latin-1, with
        decimal points or commas; FASTA; or an Excel workbook (with openpyxl). Files packed as .gz, .bz2, .xz or .zip
        are unpacked.
    target : str, or list of str
        Column of the measurements, columns of replicates as "rep1,rep2,rep3", or either with a name of its own,
        "affinity=rep1,rep2,rep3"; a list for several targets. The mean of replicates is taken, of those that are there,
        and what they differ by tells the noise. In FASTA the value is in the header: ``>id target=1.2``, or
        ``>id 1.2``.
    sequence : str, optional
        Column of the sequences, by default "sequence"; with `values`, its column of ids, by default "id".
    values : path-like, optional
        Table of ids and measurements, for a FASTA file.
    target_se : str, or list of str, optional
        Column of the measurements' standard errors; one for each target.
    weight : str, optional
        Column of the rows' weights, such as counts of reads; rows of weight 0 are dropped.
    alphabet : str, optional
        As in `SequenceSpace`; by default DNA or RNA if at least half of the letters are nucleotides, else protein.
    length : int, optional
        Keep only sequences of this length and leave the others out. By default all are kept, and none is cropped: what
        was measured is the whole sequence.
    padding : {"right", "left"}, default="right"
        Where sequences are padded that are shorter than the longest; see `SequenceSpace`.
    on_ambiguous : {"error", "drop"}, default="error"
        Treatment of rows that have an ambiguous letter of the alphabet, such as N in DNA or X in protein.
    on_constant : {"error", "keep"}, default="error"
        Treatment of a target that is the same in all rows. There is nothing to learn from it alone; rows that are added
        to others, as a second round's, may be kept.

    Returns
    -------
    table : MeasuredTable

    Raises
    ------
    InvalidParameterError
        If the file or a column is not there, a column is there twice, the file is not a table, or a row has not as
        many cells as the header.
    InvalidDesignError
        If the table is empty, or a sequence is empty, has a letter outside the alphabet, or is one of a few that have
        more than five times the letters of the others.
    InvalidTargetError
        If a target is not a finite number or can be read in two ways, or all are equal; if replicates never differ, a
        weight is negative, or a standard error not above 0.
    MissingExtraError
        If the file is an Excel workbook and openpyxl is not installed.

    Examples
    --------
    >>> import tempfile
    >>> rows = pd.DataFrame({"seq": ["ACGT", "ACGA", "ACGT"], "mrl": [1, 5, 2]})
    >>> with tempfile.NamedTemporaryFile(suffix=".csv") as file:
    ...     rows.to_csv(file.name)
    ...     table = read_table(file.name, target="mrl", sequence="seq")
    >>> table.sequences, table.y.tolist()
    (['ACGT', 'ACGA'], [1.5, 5.0])
    >>> print(table.describe())
    read 3 rows: 2 kept (1 duplicate averaged); DNA, 4 nt; target 5/50/95 %: 1.68 / 3.25 / 4.83, max 5
    """
    if on_ambiguous not in ("error", "drop"):
        raise InvalidParameterError(f"on_ambiguous must be 'error' or 'drop'; got {on_ambiguous!r}.")
    check_on_constant(on_constant)
    path = read_path("path", path)
    asked = AskedColumns.parse(target, target_se, weight)
    cells, dropped = _read(path, sequence, asked.names, None if values is None else read_path("values", values))
    measured = asked.values(cells)
    rows, space, notes = read_letters(cells, alphabet)
    keep = np.ones(len(rows), dtype=bool)
    asked.drop_unmeasured(measured, keep, dropped)
    ambiguous = check_letters(rows, cells, space, on_ambiguous)
    letters = {letter for i, letter in ambiguous.items() if keep[i]}
    if letters:
        dropped[f"with {', '.join(sorted(letters))}"] = int(keep[list(ambiguous)].sum())
        keep[list(ambiguous)] = False
    lengths = np.array([len(row) for row in rows])
    if length is not None and (lengths[keep] != length).any():
        dropped[f"of another length than {length}"] = int((lengths[keep] != length).sum())
        keep &= lengths == length
    weights = asked.drop_weightless(cells, keep, dropped)
    check_any_kept(path, keep, dropped)
    _check_lengths(cells, lengths, keep)
    groups, sequences = pd.factorize(np.array(rows, dtype=object)[keep])
    if cells.n_comments:
        notes.append(f"{cells.n_comments:,} commented out")
    return MeasuredTable(
        sequences=sequences.tolist(),
        space=SequenceSpace(space.alphabet, (int(lengths[keep].min()), int(lengths[keep].max())), padding=padding),
        n_rows=len(rows),
        n_averaged=int(keep.sum()) - len(sequences),
        dropped=dropped,
        notes=tuple(notes),
        **asked.averaged(cells, measured, weights, keep, groups, on_constant),
    )


def _check_lengths(cells: Cells, lengths: np.ndarray, keep: np.ndarray) -> None:
    """Raise where a few of the rows that are kept are far longer than all others, as joined rows are."""
    rows = np.flatnonzero(keep)
    far = rows[far_longer(lengths[rows])]
    if len(far):
        usual = np.setdiff1d(rows, far)
        raise InvalidDesignError(
            f"{cells.where(far[0])}: the sequence has {lengths[far[0]]:,} letters{others(len(far))}, but nearly all "
            f"others have at most {lengths[usual].max():,}. Were rows joined? Correct or drop such rows, or keep "
            "only sequences of one length (length=, on the command line --length)."
        )


def _read(path: Path, sequence: str | None, targets: list[str], values: Path | None) -> tuple[Cells, dict[str, int]]:
    """Cells of the columns "sequence" and `targets`, and rows that were dropped, by the reason in words."""
    if is_fasta(path):
        return read_measured_records(path, targets, values, sequence)
    if values is not None:
        raise InvalidParameterError(
            f"values are for the sequences of a FASTA file, and {path} is a table; leave them out."
        )
    name = SEQUENCE if sequence is None else sequence
    if name in targets:
        raise InvalidParameterError(f"column {name!r} cannot be the sequences and the target; name two columns.")
    cells = read_cells(path, [name, *targets])
    columns = {target: cells.columns[target] for target in targets}
    return replace(cells, columns=columns | {"sequence": unquoted(pd.Series(cells.columns[name])).tolist()}), {}


def read_letters(cells: Cells, alphabet: str | None) -> tuple[list[str], SequenceSpace, list[str]]:
    """Sequences in the letters of their alphabet, a space of it with any length, and what was done to the letters."""
    rows = ["".join(row.split()) for row in cells.columns["sequence"]]
    empty = [i for i, row in enumerate(rows) if not row]
    if empty:
        raise InvalidDesignError(f"{cells.where(empty[0])}: the sequence is empty{others(len(empty))}; drop such rows.")
    space = SequenceSpace(_likely_alphabet(rows) if alphabet is None else alphabet, length=1)
    if space.alphabet.upper() == space.alphabet:
        rows = [row.upper() for row in rows]
    if not space.nucleotides:
        return rows, space, []
    foreign, own = ("U", "T") if space.name == "DNA" else ("T", "U")
    found = [i for i, row in enumerate(rows) if foreign in row]
    both = [i for i in found if own in rows[i]]
    if both:
        raise InvalidDesignError(
            f"{cells.where(both[0])}: the sequence has both T and U{others(len(both))}; correct such rows."
        )
    for i in found:
        rows[i] = rows[i].replace(foreign, own)
    return rows, space, [f"{foreign} read as {own} in {len(found):,}"] if found else []


def quoted(cells: pd.Series) -> pd.Series:
    """Texts as a spreadsheet shows them: one that it would take for a formula gets an apostrophe in front."""
    return cells.str.replace(_FORMULA, "'", regex=True)


def unquoted(cells: pd.Series) -> pd.Series:
    """Texts without the apostrophes that `quoted` put in front."""
    return cells.str.replace(_QUOTED, "", regex=True)


def _likely_alphabet(rows: list[str]) -> str:
    """The name of the alphabet that sequences are written in, guessed from their letters."""
    text = "".join(rows).upper()
    counts = {letter: text.count(letter) for letter in "ACGTU"}
    share = sum(counts.values()) / len(text)
    if share < _NUCLEOTIDE_SHARE:
        return "protein"
    return "DNA" if counts["T"] >= counts["U"] else "RNA"


def check_letters(
    rows: list[str], cells: Cells, space: SequenceSpace, on_ambiguous: str | None = None
) -> dict[int, str]:
    """Rows with an ambiguous letter, as {row number: letter}; any other letter is refused.

    Without `on_ambiguous` all rows are needed, and the alphabet is given.
    """
    ambiguous = AMBIGUOUS.get(space.name, "")
    strange = {i: row.translate(_deleting(space.alphabet)) for i, row in enumerate(rows)}
    strange = {i: letters for i, letters in strange.items() if letters}
    allowed = ambiguous if on_ambiguous == "drop" else ""
    wrong = {i: row.translate(_deleting(allowed)) for i, row in strange.items()}
    wrong = {i: letters for i, letters in wrong.items() if letters}
    if wrong:
        i = min(wrong)
        letter = wrong[i][0]
        remedy = _remedy(rows[i], letter, space.alphabet)
        if not remedy:
            remedy = "drop or correct such rows"
            if on_ambiguous is not None:
                as_well = 'on_ambiguous="drop"' if letter in ambiguous else "the alphabet that the sequences use"
                remedy += f", or pass {as_well}"
        raise InvalidDesignError(
            f"{cells.where(i)}: {letter!r} at position {rows[i].index(letter) + 1} is not in the alphabet "
            f"{space.alphabet}{others(len(wrong))}; {remedy}."
        )
    return {i: letters[0] for i, letters in strange.items()}


def _remedy(row: str, letter: str, alphabet: str) -> str:
    """What to do about a row that is a mutation, an aligned sequence or one with its stop codon; empty otherwise."""
    if _MUTATION.match(row):
        return "this names a mutation: write the whole sequence that was measured into each row"
    if letter in "-." and row.strip("-."):
        return (
            "if these are gaps of an alignment, remove them (lengths may differ), or keep the alignment with the "
            f"alphabet {alphabet}{letter}, of which designs have gaps too"
        )
    if letter == "*" and row.endswith("*") and row.count("*") == 1:
        return "if this is the stop codon, remove it"
    return ""


def _deleting(letters: str) -> dict[int, None]:
    """Translation table that removes letters."""
    return dict.fromkeys(map(ord, letters))
