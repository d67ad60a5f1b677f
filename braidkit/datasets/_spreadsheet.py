"""Rows of an Excel workbook as text."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from braidkit.datasets import _streams
from braidkit.exceptions import InvalidParameterError, MissingExtraError

# What workbooks of Excel 97 begin with, and the part that those of today have.
_OLD, _MAIN = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "xl/workbook.xml"


def is_workbook(path: Path) -> bool:
    """Whether a file is an Excel workbook, by its contents; one of Excel 97 is refused."""
    with path.open("rb") as file:
        beginning = file.read(8)
    if beginning == _OLD:
        raise InvalidParameterError(f"{path} is a workbook of Excel 97; save it as .xlsx or as CSV, and pass that.")
    if not beginning.startswith(b"PK\x03\x04"):
        return False
    with zipfile.ZipFile(path) as archive:
        return _MAIN in archive.namelist()


def read_sheets(path: Path) -> Iterator[tuple[str, Iterator[list[str]]]]:
    """Each sheet's name and rows.

    Cells are what the workbook shows, numbers in full; of a formula, what the program that saved it had computed.

    Raises
    ------
    MissingExtraError
        If openpyxl is not installed.
    InvalidParameterError
        If the workbook unpacks to more than our limit.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is an Excel workbook, which needs openpyxl: install it with pip install 'braidkit[excel]', or "
            "save the sheet as CSV."
        ) from error
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _streams.MAX_UNPACKED:
            raise InvalidParameterError(
                f"{path} unpacks to more than {_streams.MAX_UNPACKED / 2**30:.3g} GiB; save the sheet as CSV."
            )
    workbook = load_workbook(path, read_only=True, data_only=True)
    try:
        for sheet in workbook.worksheets:
            yield sheet.title, ([_text(cell) for cell in row] for row in sheet.iter_rows(values_only=True))
    finally:
        workbook.close()


def _text(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)
