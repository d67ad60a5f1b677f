"""Open tables and downloads of a bounded size: what unpacks without end is refused, not swallowed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from braidkit.exceptions import DownloadError, InvalidParameterError

# Bytes that a compressed table may unpack to, and that a download may have.
MAX_UNPACKED, MAX_DOWNLOAD = 2**30, 2**33
_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
# First bytes of packed files, for files whose names have no known ending.
_BEGINNINGS = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"PK\x03\x04": ".zip"}
_ARCHIVES = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".zst", ".7z", ".rar")


def open_table(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in .gz, .bz2, .xz or .zip, or if it begins like such a file.

    Raises
    ------
    InvalidParameterError
        If it is an archive of another kind, or a zip file of none or several files; while reading, if it unpacks to
        more than `MAX_UNPACKED` bytes.
    """
    name = path.name.lower()
    if any(part in _ARCHIVES for part in Path(name).suffixes[-2:]):
        raise InvalidParameterError(f"{path} is an archive; unpack it, and pass the table that is in it.")
    suffix = Path(name).suffix
    if suffix not in (*_OPENERS, ".zip"):
        with path.open("rb") as file:
            beginning = file.read(8)
        suffix = next((kind for mark, kind in _BEGINNINGS.items() if beginning.startswith(mark)), suffix)
    if suffix == ".zip":
        return _limited(_only_member(path), path)
    opener = _OPENERS.get(suffix)
    return path.open("rb") if opener is None else _limited(opener(path), path)


def _only_member(path: Path) -> IO[bytes]:
    """The one file in a zip file."""
    archive = zipfile.ZipFile(path)
    members = [member for member in archive.namelist() if not member.endswith("/")]
    if len(members) != 1:
        raise InvalidParameterError(
            f"{path} has {len(members)} files in it; unpack it, and pass the table that is meant."
        )
    return archive.open(members[0])


def _limited(stream: IO[bytes], path: Path) -> IO[bytes]:
    return io.BufferedReader(_Unpacked(stream, path))


class _Unpacked(io.RawIOBase):
    """A stream that may not give more than `MAX_UNPACKED` bytes."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream, self.path, self.n_read = stream, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        self.n_read += len(data)
        if self.n_read > MAX_UNPACKED:
            raise InvalidParameterError(
                f"{self.path} unpacks to more than {MAX_UNPACKED / 2**30:.3g} GiB; unpack it, and pass the table that "
                "is in it."
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.stream.close()
        super().close()


class LimitedFile(io.FileIO):
    """A file to write a download to, which ends it when it has more than `MAX_DOWNLOAD` bytes."""

    def __init__(self, path: str, url: str) -> None:
        super().__init__(path, "wb")
        self.url, self.n_written = url, 0

    def write(self, data: Any) -> int:
        """Write, or raise DownloadError."""
        self.n_written += len(data)
        if self.n_written > MAX_DOWNLOAD:
            raise DownloadError(
                f"{self.url} sends more than {MAX_DOWNLOAD / 2**30:.3g} GiB, and is no data set of ours; nothing was "
                "kept. Check the address."
            )
        return super().write(data)
