"""Write files so that whoever looks finds the old one or the new one, and nothing of anybody else's is touched."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from braidkit.exceptions import CheckpointError, InvalidParameterError

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\.braidkit-[0-9a-f]{16}-(.+)")
# Names of files have at most 255 bytes.
_MAX_NAME = 100
# Seconds between looks at a directory that another process has locked.
_PATIENCE = 0.05


def read_path(name: str, value: Any) -> Path:
    """A path as it was given; anything else, and an empty one, is refused by name."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value) or isinstance(os.fspath(value), bytes):
        raise InvalidParameterError(f"{name} must be a path, such as 'runs/first'; got {value!r}.")
    try:
        os.lstat(value)
    except ValueError as error:  # a zero in it
        raise InvalidParameterError(
            f"{name} must be a path, and no path has a zero in it; got {value!r:.60}."
        ) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InvalidParameterError(f"{name} must be a path of fewer letters; got {value!r:.60}...") from error
    return Path(value)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it; where that cannot be, the error names it and what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # which is no fault of the path's
            raise
        raise CheckpointError(f"{folder} cannot be made ({error.strerror}); choose another directory.") from error


def new_temporary(target: Path) -> Path:
    """Create an empty file of a name that nobody can guess beside `target`; links that are in the way are not followed.

    Its name ends like that of `target`, because some writers choose the format by the ending.
    """
    temporary = target.with_name(f".braidkit-{secrets.token_hex(8)}-{target.name[-_MAX_NAME:]}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return temporary


def temporaries(folder: Path, name: str = "") -> list[Path]:
    """Temporary files of ours in a folder, of the file `name` or of all: those of writes that were killed."""
    found = []
    for path in sorted(folder.iterdir()):
        match = _TEMPORARY.fullmatch(path.name)
        if match and match[1] == (name or match[1]) and is_regular(path):
            found.append(path)
    return found


def is_regular(path: Path) -> bool:
    """Whether a path is a file, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_empty(folder: Path) -> bool:
    """Whether a folder is there and holds nothing."""
    return folder.is_dir() and not any(folder.iterdir())


def flush(path: Path) -> None:
    """Have a file, or a folder's list of names, written to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems cannot, for folders above all
        if path.is_file():
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to `path` when the block ends without an error."""
    target = Path(path)
    if target.is_dir():
        raise CheckpointError(f"{target} is a directory; pass the path of a file.")
    make_folder(target.parent)
    temporary = new_temporary(target)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(target)
        flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, *, wait: float = 0) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder; a process that is killed leaves no lock behind.

    Raises
    ------
    CheckpointError
        If another process uses the folder, and still does after `wait` seconds.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + wait
    try:
        while not _taken(descriptor):
            if time.monotonic() >= deadline:
                raise CheckpointError(
                    f"another process uses {folder}; wait until it has finished, or choose another directory."
                )
            time.sleep(_PATIENCE)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Whether the lock is ours now; where the file system knows no locks, it is."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
