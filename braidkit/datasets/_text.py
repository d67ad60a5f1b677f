"""Lines of a text file, in whatever encoding a program wrote it."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from braidkit.datasets._streams import open_table
from braidkit.exceptions import BraidkitError, InvalidDesignError, InvalidParameterError

# What programs put around a cell besides blanks: a hard space, a zero-width one, a mark of the byte order.
BLANKS = " \t\r\n\f\v\xa0\u200b\ufeff"
# Longer marks come first, because a mark of UTF-32 begins like one of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Without a mark: of the last, every byte is a letter.
_UNMARKED = ("utf-8", "cp1252", "latin-1")
_CHUNK = 2**20


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a sentence that names it."""
    if not path.is_file():
        raise InvalidParameterError(f"{path} is not a file; check the path of the table.")
    try:
        yield
    except BraidkitError:
        raise
    except Exception as error:  # of any kind: each way of packing has errors of its own
        raise InvalidParameterError(
            f"{path} cannot be read as a table ({error}); pass a CSV, TSV, FASTA or Excel file with a header row."
        ) from error


@contextmanager
def open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open a file as text; lines end in ``\\n``, whatever they end in on disk."""
    encoding = _encoding_of(path)
    with open_table(path) as file, io.TextIOWrapper(file, encoding=encoding) as text:
        yield text


def _encoding_of(path: Path) -> str:
    """The first encoding in which the whole file is text.

    Raises
    ------
    InvalidParameterError
        If it is no text in any.
    InvalidDesignError
        If it is empty.
    """
    with open_table(path) as file:
        head = file.read(_CHUNK)
    if not head:
        raise InvalidDesignError(f"{path} is empty; pass a table with a header row.")
    marked = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    for encoding in (marked,) if marked else (*_without_mark(head), *_UNMARKED):
        try:
            if not _has_zeros(path, encoding):
                return encoding
        except UnicodeError:
            continue
    raise InvalidParameterError(
        f"{path} is no text; if it is a table of another program, save it as CSV in UTF-8 and pass that."
    )


def _without_mark(head: bytes) -> tuple[str, ...]:
    """UTF-16 of letters that ASCII has, where every other byte is zero."""
    if head[1::2].count(0) > 0.9 * len(head[1::2]):
        return ("utf-16-le",)
    return ("utf-16-be",) if head[::2].count(0) > 0.9 * len(head[::2]) else ()


def _has_zeros(path: Path, encoding: str) -> bool:
    """Whether a file has a zero among its letters, as files of no text do; UnicodeError if it is not so encoded."""
    decoder = codecs.getincrementaldecoder(encoding)()
    with open_table(path) as file:
        while chunk := file.read(_CHUNK):
            if "\0" in decoder.decode(chunk):
                return True
        decoder.decode(b"", final=True)
    return False
