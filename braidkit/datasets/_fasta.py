"""FASTA files of sequences, with measurements in their headers or in a table beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from braidkit.datasets._cells import COMMENT, Cells, read_cells
from braidkit.datasets._numbers import MISSING
from braidkit.datasets._spreadsheet import is_workbook
from braidkit.datasets._text import BLANKS, open_text, readable
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError

_MARK = ">"
_NUMBER = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]+)?")


class Record(NamedTuple):
    """One sequence of a FASTA file."""

    id: str
    fields: list[str]  # what the header has beside the id
    sequence: str
    line: int  # of its header


def is_fasta(path: Path) -> bool:
    """Whether a file begins as FASTA files do."""
    with readable(path):
        if is_workbook(path):
            return False
        with open_text(path) as file:
            texts = (line.strip(BLANKS) for line in file)
            return next((text for text in texts if text and not text.startswith(COMMENT)), "").startswith(_MARK)


def read_records(path: Path) -> list[Record]:
    """All sequences of a FASTA file.

    Raises
    ------
    InvalidDesignError
        Naming the header that no sequence follows.
    """
    records: list[Record] = []
    with readable(path), open_text(path) as file:
        for number, line in enumerate(file, start=1):
            text = line.strip(BLANKS)
            if text.startswith(_MARK):
                id, *fields = [part for part in re.split(r"[\s|;]+", text[1:]) if part] or [""]
                records.append(Record(id, fields, "", number))
            elif text and not text.startswith(COMMENT):
                records[-1] = records[-1]._replace(sequence=records[-1].sequence + text)
    for record in records:
        if not record.sequence:
            raise InvalidDesignError(
                f"line {record.line:,} of {path}: no sequence follows {_MARK}{record.id}; remove this header."
            )
    return records


def read_measured_records(
    path: Path, targets: Sequence[str], values: Path | None, id_column: str | None
) -> tuple[Cells, dict[str, int]]:
    """Sequences of a FASTA file with their measurements, as a table has them.

    Parameters
    ----------
    path : Path
    targets : sequence of str
        Names of what is to be read: of ``target=1.2`` in headers, or of columns of `values`. Headers that have one
        number beside the id need no name for the only target.
    values : Path or None
        Table of ids and measurements.
    id_column : str or None
        Its column of ids; "id" by default.

    Returns
    -------
    cells : Cells
        Columns "sequence" and `targets`.
    dropped : dict of str to int
        Sequences or values without the other, by the reason in words.
    """
    records = read_records(path)
    if values is None:
        columns = {"sequence": [record.sequence for record in records]}
        for target in targets:
            columns[target] = [_value(record, target, path, len(targets) == 1) for record in records]
            if all(text.lower() in MISSING for text in columns[target]):
                raise InvalidTargetError(
                    f"{path} has no values: write them into the headers, as in '>{records[0].id} {target}=1.2', or "
                    "pass a table of ids and values (values=, on the command line --values)."
                )
        return Cells(path, columns, [record.line for record in records]), {}
    return _joined(records, path, targets, values, id_column or "id")


def _value(record: Record, target: str, path: Path, alone: bool) -> str:
    """The target in a header: ``target=1.2`` or ``target:1.2``, else its only number; blank if there is none.

    A number without a name is no value of one of several targets.
    """
    named = [field[len(target) + 1 :] for field in record.fields if field.startswith((f"{target}=", f"{target}:"))]
    found = named or [field for field in record.fields if alone and _NUMBER.fullmatch(field)]
    if len(found) > 1:
        raise InvalidTargetError(
            f"line {record.line:,} of {path}: the header has {len(found)} numbers ({', '.join(found)}); name the one "
            f"that is meant, as {target}={found[0]}."
        )
    return found[0] if found else ""


def _joined(
    records: list[Record], path: Path, targets: Sequence[str], values: Path, id_column: str
) -> tuple[Cells, dict[str, int]]:
    """Rows of a table of values, with the sequences that their ids name."""
    sequences: dict[str, str] = {}
    for record in records:
        if sequences.setdefault(record.id, record.sequence) != record.sequence:
            raise InvalidParameterError(
                f"line {record.line:,} of {path}: {record.id} names another sequence above; give each its own id."
            )
    table = read_cells(values, [id_column, *targets])
    ids = table.columns[id_column]
    known = [i for i, id in enumerate(ids) if id in sequences]
    if not known:
        raise InvalidParameterError(
            f"no value of column {id_column!r} of {values} is an id of {path}: the first are {ids[0]!r} there and "
            f"{records[0].id!r} here; name the column of ids (sequence=, on the command line --sequence)."
        )
    columns = {target: [table.columns[target][i] for i in known] for target in targets}
    columns["sequence"] = [sequences[ids[i]] for i in known]
    counts = {
        f"of {path.name} without a value": len(sequences.keys() - set(ids)),
        f"of {values.name} without a sequence": len(ids) - len(known),
    }
    joined = Cells(values, columns, [table.numbers[i] for i in known], table.unit, table.n_comments)
    return joined, {reason: n for reason, n in counts.items() if n}
