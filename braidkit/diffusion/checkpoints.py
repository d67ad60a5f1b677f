"""Read score networks that the authors of DDSM and BRAID published."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from braidkit import persistence
from braidkit.diffusion.simplex import SimplexDiffusion
from braidkit.exceptions import CheckpointError, InvalidParameterError
from braidkit.persistence import read_path
from braidkit.spaces import SequenceSpace

# Their weights over time stand at 0.01, 0.02, ...
_TIME_STEP = 0.01

# Their names, and ours.
_NAMES = {
    r"embed\.0\.W": "time.frequencies",
    r"embed\.1\.(weight|bias)": r"time.linear.\1",
    r"linear\.(weight|bias)": r"first.\1",
    r"blocks\.(\d+)\.(weight|bias)": r"blocks.\1.conv.\2",
    r"norms\.(\d+)\.(weight|bias)": r"blocks.\1.norm.\2",
    r"denses\.(\d+)\.dense\.(weight|bias)": r"blocks.\1.shift.\2",
    r"final\.([02])\.(weight|bias)": r"last.\1.\2",
}


def load_ddsm_checkpoint(path: str | os.PathLike[str], *, space: SequenceSpace, n_steps: int = 50) -> SimplexDiffusion:
    """Load a published DDSM or BRAID score network as a `SimplexDiffusion`, frozen.

    Unconditional networks and networks with classes can be read. Of the latter only the null class is used: its
    embedding is a constant in each block, and is added to the block's bias.

    The published networks were trained on points ``x_t | letter, m ~ Dirichlet(1 + m e_letter)`` with m lineages at tau
    = 2 t / K for every letter. Their sampler, and ours, reverses the sticks instead. The two laws agree for the
    alphabet's first letter only. Rare letters therefore keep a bias, however well the network was trained.

    Parameters
    ----------
    path : path-like
        A checkpoint or a state dict saved by torch. It is read without running code from it.
    space : SequenceSpace
        Alphabet, in the order that the network was trained with, and length. The network itself has no length.
    n_steps : int, default=50
        Steps of the chain.

    Returns
    -------
    model : SimplexDiffusion
        With ``head="score"`` and ``network="paper"``; `sample` gives strings.

    Raises
    ------
    CheckpointError
        If the file cannot be read, or holds other names or shapes.
    InvalidParameterError
        If the alphabet has another number of letters than the network.
    """
    weights = _read(path)
    n_letters = weights["linear.weight"].shape[1] if "linear.weight" in weights else 0
    if n_letters and n_letters != space.n_letters:
        raise InvalidParameterError(
            f"the network in {path} has {n_letters} letters, but the space has {space.n_letters}; pass the space that "
            "the network was trained on."
        )
    scale = weights.pop("time_dependent_weights", None)
    if scale is None:
        raise CheckpointError(f"{path} has no time_dependent_weights: it is no DDSM or BRAID score network.")
    # The network's output is multiplied by these weights, interpolated, and constant before the first.
    known = _TIME_STEP * np.arange(1, len(scale) + 1)
    curve = known.tolist(), scale.double().tolist()
    model = SimplexDiffusion(space, n_steps=n_steps, head="score", network="paper", score_scale=curve)
    model.network = model._build_network()
    persistence.load_weights(model.network, _rename(_without_classes(weights)), str(path))
    model.kind = "strings"
    model.freeze()
    return model


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The score network's tensors by their published names."""
    path = read_path("path", path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not there; pass the path of a downloaded checkpoint.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, and is not loaded because that could run code; where you trust it, save "
            'its state dict alone: torch.save(torch.load(path, weights_only=False)["state_dict"], new_path).'
        ) from error
    except Exception as error:  # whatever torch.load meets in a file that is none of its own
        raise CheckpointError(f"{path} cannot be read by torch.load ({error}).") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no state dict: tensors by name are needed.")
    return {name.removeprefix("model."): value for name, value in state.items()}


def _without_classes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the null class, the last one, to the blocks' biases: A e + b + C class + c = A e + (b + C class + c)."""
    classes = weights.pop("embed_class.weight", None)
    if classes is None:
        return weights
    for name in [name for name in weights if re.fullmatch(r"cls_layers\.\d+\.dense\.weight", name)]:
        block = name.split(".")[1]
        constant = weights.pop(name) @ classes[-1] + weights.pop(f"cls_layers.{block}.dense.bias")
        weights[f"denses.{block}.dense.bias"] = weights[f"denses.{block}.dense.bias"] + constant
    return weights


def _rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert names, units and layouts of published files to ours; unknown names stay, for the loader to refuse."""
    renamed = {}
    for name, value in weights.items():
        if name == "scale":  # never used
            continue
        if name == "embed.0.W":
            value = value / 2  # they embed t / 2
        if name in ("final.0.weight", "final.2.weight"):
            value = value.squeeze(-1)  # convolutions of width 1
        pattern = next((pattern for pattern in _NAMES if re.fullmatch(pattern, name)), None)
        renamed[name if pattern is None else re.sub(pattern, _NAMES[pattern], name)] = value
    return renamed
