"""The directory that a run resumes from: which data and settings it belongs to, and its finished stages."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braidkit.exceptions import CheckpointError
from braidkit.persistence import fingerprint, is_saved, remove_saved, replace_file, temporaries

SETTINGS, CHAIN, TUNING = "settings.json", "pretrained", "fine-tuning"
# Parameters that may differ when a run resumes; the pretrained model's weights may not.
FREE = {"pretrained", "checkpoint_dir", "max_iter", "device", "verbose"}
# Raise it whenever what a checkpoint holds changes: one of another form is refused.
FORM = "4"


def run_settings(estimator: Any, data: str) -> dict[str, str]:
    """What must be as before when a run resumes: parameters, the data's fingerprint, the pretrained weights."""
    settings = {name: repr(value) for name, value in estimator.get_params(deep=False).items() if name not in FREE}
    settings |= {"estimator": type(estimator).__name__, "data": data, "form": FORM}
    if estimator.pretrained is not None:
        settings["pretrained"] = fingerprint(estimator.pretrained)
    return settings


def open_checkpoint(directory: Path, settings: Mapping[str, Any]) -> None:
    """Claim a directory for a run, or check that the run it holds had the same data and settings.

    Raises
    ------
    CheckpointError
        If it belongs to another run, naming what differs, or to another version.
    """
    path = directory / SETTINGS
    if not path.exists():
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n")
        return
    before = json.loads(path.read_text())
    if before.get("form") != settings["form"]:
        raise CheckpointError(f"{directory} was written by another version of braidkit; remove it to start afresh.")
    differ = sorted(name for name in before.keys() | settings.keys() if before.get(name) != settings.get(name))
    if differ:
        changes = "; ".join(f"{name} was {before.get(name)}, now {settings.get(name)}" for name in differ)
        raise CheckpointError(
            f"{directory} holds a run with other data or settings ({changes}); choose another checkpoint_dir, or "
            "remove this one to start afresh."
        )


def holds_work(directory: Path) -> bool:
    """Whether a run has kept a trained chain or updates in its directory."""
    return is_saved(directory / CHAIN) or is_saved(directory / TUNING)


def remove_checkpoint(directory: Path) -> None:
    """Remove what a run wrote to its directory, and the directory unless something else is in it."""
    if directory.is_symlink() or not directory.is_dir():
        return
    for name in (CHAIN, TUNING):
        with contextlib.suppress(CheckpointError):  # it holds something else as well
            remove_saved(directory / name)
    for path in (directory / f"{TUNING}-rounds.json", directory / SETTINGS, *temporaries(directory)):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()
