"""Directories of ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from braidkit.exceptions import CheckpointError
from braidkit.persistence._files import flush, is_regular, locked, make_folder, new_temporary, read_path, temporaries
from braidkit.persistence._json import DIGEST, MARK

TENSORS, CONFIG = "model.safetensors", "config.json"
# The key of a configuration that names the other files of a save.
BESIDE = "beside"
# A save takes its directory for itself, and others wait for it so many seconds.
_WAIT = 600.0
# How often a reader that meets a save looks again, and after how many seconds.
_LOOKS, _PAUSE = 3, 0.05


def save(
    directory: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write a configuration and tensors to a directory, in place of an earlier save there.

    Whoever loads meanwhile, or after a save that was killed, gets the earlier save or this one.

    Parameters
    ----------
    directory : path-like
    config : mapping
        Anything that JSON holds, but for the key "digest".
    tensors : mapping of str to Tensor
    beside : mapping of str to bytes, optional
        Files for other programs to read, by name. They are part of the save, and `load` does not look at them.

    Raises
    ------
    CheckpointError
        If the directory holds anything else than an earlier save. Nothing has been changed then.
    """
    folder = read_path("directory", directory)
    _check_only_ours(folder)
    beside = beside or {}
    config = {**config, BESIDE: sorted(beside)} if beside else config
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    digest = _digest(config, held)
    text = json.dumps({**config, DIGEST: digest}, indent=2) + "\n"
    make_folder(folder)
    with locked(folder, wait=_WAIT):
        _check_only_ours(folder)
        # What a killed save left: only with the weights there may a new configuration already be the right one.
        left = temporaries(folder)
        if not _matches(folder / CONFIG, folder / TENSORS):
            for path in temporaries(folder, CONFIG):
                if _matches(path, folder / TENSORS):
                    path.replace(folder / CONFIG)
        new: list[Path] = []
        try:
            for name in (CONFIG, TENSORS):
                new.append(new_temporary(folder / name))
                if name == CONFIG:
                    new[-1].write_text(text, encoding="utf-8")
                else:
                    _write_tensors(held, new[-1], digest)
                flush(new[-1])
            flush(folder)
            # Between these two, the weights belong to the configuration under its temporary name: see `load`.
            for name in set(_beside(folder)) - set(beside):
                (folder / name).unlink(missing_ok=True)
            new[1].replace(folder / TENSORS)
            new[0].replace(folder / CONFIG)
            # The configuration names these, so that they are known to be ours.
            for name, content in beside.items():
                new.append(new_temporary(folder / name))
                new[-1].write_bytes(content)
                flush(new[-1])
                new[-1].replace(folder / name)
            flush(folder)
        finally:
            for path in [*left, *new]:
                path.unlink(missing_ok=True)


def _write_tensors(tensors: dict[str, Tensor], path: Path, digest: str) -> None:
    """Write a file of tensors in place of one that is there; a full disk is an OSError, as for other files."""
    mode = path.stat().st_mode
    try:
        safetensors.torch.save_file(tensors, path, metadata={DIGEST: digest})
        path.chmod(mode)  # safetensors replaces the file by one that only its owner may read
    except safetensors.SafetensorError as error:
        raise OSError(f"{path} cannot be written ({error})") from error


