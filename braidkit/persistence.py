"""Save and load: tensors as safetensors, everything else as JSON, never a pickle.

A directory holds ``model.safetensors`` and ``config.json``. It is written under a temporary name and then renamed, so
that an interrupted save leaves what was there before. `fingerprint` tells whether what is there belongs to given data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor, nn

from braidkit.exceptions import CheckpointError

TENSORS, CONFIG = "model.safetensors", "config.json"


def save(directory: str | os.PathLike[str], *, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a configuration and tensors to a directory, in place of an earlier save there.

    Parameters
    ----------
    directory : path-like
    config : mapping
        Anything that JSON holds.
    tensors : mapping of str to Tensor
    """

    def write(folder: Path) -> None:
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        unshared = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        safetensors.torch.save_file(unshared, folder / TENSORS)

    replace_directory(directory, write)


def replace_directory(directory: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then put it in the place of `directory`.

    An existing directory is replaced only when it holds an earlier save (or nothing).
    """
    target = Path(directory)
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or (target / CONFIG).exists())):
        raise CheckpointError(f"{target} exists and holds no saved model; choose another place, or remove it first.")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(temporary)
        temporary.chmod(0o755)
        if target.exists():
            previous = temporary.with_name(temporary.name + "-previous")
            target.rename(previous)
            temporary.rename(target)
            shutil.rmtree(previous)
        else:
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to, and rename it to `path` when the block ends without an error."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}-{os.getpid()}{target.suffix}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load(directory: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `save` wrote.

    Returns
    -------
    config : dict
    tensors : dict of str to Tensor, on the CPU

    Raises
    ------
    CheckpointError
        If the directory is not there, is not a save, or cannot be read.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a directory; pass the directory that save_pretrained wrote.")
    missing = [name for name in (CONFIG, TENSORS) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} has no {' and no '.join(missing)}; pass the directory that save_pretrained wrote."
        )
    try:
        config = json.loads((folder / CONFIG).read_text())
        tensors = safetensors.torch.load_file(folder / TENSORS)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{folder} cannot be read ({error}); it is damaged or unreadable: save the model again, or check the "
            "permissions."
        ) from error
    return config, tensors


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put tensors into a module; every name and shape must agree."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{source} does not hold the weights of this model: {error}") from error


def fingerprint(*parts: Tensor | np.ndarray | nn.Module | Sequence[str]) -> str:
    """Short digest of tensors, arrays, the weights of modules, and lists of strings.

    Examples
    --------
    >>> fingerprint(["ACGT", "TTTT"]) == fingerprint(np.array(["ACGT", "TTTT"]))
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        tensors = part.state_dict().values() if isinstance(part, nn.Module) else [part]
        for tensor in tensors:
            array = np.asarray(tensor.detach().cpu() if isinstance(tensor, Tensor) else tensor)
            digest.update(str(array.shape).encode())
            # Strings as JSON: their arrays hold pointers, or as many letters as the longest row has.
            text = array.dtype.kind in "OU"
            digest.update(json.dumps(array.tolist()).encode() if text else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
