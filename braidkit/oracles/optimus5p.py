"""Optimus 5-Prime: a published network that predicts ribosome load from 50 nucleotides, as an oracle."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from braidkit.exceptions import CheckpointError
from braidkit.oracles._base import Oracle
from braidkit.parameters import check_choice
from braidkit.persistence import read_path
from braidkit.spaces import SequenceSpace

OUTPUTS = ("HEK293T", "T cells", "HepG2")
LENGTH = 50
WIDTH, N_CHANNELS, N_HIDDEN = 8, 120, 40
# Kernels are stored as (positions, channels in, channels out), dense weights as (in, out).
SHAPES: dict[str, tuple[int, ...]] = {
    "conv_1": (WIDTH, 4, N_CHANNELS),
    "conv_2": (WIDTH, N_CHANNELS, N_CHANNELS),
    "conv_3": (WIDTH, N_CHANNELS, N_CHANNELS),
    "dense_1": (LENGTH * N_CHANNELS, N_HIDDEN),
    "dense_2": (N_HIDDEN, len(OUTPUTS)),
}
_BATCH = 1024


class Optimus5Prime(Oracle):
    """Mean ribosome load predicted by Optimus 5-Prime, the version with three cell types.

    Three convolutions of width 8 and 120 channels with ReLU, a dense layer of 40 with ReLU, and one output for each
    cell type. The network was trained on the polysome-profiling libraries themselves: use it to judge designs, never
    to guide them. It was trained on most of the random 5'UTRs that `fetch_utr` gives. On those measured rows it is no
    held-out judge, and this is not checked.

    Parameters
    ----------
    weights : mapping of str to ndarray
        ``conv_1_kernel`` (8, 4, 120), ``conv_1_bias`` (120,), ... ``dense_2_kernel`` (40, 3), ``dense_2_bias`` (3,);
        letters in the order A, C, G, T.
    output : {"HEK293T", "T cells", "HepG2"}, default="HEK293T"
        Cell type that `predict` gives.

    Attributes
    ----------
    space : SequenceSpace
        DNA, 50 nucleotides, T for U, 5' to 3'.

    References
    ----------
    Sample et al. (2019), Nat. Biotechnol. 37:803 (network and assay); Castillo-Hair et al. (2024), Nat. Commun.
    15, doi:10.1038/s41467-024-49508-2 (three cell types).
    """

    def __init__(self, weights: Mapping[str, NDArray[np.float32]], output: str = "HEK293T") -> None:
        check_choice("output", output, OUTPUTS)
        self.output = output
        self.space = SequenceSpace("DNA", LENGTH)
        self._network = _build_network(weights)

    @classmethod
    def from_npz(cls, path: str | os.PathLike[str], output: str = "HEK293T") -> Optimus5Prime:
        """Read the weights from an ``.npz`` file of arrays.

        Raises
        ------
        CheckpointError
            If the file is missing, is no ``.npz`` file of arrays, or holds others than the arrays named above.
        """
        path = read_path("path", path)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                weights = {name: arrays[name] for name in arrays.files}
        except (OSError, TypeError, ValueError, zipfile.BadZipFile) as error:  # TypeError: the file is one array
            raise CheckpointError(
                f"{os.fspath(path)} cannot be read as an .npz file of arrays ({error}); pass the file of the "
                "Optimus 5-Prime weights."
            ) from error
        try:
            return cls(weights, output)
        except CheckpointError as error:
            raise CheckpointError(f"{os.fspath(path)}: {error}") from error

    @torch.inference_mode()
    def predict(self, X: Any) -> NDArray[np.float32]:
        """Predict the mean ribosome load.

        Parameters
        ----------
        X : list of str, or any other kind that `space` encodes
            Sequences of 50 DNA letters.

        Returns
        -------
        load : ndarray of shape (n_samples,), float32
            Ribosomes per transcript in the cell type `output`.

        Raises
        ------
        InvalidDesignError
            Naming the first row of another length or with another letter.
        """
        x = self.space.encode(X).transpose(1, 2)  # (n, letters, positions)
        loads = torch.cat([self._network(batch) for batch in x.split(_BATCH)])
        return loads[:, OUTPUTS.index(self.output)].numpy()


def _build_network(weights: Mapping[str, NDArray[np.float32]]) -> nn.Sequential:
    """The network with the stored weights: (n, 4, 50) to (n, 3)."""
    stored = {layer: _read_layer(weights, layer, shape) for layer, shape in SHAPES.items()}
    layers: list[nn.Module] = []
    for name in ("conv_1", "conv_2", "conv_3"):
        kernel, bias = stored[name]
        # "Same" padding of an even width puts the odd zero on the right.
        layers.append(nn.ConstantPad1d(((WIDTH - 1) // 2, WIDTH // 2), 0.0))
        layers.append(_with_weights(nn.Conv1d(kernel.shape[1], kernel.shape[2], WIDTH), kernel.permute(2, 1, 0), bias))
        layers.append(nn.ReLU())
    # The dense layer's inputs are stored position by position; after nn.Flatten they come channel by channel.
    kernel, bias = stored["dense_1"]
    by_channel = kernel.reshape(LENGTH, N_CHANNELS, N_HIDDEN).transpose(0, 1).reshape(-1, N_HIDDEN)
    layers += [nn.Flatten(), _with_weights(nn.Linear(*kernel.shape), by_channel.T, bias), nn.ReLU()]
    kernel, bias = stored["dense_2"]
    layers.append(_with_weights(nn.Linear(*kernel.shape), kernel.T, bias))
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _with_weights(layer: nn.Conv1d | nn.Linear, weight: Tensor, bias: Tensor) -> nn.Module:
    """The layer with its weights replaced; nothing is drawn."""
    layer.weight = nn.Parameter(weight.contiguous())
    layer.bias = nn.Parameter(bias)
    return layer


def _read_layer(
    weights: Mapping[str, NDArray[np.float32]], layer: str, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a layer, checked."""
    if not isinstance(weights, Mapping):
        raise CheckpointError(f"the weights of Optimus 5-Prime must be arrays by name; got {weights!r:.60}.")
    for part, expected in (("kernel", shape), ("bias", shape[-1:])):
        name = f"{layer}_{part}"
        found = weights[name].shape if name in weights else None
        if found != expected:
            what = "is missing" if found is None else f"has shape {found}"
            raise CheckpointError(
                f"the weights of Optimus 5-Prime need an array {name} of shape {expected}, but it {what}; pass the "
                "file of the version with three outputs."
            )
    kernel, bias = (torch.tensor(weights[f"{layer}_{part}"], dtype=torch.float32) for part in ("kernel", "bias"))
    return kernel, bias
