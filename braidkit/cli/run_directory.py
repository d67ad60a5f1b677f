"""The directory of a run: whose it is, whether it is finished, and whether it may be resumed or replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from braidkit.evaluation.html_report import versions
from braidkit.exceptions import BraidkitError, CheckpointError
from braidkit.finetuning.checkpoint import FORM
from braidkit.persistence import replace_file

RECORD = "run.json"
# All that a run writes, and all that is removed when one is started afresh.
OUTPUTS = (
    RECORD,
    "measured.csv",
    "checkpoint",
    "pretrained",
    "model",
    "designs.csv",
    "designs.fasta",
    "rewards.png",
    "training.png",
    "report.html",
    "true_rewards.png",
)


def why_not_resumed(record: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """Of what else an unfinished run is, in words, that these settings cannot go on from; nothing if they can."""
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

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def read(self) -> dict[str, Any]:
        """The record of the run that is there, or nothing."""
        try:
            record: dict[str, Any] = json.loads((self.path / RECORD).read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.path / RECORD} cannot be read ({error}); choose another directory, or remove this one."
            ) from error
        return record

    def open(self, settings: Mapping[str, Any], *, overwrite: bool = False) -> bool:
        """Claim the directory for a run.

        Parameters
        ----------
        settings : mapping
            All that determines the result, as JSON holds it.
        overwrite : bool, default=False
            Remove what an earlier run left; files of other names stay.

        Returns
        -------
        resumed : bool
            Whether an unfinished run of the same settings is there to go on from.

        Raises
        ------
        CheckpointError
            If the directory holds a finished run, an unfinished run of other settings (naming them) or of another
            version, or files that no run has written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"{self.path} is a file; choose a directory.")
        before = self.read()
        if not before and self.path.is_dir() and any(self.path.iterdir()):
            raise CheckpointError(f"{self.path} has files of its own and no run in it; choose a new directory.")
        if overwrite:
            self._clear()
        elif before.get("finished"):
            raise CheckpointError(
                f"{self.path} holds a finished run; choose another directory, or pass --overwrite to replace it."
            )
        elif before:
            if why := why_not_resumed(before, settings):
                raise CheckpointError(
                    f"{self.path} holds an unfinished run of {why} choose another directory, or pass --overwrite to "
                    "start afresh."
                )
            self.record = before
            return True
        self.record = {
            "finished": False,
            "form": FORM,
            "settings": dict(settings),
            "versions": versions(),
            "seconds": {},
        }
        self._write()
        return False

    @contextmanager
    def released_if_refused(self) -> Iterator[None]:
        """Give the directory up again if the block refuses its input before any work was kept."""
        try:
            yield
        except BraidkitError:
            if not (self.path / "checkpoint").exists():
                self._clear()
                if not any(self.path.iterdir()):
                    self.path.rmdir()
            raise

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to the record; over all attempts, where a run is resumed."""
        start = monotonic()
        try:
            yield
        finally:
            seconds = self.record["seconds"]
            seconds[stage] = round(seconds.get(stage, 0) + monotonic() - start, 1)
            self._write()

    def finish(self, **results: Any) -> None:
        """Mark the run as finished, and record its results."""
        shutil.rmtree(self.path / "checkpoint", ignore_errors=True)
        self.record |= results | {"finished": True}
        self._write()

    def _write(self) -> None:
        with replace_file(self.path / RECORD) as path:
            path.write_text(json.dumps(self.record, indent=2) + "\n")

    def _clear(self) -> None:
        """Remove what a run writes, the record last, so that an interrupted removal can be repeated."""
        for name in reversed(OUTPUTS):
            output = self.path / name
            if output.is_dir():
                shutil.rmtree(output)
            else:
                output.unlink(missing_ok=True)
