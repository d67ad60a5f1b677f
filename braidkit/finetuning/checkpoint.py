"""The directory that a run resumes from: which data and settings it belongs to, and its finished stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braidkit.exceptions import CheckpointError
from braidkit.persistence import replace_file


def open_checkpoint(directory: Path, settings: Mapping[str, Any]) -> None:
    """Claim a directory for a run, or check that the run it holds had the same data and settings.

    Raises
    ------
    CheckpointError
        If it belongs to another run, naming what differs.
    """
    path = directory / "settings.json"
    if not path.exists():
        with replace_file(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n")
        return
    before = json.loads(path.read_text())
    differ = sorted(name for name in before.keys() | settings.keys() if before.get(name) != settings.get(name))
    if differ:
        changes = "; ".join(f"{name} was {before.get(name)}, now {settings.get(name)}" for name in differ)
        raise CheckpointError(
            f"{directory} holds a run with other data or settings ({changes}); choose another checkpoint_dir, or "
            "remove this one to start afresh."
        )
