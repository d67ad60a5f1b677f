"""The files of a run, as its record ``run.json`` names them: no others are written, moved or removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from braidkit.exceptions import CheckpointError
from braidkit.finetuning.checkpoint import remove_checkpoint
from braidkit.persistence import file_contents, read_json, remove_saved, write_json

RECORD, CHECKPOINT = "run.json", "checkpoint"
_KEYS = {"finished": bool, "settings": dict, "seconds": dict, "files": dict}


class RunFiles:
    """A folder with a run in it, and the run's record.

    Parameters
    ----------
    folder : Path
    record : dict
        Empty if there is no run.
    """

    def __init__(self, folder: Path, record: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.record = record or {}

    @classmethod
    def of(cls, folder: Path) -> RunFiles:
        """The contents of a folder.

        Raises
        ------
        CheckpointError
            If ``run.json`` is damaged, or another program's.
        """
        try:
            record = read_json(folder / RECORD)
        except (FileNotFoundError, NotADirectoryError):
            return cls(folder)
        except CheckpointError as error:
            raise CheckpointError(f"{error} Choose another directory, or move that file away.") from error
        wrong = [key for key, kind in _KEYS.items() if not isinstance(record.get(key), kind)]
        if wrong:
            raise CheckpointError(f"{folder / RECORD} is no record of a run; choose another directory.")
        return cls(folder, record)

    def save(self) -> None:
        """Write the record."""
        write_json(self.folder / RECORD, self.record)

    def names(self) -> list[str]:
        """All that belongs to the run but its record: outputs, the checkpoint, a run that it was to replace."""
        more = [CHECKPOINT, self.record.get("replaces")]
        return [name for name in [*self.record.get("files", {}), *more] if name and path_exists(self.folder / name)]

    def check_outputs(self, outputs: Iterable[str]) -> None:
        """Raise if an output's place is taken by a file that no run of braidkit wrote, or that was changed since.

        Raises
        ------
        CheckpointError
        """
        for name in {*outputs, *self.record.get("files", {})}:
            self._check_own(name)

    def begin(self, name: str, members: Iterable[str] = ()) -> None:
        """Record that an output, or the files of a folder, are about to be written."""
        self._check_own(name)
        # Save the record first: after a kill during the writing, the unfinished file is known to be ours.
        self.record["files"][name] = dict.fromkeys(members) or None
        self.save()

    def done(self, name: str) -> None:
        """Record the contents of an output that was written."""
        self.record["files"][name] = file_contents(self.folder / name)
        self.save()

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint."""
        remove_checkpoint(self.folder / CHECKPOINT)

    def remove(self) -> None:
        """Remove the files of the record that are as the run wrote them, and then the record.

        The record goes last, so that an interrupted removal can be repeated.
        """
        files: Mapping[str, Any] = self.record.get("files", {})
        for name, contents in files.items():
            path = self.folder / name
            if contents is None and path.is_dir():
                with contextlib.suppress(CheckpointError):
                    remove_saved(path)
            else:
                _remove_unchanged(path, contents)
        if self.record:
            self.remove_checkpoint()
            if self.record.get("replaces"):
                before = self.folder / self.record["replaces"]
                RunFiles.of(before).remove()
                with contextlib.suppress(OSError):
                    before.rmdir()
            (self.folder / RECORD).unlink(missing_ok=True)

    def _check_own(self, name: str) -> None:
        path, files = self.folder / name, self.record.get("files", {})
        if not path_exists(path):
            return
        if name not in files:
            raise CheckpointError(f"{path} is in the way, and no run of braidkit wrote it; move it to another place.")
        if not _is_as_recorded(file_contents(path), files[name]):
            raise CheckpointError(
                f"{path} was changed after the run had written it; move it to another place if you need it, or "
                "remove it, and give the command again."
            )


def _is_as_recorded(contents: Any, recorded: Any) -> bool:
    """Whether contents are those of the record, of which None stands for any, or for a file that is still missing."""
    if isinstance(contents, dict) and isinstance(recorded, dict):
        missing = [name for name in recorded if name not in contents and recorded[name] is not None]
        return not missing and all(
            name in recorded and _is_as_recorded(inner, recorded[name]) for name, inner in contents.items()
        )
    return recorded is None or contents == recorded


def _remove_unchanged(path: Path, contents: Any) -> None:
    """Remove a file of known contents, or a folder's files of known contents; None stands for any file's."""
    if path.is_symlink():
        return
    if isinstance(contents, dict):
        if path.is_dir():
            for name, inner in contents.items():
                _remove_unchanged(path / name, inner)
            with contextlib.suppress(OSError):  # something else is in it
                path.rmdir()
    elif path.is_file() and (contents is None or file_contents(path) == contents):
        path.unlink()


def move_all(paths: Iterable[Path], folder: Path) -> None:
    """Move files into a folder, except those whose names are taken there."""
    for path in paths:
        if path_exists(path) and not path_exists(folder / path.name):
            path.rename(folder / path.name)


def path_exists(path: Path) -> bool:
    """Whether there is anything at a path, be it a link to nothing."""
    return path.is_symlink() or path.exists()


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a path is another one, or lies in it, by its name or by where links lead."""
    return any(
        outer == inner or outer in inner.parents
        for inner in (path.absolute(), path.resolve())
        for outer in (folder.absolute(), folder.resolve())
    )
