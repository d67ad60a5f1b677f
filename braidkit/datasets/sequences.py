"""Sequences without measurements: what a fitted estimator is asked about."""

from __future__ import annotations

import os
from dataclasses import replace

import pandas as pd

from braidkit.datasets._cells import SEQUENCE, Cells, others, read_cells
from braidkit.datasets._fasta import is_fasta, read_records
from braidkit.datasets.table import check_letters, read_letters, unquoted
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.persistence import read_path
from braidkit.spaces import SequenceSpace


def read_sequences(path: str | os.PathLike[str], space: SequenceSpace, *, sequence: str | None = None) -> pd.DataFrame:
    """Read sequences of a space from FASTA, or from a table as `read_table` reads it.

    Parameters
    ----------
    path : path-like
    space : SequenceSpace
        Of their alphabet and length.
    sequence : str, optional
        Column of the sequences, by default "sequence".

    Returns
    -------
    sequences : DataFrame
        Columns "id" (of FASTA, or of a column of that name; else the number of the line) and "sequence".

    Raises
    ------
    InvalidDesignError
        Naming the first row that is not in the space.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".fasta") as file:
    ...     print(">parent\\nacgu", file=file, flush=True)
    ...     read_sequences(file.name, SequenceSpace("DNA", 4)).values.tolist()
    [['parent', 'ACGT']]
    """
    path = read_path("path", path)
    if is_fasta(path):
        records = read_records(path)
        columns = {"id": [record.id for record in records], "sequence": [record.sequence for record in records]}
        cells = Cells(path, columns, [record.line for record in records])
    else:
        name = SEQUENCE if sequence is None else sequence
        try:
            cells = read_cells(path, [name, "id"])
        except InvalidParameterError:  # no column of that name, or what is wrong is wrong without it
            cells = read_cells(path, [name])
        ids = cells.columns.get("id", [str(number) for number in cells.numbers])
        cells = replace(cells, columns={"id": ids, "sequence": unquoted(pd.Series(cells.columns[name])).tolist()})
    rows, *_ = read_letters(cells, space.alphabet)
    check_letters(rows, cells, space)
    shortest, longest = (space.lengths,) * 2 if isinstance(space.lengths, int) else space.lengths
    wrong = [i for i, row in enumerate(rows) if not shortest <= len(row) <= longest]
    if wrong:
        allowed = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
        raise InvalidDesignError(
            f"{cells.where(wrong[0])}: the sequence has {len(rows[wrong[0]])} letters, and designs have {allowed}"
            f"{others(len(wrong))}; crop or drop such rows."
        )
    return pd.DataFrame({"id": cells.columns["id"], "sequence": rows})
