"""The measured rows of a run, kept in its directory: what scores and later rounds need of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braidkit.data import read_targets, read_weights
from braidkit.datasets.table import MeasuredTable, quoted, unquoted
from braidkit.datasets.vector_table import MeasuredVectors
from braidkit.exceptions import CheckpointError
from braidkit.persistence import replace_file
from braidkit.spaces import SequenceSpace, VectorSpace

MEASURED = "measured.csv.gz"
# Beginnings of the names of columns, before the name of a target.
_VALUE, _ERROR = "measured: ", "standard error: "
_COLUMN = "column: "  # before the name of a column of a recipe
_SEQUENCE, _PLACE, _WEIGHT = "sequence", "place", "weight"


def write_measured(table: MeasuredTable | MeasuredVectors, path: Path) -> None:
    """Write designs, measurements and what is known of their noise, in one piece."""
    if isinstance(table, MeasuredVectors):
        frame = table.space.to_frame(table.X).add_prefix(_COLUMN).assign(**{_PLACE: table.places})
    else:
        frame = pd.DataFrame({_SEQUENCE: quoted(pd.Series(table.sequences))})
    for prefix, values in ((_VALUE, table.y), (_ERROR, table.y_error)):
        if values is not None:
            for name, column in zip(table.targets, values.reshape(len(frame), -1).T, strict=True):
                frame[prefix + name] = column
    if table.sample_weight is not None:
        frame[_WEIGHT] = table.sample_weight
    # Without a name and a time in it, so that the same rows make the same file.
    with replace_file(path) as part, open(part, "wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        frame.to_csv(packed, index=False)


def read_measured(run: Path, space: SequenceSpace) -> MeasuredTable:
    """Read the sequences that `write_measured` wrote; rows are of the space given.

    Raises
    ------
    CheckpointError
        If the run keeps none, or the file is damaged.
    """
    with _reading(run) as (frame, told):
        return MeasuredTable(sequences=space.strings(unquoted(frame[_SEQUENCE])), space=space, **told)


def read_measured_rows(run: Path, space: VectorSpace) -> MeasuredVectors:
    """Read the rows of numbers that `write_measured` wrote, as `read_measured` does."""
    with _reading(run) as (frame, told):
        table = frame[[name for name in frame if name.startswith(_COLUMN)]]
        rows = space.from_frame(table.rename(columns=lambda name: name.removeprefix(_COLUMN)))
        return MeasuredVectors(X=space.points(rows).rows, places=frame[_PLACE].tolist(), space=space, **told)


@contextmanager
def _reading(run: Path) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """The columns of a file, and what is measured as fields of `MeasuredDesigns`; errors of the block name the file."""
    path = run / MEASURED
    try:
        # As text: not every version of pandas reads the number that was written, to the last bit.
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values={})
        targets = tuple(name.removeprefix(_VALUE) for name in frame.columns if name.startswith(_VALUE))
        found = {prefix: _columns(frame, prefix, targets) for prefix in (_VALUE, _ERROR)}
        y = found[_VALUE]
        if y is None:
            raise ValueError("it has no measurements")
        weights = frame.get(_WEIGHT)
        read_targets(pd.DataFrame(y.reshape(len(y), -1), columns=list(targets)))
        error = found[_ERROR]
        if error is not None and (error <= 0).any():
            raise ValueError("a standard error is not above 0")
        told = {
            "y": y,
            "n_rows": len(frame),
            "n_averaged": 0,
            "targets": targets,
            "y_error": error,
            "sample_weight": None if weights is None else read_weights(weights, len(y)),
        }
        yield frame, told
    except FileNotFoundError:
        raise CheckpointError(
            f"{run} has no {MEASURED}; pass the directory of a run that this version of braidkit design finished."
        ) from None
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); give the run's command again with --overwrite.") from error


def _columns(frame: pd.DataFrame, prefix: str, targets: tuple[str, ...]) -> np.ndarray | None:
    """Numbers (n,) of one target, or (n, n_targets) of several; None if there are none."""
    if not targets or prefix + targets[0] not in frame:
        return None
    columns = [pd.to_numeric(frame[prefix + name], errors="coerce").to_numpy(dtype=np.float64) for name in targets]
    return columns[0] if len(columns) == 1 else np.column_stack(columns)
