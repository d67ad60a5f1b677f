"""Columns of published tables, by whichever of their names a file has."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from braidkit.datasets._fetch import fetch_file
from braidkit.exceptions import DownloadError, InvalidParameterError

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


def fetch_columns(
    base_url: str, name: str, folder: Path, columns: Columns, download_if_missing: bool, **form: Any
) -> tuple[Path, pd.DataFrame]:
    """The copy of a published table, downloaded if need be, and its columns; `form` is that of `read_columns`."""
    if not isinstance(base_url, str):
        raise InvalidParameterError(f"base_url must be an address, such as 'https://...'; got {base_url!r}.")
    kept = "nothing was kept: try again, or pass the base_url of another mirror"
    path = fetch_file(
        f"{base_url.rstrip('/')}/{name}",
        folder,
        check=lambda path: read_columns(path, columns, kept, **form),
        download_if_missing=download_if_missing,
    )
    return path, read_columns(path, columns, f"delete it from {folder} to download it again", **form)


def is_dna(sequences: pd.Series, length: int) -> pd.Series:
    """Which rows are so many letters of ACGT."""
    return sequences.str.fullmatch(f"[ACGT]{{{length}}}", na=False)
