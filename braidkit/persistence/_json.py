"""JSON files that carry a digest of themselves, and the contents of files of any kind."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braidkit.exceptions import CheckpointError
from braidkit.persistence._files import replace_file

# The key, and the beginning of its value, that only our JSON files have.
DIGEST, MARK = "digest", "braidkit:"


def seal(content: Mapping[str, Any]) -> str:
    """Digest of what JSON holds, as our files carry it."""
    return MARK + hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with a digest of itself, in place of an earlier file."""
    text = json.dumps({**content, DIGEST: seal(content)}, indent=2) + "\n"
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises
    ------
    CheckpointError
        If it is damaged, or another program's; `FileNotFoundError` if it is not there.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}).") from error
    if not isinstance(content, dict) or not str(content.get(DIGEST)).startswith(MARK):
        raise CheckpointError(f"{path} is not a file that braidkit wrote.")
    if content.pop(DIGEST) != seal(content):
        raise CheckpointError(f"{path} is damaged: its contents are not those that were written.")
    return content


def file_contents(path: Path) -> Any:
    """The contents of a file as a digest, of a folder as one for each name, of a link as where it leads; None: gone."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    if path.is_dir():
        return {inner.name: file_contents(inner) for inner in sorted(path.iterdir())}
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
