"""The directory that a run resumes from: its data and settings, and its finished stages."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from braidkit.exceptions import CheckpointError
from braidkit.persistence import (
    digest,
    is_saved,
    locked,
    make_folder,
    read_json,
    read_path,
    remove_saved,
    saved_digest,
    temporaries,
    write_json,
)
from braidkit.spaces import Space

SETTINGS, CHAIN, TUNING = "settings.json", "pretrained", "fine-tuning"
# Parameters that may differ when a run resumes; the pretrained model's weights may not.
FREE = {"pretrained", "checkpoint_dir", "max_iter", "device", "verbose"}
# Increase this number when the contents of a checkpoint change. Checkpoints of another form are refused.
FORM = "7"


def run_settings(estimator: Any, data: str) -> dict[str, str]:
    """Settings that must not change when a run resumes: parameters, digest of the data, pretrained weights.

    Estimators, networks and other objects are compared by their contents.
    """
    parameters = estimator.get_params(deep=False)
    settings = {name: _described(value) for name, value in parameters.items() if name not in FREE}
    settings |= {"estimator": type(estimator).__name__, "data": data, "form": FORM}
    if estimator.pretrained is not None:
        settings["pretrained"] = _described(estimator.pretrained)
    return settings


def _described(value: Any) -> str:
    """A plain value as it is; for anything else its class and digest."""
    if value is None or isinstance(value, (bool, int, float, str, np.generic, Space)):
        return repr(value)
    kind = type(value).__name__
    if hasattr(value, "open_run") and not hasattr(value, "digest_parts"):  # a selection, which changes as it is asked
        return f"{kind} of {value.n_rounds} rounds of {value.n_designs}"
    return f"{kind} {digest(value)}"


def open_checkpoint(estimator: Any, data: str, held: contextlib.ExitStack) -> Path | None:
    """Claim the estimator's `checkpoint_dir` for a run on data of this digest; None if it has no `checkpoint_dir`.

    An unfinished run in the directory must have the same data and settings. No other process can use the directory
    until `held` is closed.

    Raises
    ------
    CheckpointError
        If another process uses the directory; if it holds a run with other data or settings (the message names them) or
        of another version; or if its files belong to no run.
    """
    if estimator.checkpoint_dir is None:
        return None
    directory, settings = read_path("checkpoint_dir", estimator.checkpoint_dir), run_settings(estimator, data)
    make_folder(directory)
    held.enter_context(locked(directory))
    path = directory / SETTINGS
    if not path.exists():
        others = [name for name in (CHAIN, TUNING) if (directory / name).exists()]
        if others:
            raise CheckpointError(
                f"{directory / others[0]} is there, but no {SETTINGS} that says which run wrote it; choose another "
                "checkpoint_dir, or remove it to start afresh."
            )
        write_json(path, {"settings": dict(settings), "chain": None})
        return directory
    before = _read(directory)["settings"]
    if before.get("form") != settings["form"]:
        raise CheckpointError(f"{directory} was written by another version of braidkit; remove it to start afresh.")
    differ = sorted(name for name in before.keys() | settings.keys() if before.get(name) != settings.get(name))
    if differ:
        changes = "; ".join(f"{name} was {before.get(name)}, now {settings.get(name)}" for name in differ)
        raise CheckpointError(
            f"{directory} holds a run with other data or settings ({changes}); choose another checkpoint_dir, or "
            "remove this one to start afresh."
        )
    return directory


def record_chain(directory: Path) -> None:
    """Record that the run itself trained the chain in its directory."""
    write_json(directory / SETTINGS, _read(directory) | {"chain": saved_digest(directory / CHAIN)})


def has_chain(directory: Path) -> bool:
    """Whether the directory holds the chain that the run itself trained."""
    known = _read(directory)["chain"]
    return known is not None and known == saved_digest(directory / CHAIN)


def _read(directory: Path) -> dict[str, Any]:
    """The settings of the run in a directory, and the digest of its chain."""
    try:
        content = read_json(directory / SETTINGS)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} Choose another checkpoint_dir, or remove {directory} to start afresh."
        ) from error
    if not isinstance(content.get("settings"), dict) or "chain" not in content:
        raise CheckpointError(f"{directory} was written by another version of braidkit; remove it to start afresh.")
    return content


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