def load(directory: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save` wrote.

    Returns
    -------
    config : dict
    tensors : dict of str to Tensor, on the CPU

    Raises
    ------
    CheckpointError
        If the directory is not there, is not a save, cannot be read, or is damaged.
    """
    folder = read_path("directory", directory)
    for look in range(_LOOKS):
        _check_there(folder)
        try:
            config, tensors, digest = _read(folder, folder / CONFIG)
            if digest == _digest(config, tensors):
                return config, tensors
            for path in temporaries(folder, CONFIG):
                config, _, digest = _read(folder, path, tensors)
                if digest == _digest(config, tensors):
                    return config, tensors
        except FileNotFoundError as error:  # a name that another process has just given away
            if look == _LOOKS - 1:
                raise CheckpointError(f"{folder} cannot be read ({error}).") from error
        time.sleep(_PAUSE)
    raise CheckpointError(
        f"{folder} is damaged: {CONFIG} and {TENSORS} are not what was saved there; save the model again to another "
        "place, or remove this directory."
    )


def load_config(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the configuration of a save alone, unchecked against its tensors.

    Raises
    ------
    CheckpointError
        If the directory is not there, is not a save, or cannot be read.
    """
    folder = read_path("directory", directory)
    _check_there(folder)
    try:
        return _read_config(folder, folder / CONFIG)[0]
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} cannot be read ({error}).") from error


def is_saved(directory: Path) -> bool:
    """Whether there is a save in a directory."""
    return (directory / CONFIG).is_file()


def saved_digest(directory: Path) -> str | None:
    """The digest that a save carries, unchecked; None where there is no save."""
    return _mark(directory / CONFIG)


def remove_saved(directory: Path) -> None:
    """Remove a save, if there is one; raise CheckpointError if the directory holds anything else."""
    if directory.is_symlink() or not directory.exists():
        return
    _check_only_ours(directory)
    others = [directory / name for name in _beside(directory)]
    for path in (*others, directory / CONFIG, directory / TENSORS, *temporaries(directory)):
        path.unlink(missing_ok=True)
    directory.rmdir()


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put tensors into a module; every name and shape must agree."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{source} does not hold the weights of this model: {error}") from error


def _check_there(folder: Path) -> None:
    """Raise unless a directory is there."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a directory; pass the directory that save_pretrained wrote.")


def _read(
    folder: Path, config_file: Path, tensors: dict[str, Tensor] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Configuration, tensors and digest, as they are on disk."""
    config, digest = _read_config(folder, config_file)
    if tensors is None:
        with _damage_named(folder):
            tensors = safetensors.torch.load_file(folder / TENSORS)
    return config, tensors, digest


def _read_config(folder: Path, config_file: Path) -> tuple[dict[str, Any], str]:
    """Configuration and digest, as they are on disk."""
    missing = [name for name in (CONFIG, TENSORS) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} has no {' and no '.join(missing)}; pass the directory that save_pretrained wrote."
        )
    with _damage_named(folder):
        config = json.loads(config_file.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or not str(config.get(DIGEST)).startswith(MARK):
        raise CheckpointError(
            f"{folder / CONFIG} is not a file that braidkit wrote; save the model by save_pretrained."
        )
    return config, config.pop(DIGEST)


@contextlib.contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Say of an error in reading a save where it is, and what may be wrong; files that are gone are the caller's."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError, RuntimeError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({error}); it is damaged or unreadable: save the model again, or check the "
            "permissions."
        ) from error


def _digest(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Digest of all that a save holds: names, kinds, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(config).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return MARK + digest.hexdigest()


def _check_only_ours(folder: Path) -> None:
    """Raise unless there is nothing at a path, or a directory with nothing in it but a save of ours."""
    if not folder.exists():
        if folder.is_symlink():
            raise CheckpointError(f"{folder} is a link to nothing; choose another place, or remove it first.")
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; pass a directory.")
    ours = set(temporaries(folder))
    ours |= {path for path in (folder / CONFIG, folder / TENSORS) if is_regular(path) and _mark(path) is not None}
    ours |= {folder / name for name in _beside(folder) if is_regular(folder / name)}
    others = sorted(path.name for path in folder.iterdir() if path not in ours)
    if others:
        raise CheckpointError(
            f"{folder} exists and holds no saved model of braidkit's alone ({others[0]} is another's, or damaged); "
            "nothing was changed: choose another place, or remove it first."
        )


def _beside(folder: Path) -> list[str]:
    """Names of the files for other programs, by the configuration of the save that is there."""
    if _mark(folder / CONFIG) is None:
        return []
    names = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get(BESIDE, [])
    return [name for name in names if Path(name).name == name]


def _mark(path: Path) -> str | None:
    """The digest that a file of ours carries, unchecked; None of other files."""
    try:
        if path.name.endswith(TENSORS):
            with safetensors.safe_open(path, "pt") as file:
                mark = (file.metadata() or {}).get(DIGEST)
        else:
            mark = json.loads(path.read_text(encoding="utf-8")).get(DIGEST)
    except (OSError, ValueError, AttributeError, RecursionError, safetensors.SafetensorError):
        return None
    return mark if isinstance(mark, str) and mark.startswith(MARK) else None


def _matches(config: Path, tensors: Path) -> bool:
    """Whether two files are of one save."""
    return _mark(config) is not None and _mark(config) == _mark(tensors)
