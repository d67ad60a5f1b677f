"""Designs of finished runs on disk, under a digest of all that determines them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braidkit.exceptions import CheckpointError
from braidkit.persistence import digest, read_json, replace_file, write_json

Figures = dict[str, dict[str, float]]  # of a source, by metric


class RunCache:
    """A directory with a record and the designs of each finished run, or nothing at all.

    Parameters
    ----------
    directory : path or None
        None keeps nothing.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory

    def load(self, name: str, seed: int, key: str) -> tuple[Any, Figures] | None:
        """Designs and figures of a run, if it is there; one that was cut or damaged is not."""
        record = self._path(name, seed, key, ".json")
        if record is None or not record.exists():
            return None
        try:
            content = read_json(record)
            if content["kind"] == "strings":
                table = pd.read_csv(record.with_suffix(".csv"), keep_default_na=False, dtype=str)
                designs: Any = table["design"].tolist()
            else:
                designs = np.load(record.with_suffix(".npy"), allow_pickle=False)
            return (designs, content["figures"]) if digest(designs) == content["designs"] else None
        except (CheckpointError, OSError, ValueError, KeyError, EOFError):
            return None

    def store(self, name: str, seed: int, key: str, designs: Any, figures: Figures, parameters: dict[str, str]) -> None:
        """Write a run. The record is written last, so that a run with a record is complete."""
        record = self._path(name, seed, key, ".json")
        if record is None:
            return
        strings = isinstance(designs, list)
        with replace_file(record.with_suffix(".csv" if strings else ".npy")) as path:
            if strings:
                pd.DataFrame({"design": designs}).to_csv(path, index=False)
            else:
                np.save(path, np.asarray(designs))
        content = {
            "method": name,
            "seed": seed,
            "kind": "strings" if strings else "array",
            "designs": digest(designs if strings else np.asarray(designs)),
            "figures": figures,
            "parameters": parameters,
        }
        write_json(record, content)

    def _path(self, name: str, seed: int, key: str, suffix: str) -> Path | None:
        """The path of a run's file."""
        if self.directory is None:
            return None
        readable = re.sub(r"\W+", "-", name).strip("-").lower()
        return self.directory / f"{readable}-{seed}-{key}{suffix}"
