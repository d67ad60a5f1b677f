"""Feature networks, and their training with a linear head.

A feature network maps points (n, *space.shape) to features (n, d). The default ones are sized by the space and by the
number of measurements; any `torch.nn.Module` of that signature takes their place.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from braidkit.exceptions import IncompatibleModelError
from braidkit.networks import SequenceFeatures, VectorFeatures, shrunk
from braidkit.spaces import Points, Space
from braidkit.torch_state import seeded
from braidkit.training import fit_supervised

# The held-out loss only picks the best weights: more rows would slow training and change no choice.
MAX_VALIDATION_ROWS = 2000
PREDICT_BATCH = 1024
# Below this, networks for sequences are built and trained otherwise.
FEW_ROWS = 2500


def default_features(space: Space, n_rows: int) -> nn.Module:
    """Feature network for a space, about sqrt(n_rows) wide within limits."""
    width = 2 ** round(math.log2(math.sqrt(n_rows)))
    if space.default_features == "sequence":
        return SequenceFeatures(
            *space.visible_shape,
            n_channels=min(max(width, 8), 32),
            n_features=min(max(width, 16), 40),
            pooled=n_rows < FEW_ROWS,
        )
    n_inputs = shrunk(torch.zeros(1, *space.shape)).numel()
    return VectorFeatures(n_inputs, min(max(width, 16), 128))


def mean_norm(f: Tensor) -> float:
    """Root of the mean square norm of features (n, d), or 1 where they vanish: what they are divided by."""
    norm = float(f.square().sum(dim=1).mean().sqrt())
    return norm if norm > 0 else 1.0


def auto_max_iter(n_rows: int) -> int:
    """Optimiser updates for a number of rows: about five passes over many rows, more over few."""
    few = min(n_rows // 2, 650) if n_rows < FEW_ROWS else 0
    return min(max(300 + n_rows // 25, few), 10_000)


def auto_batch_size(n_rows: int) -> int:
    """Rows an update: 128, or about the root of their number where they are few."""
    return max(2 ** math.ceil(math.log2(n_rows) / 2), 16) if n_rows < FEW_ROWS else 128


def auto_learning_rate(n_rows: int) -> float:
    """Learning rate for a number of rows; with few, training at a low one ends before anything is learnt."""
    return 2e-3 * min(5000 / n_rows, 4.0) if n_rows < FEW_ROWS else 2e-3


class RegressionNetwork(nn.Module):
    """A feature network and its linear head.

    Parameters
    ----------
    features : nn.Module
        Used as it is: pass a copy of a user's module.
    n_features : int
        Width of its output.
    dtype : torch.dtype
        Of its output.
    """

    def __init__(self, features: nn.Module, n_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(n_features, 1, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))[:, 0]


class WithoutPadding(nn.Module):
    """Features of points (n, length, n_letters + 1) whose last letter is padding, by the other letters alone."""

    def __init__(self, features: nn.Module, n_letters: int) -> None:
        super().__init__()
        self.features = features
        self.n_letters = n_letters

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x[..., : self.n_letters])


def make_networks(
    features: nn.Module | None, space: Space, n_rows: int, x: Tensor, *, seed: int, n_networks: int = 1
) -> nn.ModuleList:
    """Build regression networks on copies of `features`, or on default ones, without touching the global seed.

    Parameters
    ----------
    features : nn.Module or None
        They see points without the letter that stands for padding, if there is one: zeros are left of it.
    space : Space
    n_rows : int
        Measurements to learn from; sizes the default networks.
    x : Tensor of shape (n, \\*space.shape)
        A few points, to find the width of the features.
    seed : int
    n_networks : int

    Raises
    ------
    IncompatibleModelError
        If `features` is not a module from points to finite features of shape (n, d).
    """
    if features is not None and not isinstance(features, nn.Module):
        raise IncompatibleModelError(
            f"features must be a torch.nn.Module from points (n, {', '.join(map(str, space.shape))}) to (n, d), or "
            f"None; got {type(features).__name__}."
        )
    networks = nn.ModuleList()
    with seeded(seed):
        for _ in range(n_networks):
            module = default_features(space, n_rows) if features is None else copy.deepcopy(features)
            if space.visible_shape != space.shape:
                module = WithoutPadding(module, space.visible_shape[-1])
            networks.append(RegressionNetwork(module, *_width_and_dtype(module, x)))
    return networks


def _width_and_dtype(features: nn.Module, x: Tensor) -> tuple[int, torch.dtype]:
    """Width d and type of the features of some points, checked."""
    parameter = next(features.parameters(), x)
    features.eval()
    try:
        with torch.no_grad():
            phi = features(x.to(parameter.device))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise IncompatibleModelError(
            f"features cannot be applied to points of shape {tuple(x.shape)}: {error}; pass a module that takes "
            "points of the design space, one a row."
        ) from error
    if not isinstance(phi, Tensor) or phi.ndim != 2 or len(phi) != len(x) or not phi.is_floating_point():
        got = f"shape {tuple(phi.shape)} and type {phi.dtype}" if isinstance(phi, Tensor) else type(phi).__name__
        raise IncompatibleModelError(
            f"features must give a float tensor of shape (n, d); for {len(x)} points it gave {got}."
        )
    if not torch.isfinite(phi).all():
        raise IncompatibleModelError("features gives values that are not finite on rows of X; check its weights.")
    return phi.shape[1], phi.dtype


def squared_error(network: nn.Module, x: Points | Tensor, y: Tensor, rows: Tensor, weights: Tensor | None) -> Tensor:
    """Squared errors (n,) of a network on some rows, times their weights where there are any; on its device."""
    device = next(network.parameters()).device
    errors = (network(x[rows].to(device)).float() - y[rows].to(device)).square()
    return errors if weights is None else errors * weights[rows].to(errors)


def train_networks(
    networks: nn.ModuleList,
    x: Points,
    y: Tensor,
    rows: Sequence[Tensor],
    validation_rows: Tensor,
    *,
    weights: Tensor | None = None,
    max_iter: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    verbose: int = 0,
) -> tuple[int, list[float]]:
    """Fit each network to its own rows by least squares, all in one loop.

    Parameters
    ----------
    networks : ModuleList of RegressionNetwork
    x : Points of shape (n, \\*space.shape)
    y : Tensor of shape (n,), float32
        Standardised.
    rows : sequence of LongTensor, all of one length
        Row numbers that each network learns from; repeats count.
    validation_rows : LongTensor
        Rows that no network learns from; they pick the best weights, if there are any.
    weights : Tensor of shape (n,), optional
        Of the rows' squared errors, 1 on average.
    max_iter, batch_size, learning_rate, generator, verbose
        As in `braidkit.training.fit_supervised`.

    Returns
    -------
    n_iter : int
    validation_curve : list of float
        Mean squared error on `validation_rows`, in units of y's variance.
    """
    device = next(networks.parameters()).device
    validation_rows = validation_rows[:MAX_VALIDATION_ROWS]

    def loss(batch: Tensor) -> Tensor:
        errors = [
            squared_error(network, x, y, own[batch], weights) for network, own in zip(networks, rows, strict=True)
        ]
        return torch.stack(errors).mean()

    def validation_loss() -> float:
        total = sum(
            squared_error(network, x, y, part, weights).sum().item()
            for network in networks
            for part in validation_rows.split(PREDICT_BATCH)
        )
        return total / (len(networks) * len(validation_rows))

    # Dropout knows no generator: the global one is seeded from ours, and put back.
    with seeded(int(torch.randint(2**31, (), generator=generator)), device):
        return fit_supervised(
            networks,
            loss,
            len(rows[0]),
            max_iter=max_iter,
            batch_size=batch_size,
            learning_rate=learning_rate,
            generator=generator,
            validation_loss=validation_loss if len(validation_rows) else None,
            verbose=verbose,
            description="reward",
        )
