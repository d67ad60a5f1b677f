"""The directory of a run: whose it is, whether it is finished, and whether it may be resumed or replaced."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from braidkit.cli.run_files import CHECKPOINT, RECORD, RunFiles, lies_in, move_all
from braidkit.exceptions import BraidkitError, CheckpointError
from braidkit.finetuning.checkpoint import FORM, holds_work
from braidkit.persistence import is_empty, locked, temporaries

# Where a run that is being replaced waits until the new one has finished.
ASIDE = ".braidkit-replaced-"


def why_not_resumed(record: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """Explain why the run cannot be resumed with these settings; None if it can."""
    if record.get("form") != FORM:
        return "another version of braidkit;"
    before = record["settings"]
    changes = [
        f"{name} was {before.get(name)}, now {settings.get(name)}"
        for name in dict.fromkeys([*settings, *before])
        if before.get(name) != settings.get(name)
    ]
    return f"other data or settings ({'; '.join(changes)}); give its settings to resume it," if changes else None


class RunDirectory:
    """A directory that belongs to one run of given settings and data, recorded in ``run.json``.

    The record names every file that the run writes, and its contents once it is written. Nothing else in the directory
    is ever written to, moved or removed. A run that is replaced is moved into a hidden folder first, comes back if the
    new one is refused, and is removed when the new one has finished.

    Parameters
    ----------
    path : Path
    outputs : sequence of str
        Names of the files and folders that the run may write.
    can_overwrite : bool, default=True
        Whether the command has the option --overwrite, which refusals then name.
    """

    def __init__(self, path: Path, outputs: tuple[str, ...] = (), *, can_overwrite: bool = True) -> None:
        self.path = path
        self.outputs = outputs
        self.can_overwrite = can_overwrite
        self.files = RunFiles(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def record(self) -> dict[str, Any]:
        return self.files.record

    def read(self) -> dict[str, Any]:
        """The record of the run that is there, or nothing."""
        return RunFiles.of(self.path).record

    def check_input(self, path: Path) -> None:
        """Raise CheckpointError if a file or folder that a run is to use is one that it would write or replace."""
        for name in {*self.outputs, *self.read().get("files", {}), CHECKPOINT, RECORD}:
            if lies_in(path, self.path / name):
                raise CheckpointError(
                    f"{path} is part of the run in {self.path}, which this one would replace; copy it to another "
                    "place first, or choose another directory for the new run."
                )
        for aside in self._asides():
            if lies_in(path, aside):
                raise CheckpointError(f"{path} is part of a run that is being replaced; copy it elsewhere first.")

    @contextmanager
    def claimed(self, settings: Mapping[str, Any], *, overwrite: bool = False) -> Iterator[bool]:
        """Claim the directory for a run while the block works on it.

        If the block refuses its input before any work was kept, or a run was to be replaced, all is as it was before.

        Parameters
        ----------
        settings : mapping
            All that determines the result, as JSON holds it.
        overwrite : bool, default=False
            Replace a finished run, or an unfinished one of other settings.

        Yields
        ------
        resumed : bool
            Whether an unfinished run of the same settings is there to go on from.

        Raises
        ------
        CheckpointError
            If the directory holds a finished run, an unfinished run of other settings (naming them) or of another
            version, files that no run has written, or a run at work in another process.
        """
        if self.path.is_symlink() and not self.path.exists():
            raise CheckpointError(f"{self.path} is a link to nothing; choose a directory.")
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"{self.path} is a file; choose a directory.")
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(self.path):
                resumed = self._open(settings, overwrite)
                try:
                    yield resumed
                except BraidkitError:
                    if not resumed and (self.record["replaces"] or not holds_work(self / CHECKPOINT)):
                        self._give_back()
                    raise
        finally:
            for folder in made:
                if is_empty(folder):
                    folder.rmdir()

    @contextmanager
    def writing(self, name: str, members: Sequence[str] = ()) -> Iterator[Path]:
        """Give the path of an output for the block to write, and keep what it wrote in the record.

        Of a folder, `members` are the names of the files that it is to have.
        """
        self.files.begin(name, members)
        yield self / name
        self.files.done(name)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to the record; over all attempts, where a run is resumed."""
        start = monotonic()
        try:
            yield
        finally:
            seconds = self.record["seconds"]
            seconds[stage] = round(seconds.get(stage, 0) + monotonic() - start, 1)
            self.files.save()

    def pause(self, **results: Any) -> None:
        """Record the results of a run that is to go on later."""
        self.record.update(results)
        self.files.save()

    def finish(self, **results: Any) -> None:
        """Mark the run as finished, record its results, and only then remove its checkpoint and the run before it."""
        self.record.update(results, finished=True)
        self.files.save()
        self._clean_up()

    def _open(self, settings: Mapping[str, Any], overwrite: bool) -> bool:
        """Resume the run in the directory, refuse it, or move it aside and begin a new record; True if resumed."""
        self._recover()
        self.files = RunFiles.of(self.path)
        before = dict(self.record)
        if not before and not is_empty(self.path):
            raise CheckpointError(f"{self.path} has files of its own and no run in it; choose a new directory.")
        why = why_not_resumed(before, settings) if before else None
        if before and not overwrite:
            remedy = "choose another directory"
            if before["finished"]:
                remedy += ", or pass --overwrite to replace it" * self.can_overwrite
                raise CheckpointError(f"{self.path} holds a finished run; {remedy}.")
            if why is not None:
                remedy += ", or pass --overwrite to start afresh" * self.can_overwrite
                raise CheckpointError(f"{self.path} holds an unfinished run of {why} {remedy}.")
        self.files.check_outputs(self.outputs)
        if before and not before["finished"] and why is None:
            return True
        aside = self._move_aside() if before else None
        self.files = RunFiles(
            self.path,
            {
                "finished": False,
                "form": FORM,
                "settings": dict(settings),
                "seconds": {},
                "files": {},
                "replaces": None if aside is None else aside.name,
            },
        )
        self.files.save()
        return False

    def _move_aside(self) -> Path:
        """Move the run that is there into a folder of its own; the record goes last."""
        # As long as the record is in its old place, a killed move can be undone by `_recover`.
        aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=self.path))
        names = [*self.files.names(), RECORD]
        move_all([self / name for name in names], aside)
        return aside

    def _give_back(self) -> None:
        """Remove the new run, and put the one that it was to replace back in its place."""
        before, self.record["replaces"] = self.record["replaces"], None
        self.files.remove()
        if before is not None:
            self._bring_back(self / before)

    def _bring_back(self, aside: Path) -> None:
        """Move all files from a folder aside back to their places, except where another file is there."""
        move_all(sorted(aside.iterdir()), self.path)
        with contextlib.suppress(OSError):  # something is in the way: it stays where it is
            aside.rmdir()

    def _clean_up(self) -> None:
        """Remove the checkpoint of a finished run, and the run that it replaced."""
        self.files.remove_checkpoint()
        if self.record["replaces"] is not None:
            aside = self / self.record["replaces"]
            if aside.is_dir():
                RunFiles.of(aside).remove()
                self._bring_back(aside)
            self.record["replaces"] = None
            self.files.save()

    def _recover(self) -> None:
        """Undo or finish the steps that a killed process had begun."""
        for path in temporaries(self.path):
            path.unlink()
        self.files = RunFiles.of(self.path)
        for name, contents in self.record.get("files", {}).items():
            if isinstance(contents, dict) and (self / name).is_dir() and not (self / name).is_symlink():
                for path in temporaries(self / name):
                    path.unlink()
        for aside in self._asides():
            # No record names this folder: the process was killed while it moved a run aside, or after it gave one back.
            if aside.name != self.record.get("replaces"):
                self._bring_back(aside)
        self.files = RunFiles.of(self.path)
        if self.record.get("finished"):
            self._clean_up()

    def _asides(self) -> list[Path]:
        return [path for path in self.path.glob(f"{ASIDE}*") if path.is_dir() and not path.is_symlink()]
