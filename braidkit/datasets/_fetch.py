"""Download a file once, keep it, and notice if it ever changes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braidkit.datasets._streams import LimitedFile
from braidkit.exceptions import DownloadError, MissingExtraError
from braidkit.persistence import make_folder, read_path, replace_file
from braidkit.progress import is_watched

TIMEOUT = 60  # seconds without any data


def data_folder(data_home: str | os.PathLike[str] | None = None) -> Path:
    """Folder of data sets: `data_home`, else $BRAIDKIT_DATA, else ``~/braidkit_data``."""
    if data_home is not None:
        read_path("data_home", data_home)
    return Path(data_home or os.environ.get("BRAIDKIT_DATA") or "~/braidkit_data").expanduser()


def fetch_file(url: str, folder: Path, *, check: Callable[[Path], object], download_if_missing: bool = True) -> Path:
    """Give the path of the cached copy of a file, downloading it if it is not there.

    The checksum of the first download is recorded beside the file, in ``<name>.json``; the cached file and any later
    download are held against it. A download appears under its name only when it is complete and checked.

    Parameters
    ----------
    url : str
        http or https; its last part names the file.
    folder : Path
        Made if it does not exist.
    check : callable
        Called with the path of a fresh download; raises `DownloadError` if it is not what was expected, and then
        nothing is kept.
    download_if_missing : bool, default=True

    Returns
    -------
    path : Path

    Raises
    ------
    DownloadError
        If the file cannot be downloaded, is not what was expected, or differs from the recorded checksum.
    MissingExtraError
        If a download is needed and pooch is not installed.
    """
    path = folder / url.rpartition("/")[2]
    record = path.with_name(f"{path.name}.json")
    known = _recorded(record)
    if path.exists():
        if known not in (None, _sha256(path)):
            raise DownloadError(
                f"{path} is not the file that was downloaded: its SHA-256 checksum differs from the one in "
                f"{record.name}; delete both files to download it again."
            )
        return path
    if not download_if_missing:
        raise DownloadError(
            f"{path} is missing and download_if_missing=False; pass download_if_missing=True, or put the file there."
        )
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url} is no address to download from; pass one that starts with http:// or https://.")
    make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{path.name}.") as partial:
        fresh = _download(url, Path(partial), known, record)
        check(fresh)
        _write_record(record, {"url": url, "sha256": _sha256(fresh), "bytes": fresh.stat().st_size})
        fresh.replace(path)
    return path


def _download(url: str, folder: Path, known: str | None, record: Path) -> Path:
    """Download into a folder; with a known checksum, refuse anything else."""
    try:
        import pooch
    except ImportError as error:
        raise MissingExtraError("downloads need pooch; install it with: pip install 'braidkit[data]'") from error
    name = url.rpartition("/")[2]

    def download(url: str, output: str, downloads: Any) -> None:
        with LimitedFile(output, url) as file:
            pooch.HTTPDownloader(progressbar=is_watched(), timeout=TIMEOUT)(url, file, downloads)

    # pooch logs an unknown checksum as a value to write into code: here it is recorded.
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        return Path(
            pooch.retrieve(
                url,
                known_hash=None if known is None else f"sha256:{known}",
                fname=name,
                path=folder,
                downloader=download,
            )
        )
    except ValueError as error:  # pooch's error for a checksum that differs
        raise DownloadError(
            f"{url} is not the file that was downloaded before ({error}); try again, and if the source has changed, "
            f"delete {record} to accept its new file."
        ) from error
    except DownloadError:
        raise
    except OSError as error:  # that of requests as well
        raise DownloadError(
            f"{url} could not be downloaded ({error}); check the connection and try again, pass the base_url of a "
            f"mirror, or put {name} into {record.parent} by hand."
        ) from error
    finally:
        logger.setLevel(level)


def _recorded(record: Path) -> str | None:
    """The checksum of the first download, if there was one."""
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["sha256"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DownloadError(
            f"{record} is damaged ({error}); delete it to accept the file that is there, or a new download."
        ) from error


def _sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_record(record: Path, content: dict[str, Any]) -> None:
    """Write JSON in one piece."""
    with replace_file(record) as path:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
