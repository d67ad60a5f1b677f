"""Designs of finished runs on disk, under a digest of all that determines them."""

from __future__ import annotations

import hashlib
import json
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from braidkit.persistence import fingerprint, replace_file

# Parameters of estimators that change no design.
FREE = frozenset({"verbose", "n_jobs", "device", "checkpoint_dir"})
Figures = dict[str, dict[str, float]]  # of a source, by metric


def digest(value: Any) -> str:
    """Short digest of parameters, data, estimators, models and functions, by what they hold.

    Equal things have one digest in every process. A function is its code, the data that it names, and what it encloses,
    without the code of functions that it calls. Where an object does not tell what it holds, its repr stands for it,
    which may make a run be done again, but does not take one run for another.
    """
    return hashlib.sha256(json.dumps(_plain(value, ())).encode()).hexdigest()[:16]


def _plain(value: Any, inside: tuple[int, ...]) -> Any:
    """The value as nested lists of strings; `inside` are the ids of the objects that hold it."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic, torch.dtype)):
        return repr(value)
    if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype != object):
        return [str(value.dtype), fingerprint(value)]
    if isinstance(value, (type, types.BuiltinFunctionType, types.ModuleType)):
        return [getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__)]
    if id(value) in inside:
        return "itself"
    held = (*inside, id(value))
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), held)
    if isinstance(value, Mapping):
        return [[_plain(key, held), _plain(item, held)] for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_plain(item, held)) for item in value)
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *(_plain(item, held) for item in value)]
    if isinstance(value, types.CodeType):
        return [value.co_code.hex(), list(value.co_names), _plain(value.co_consts, held)]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        named = [value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__]
        data = [item for item in named if not callable(item) and not isinstance(item, types.ModuleType)]
        parts = (value.__code__, value.__defaults__, value.__kwdefaults__, cells, data)
        return [value.__module__, value.__qualname__, _plain(parts, held)]
    if isinstance(value, BaseEstimator):
        state = {name: item for name, item in vars(value).items() if name not in FREE}
        return [type(value).__qualname__, _plain(state, held)]
    try:
        reduced = value.__reduce_ex__(2)
    except Exception:  # whatever an object raises that cannot be pickled
        return [type(value).__qualname__, repr(value)]
    return [type(value).__qualname__, _plain(reduced, held)]


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
        """Designs and figures of a run, if it is there."""
        record = self._path(name, seed, key, ".json")
        if record is None or not record.exists():
            return None
        content = json.loads(record.read_text())
        if "figures" not in content:  # a record of another version
            return None
        if content["kind"] == "strings":
            return pd.read_csv(record.with_suffix(".csv"), keep_default_na=False)["design"].tolist(), content["figures"]
        return np.load(record.with_suffix(".npy"), allow_pickle=False), content["figures"]

    def store(self, name: str, seed: int, key: str, designs: Any, figures: Figures, parameters: dict[str, str]) -> None:
        """Write a run; the record comes last, so that it stands for a whole run."""
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
            "figures": figures,
            "parameters": parameters,
        }
        with replace_file(record) as path:
            path.write_text(json.dumps(content, indent=2) + "\n")

    def _path(self, name: str, seed: int, key: str, suffix: str) -> Path | None:
        """Where a run's file is."""
        if self.directory is None:
            return None
        readable = re.sub(r"\W+", "-", name).strip("-").lower()
        return self.directory / f"{readable}-{seed}-{key}{suffix}"
