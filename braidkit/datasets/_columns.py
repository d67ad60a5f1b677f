"""Columns of published tables, by whichever of their names a file has."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from braidkit.exceptions import DownloadError

Columns = dict[str, tuple[str, ...]]  # our name of a column, and the names that files give it


def read_columns(
    path: Path,
    names: Columns,
    remedy: str,
    *,
    kind: str = "gzipped CSV file",
    separator: str = ",",
    compression: Literal["gzip"] | None = "gzip",
) -> pd.DataFrame:
    """Columns of a table under new names, each being the first of its old names that the file has.

    All are numbers but "sequence". `kind` is what the file is to be, and `remedy` what to do if it is not, in words.

    Raises
    ------
    DownloadError
        If a column is missing, or the file is damaged.
    """
    options: dict[str, Any] = {"sep": separator, "compression": compression}
    try:
        header = pd.read_csv(path, nrows=0, **options).columns.tolist()
        found = {new: next((name for name in old if name in header), None) for new, old in names.items()}
        for new, name in found.items():
            if name is None:
                wanted = " or ".join(map(repr, names[new]))
                raise DownloadError(f"{path.name} has no column {wanted}, but {', '.join(header)}; {remedy}.")
        types: dict[Any, Any] = {name: str if new == "sequence" else np.float64 for new, name in found.items()}
        table = pd.read_csv(path, usecols=list(types), dtype=types, **options)
    except DownloadError:
        raise
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DownloadError(f"{path.name} is not a complete {kind} ({error}); {remedy}.") from error
    return table.rename(columns={name: new for new, name in found.items()})[list(names)]
