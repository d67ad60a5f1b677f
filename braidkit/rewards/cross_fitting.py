"""Networks trained on parts of the rows, so that each row has a prediction by a network that has not seen it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from braidkit.networks import LatentFeatures
from braidkit.rewards.features import (
    PREDICT_BATCH,
    auto_batch_size,
    auto_learning_rate,
    auto_max_iter,
    make_networks,
    squared_error,
)
from braidkit.spaces import Points, Space
from braidkit.torch_state import seeded
from braidkit.training import fit_supervised

# With fewer rows a network learns nothing, and a fold has too few rows.
MIN_ROWS = 60
# Networks, by the least number of rows. Designs find the errors of each network, and the mean of ten has fewer: at
# 2,000 rows it is clearly better than the mean of three or five. Of 500 rows networks learn so little that more of them
# change no design. Of many rows three networks take as long as there is time for.
N_NETWORKS = {0: 5, 1_000: 10, 5_000: 3}
# The held-out loss only picks the best weights: more rows change no choice, and of fewer chance would pick.
MIN_VALIDATION_ROWS, MAX_VALIDATION_ROWS = 5, 2000
# Networks on `LatentFeatures` are added from so many rows on: of 500 they changed no prediction. Each effect has few
# rows to be learnt from, so they take more updates than others, and shrink the effects.
LATENT_ROWS = 1_000
LATENT_RATE, LATENT_DECAY, LATENT_UPDATES = 6e-3, 0.1, 3


class CrossFittedNetworks(nn.Module):
    """An ensemble of networks of one or more kinds, those of each fold trained without the fold's rows.

    A layer trained on the same y as the evidence would make the evidence too large. So each network leaves out one
    fold. A tenth of the other rows chooses its best weights. A row's *held-out* predictions are by the networks that
    left it out.

    Parameters
    ----------
    networks : list of nn.ModuleList
        For each fold one network of each kind, from points (n, \\*space.shape) to predictions (n,).
    """

    def __init__(self, networks: Sequence[nn.ModuleList]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """The networks' predictions (n_folds, n, n_kinds), float64."""
        return torch.stack([_predictions(fold, x.float()) for fold in self.networks])


def _predictions(networks: Any, x: Tensor) -> Tensor:
    """Predictions (n, n_kinds), float64, of one fold's networks."""
    return torch.stack([network(x).double() for network in networks], dim=1)


class Kind(NamedTuple):
    """A kind of network, and how it is trained."""

    features: nn.Module | None  # None: the default of the space
    max_iter: int
    learning_rate: float
    weight_decay: float


class CrossFit(NamedTuple):
    """Result of `cross_fit`."""

    networks: CrossFittedNetworks
    held_out: Tensor  # (n, n_kinds), float64: predictions of each row by the networks that have not seen it
    n_iter: int  # updates of the network that took most
    validation_curve: list[float]  # averaged over the networks


def cross_fit(
    features: nn.Module | None,
    space: Space,
    x: Points | Tensor,
    y: Tensor,
    *,
    groups: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    validation_fraction: float = 0.1,
    max_iter: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    device: torch.device | str = "cpu",
    random_state: np.random.RandomState,
    verbose: int = 0,
) -> CrossFit:
    """Train the networks.

    Parameters
    ----------
    features : nn.Module or None
        Copied for each network. None for the default of the space; 1,000 sequences or more then have two kinds of
        networks, the other on `LatentFeatures`.
    space : Space
    x : Points or Tensor of shape (n, \\*space.shape)
    y : Tensor of shape (n,)
        Standardised.
    groups : ndarray of int of shape (n,), optional
        From 0; rows of one group are in one fold. By default each row is a group.
    weights : ndarray of shape (n,), optional
        Of the rows' squared errors, 1 on average.
    validation_fraction : float, default=0.1
        Share of the other folds that picks the best weights.
    max_iter, batch_size, learning_rate : optional
        Of each network; by default from the number of rows.
    device, random_state, verbose
    """
    folds = next(n for least, n in reversed(N_NETWORKS.items()) if len(x) >= least)
    n_rows = int((1 - validation_fraction) * len(x) * (1 - 1 / folds))
    batch_size = auto_batch_size(n_rows) if batch_size is None else batch_size
    groups = np.arange(len(x)) if groups is None else groups
    place = random_state.permutation(int(groups.max()) + 1)[groups]  # of the row's group, in a random order
    picks = (place // folds + 0.5) * validation_fraction % 1 < validation_fraction  # every tenth, say, of each fold
    seed = int(random_state.randint(2**31))
    with seeded(seed):
        latent = features is None and space.default_features == "sequence" and len(x) >= LATENT_ROWS
        kinds = _kinds(
            features, LatentFeatures(*space.visible_shape) if latent else None, n_rows, max_iter, learning_rate
        )
    of_kinds = [make_networks(kind.features, space, n_rows, x[:2], seed=seed, n_networks=folds) for kind in kinds]
    networks = [nn.ModuleList(of_fold).to(device) for of_fold in zip(*of_kinds, strict=True)]
    held_out = torch.zeros(len(x), len(kinds), dtype=torch.float64)
    of_errors = None if weights is None else torch.from_numpy(weights).float()
    n_iter, curves = 0, list[list[float]]()
    for fold, of_fold in enumerate(networks):
        others, own = place % folds != fold, torch.from_numpy(np.flatnonzero(place % folds == fold))
        training, validation = (torch.from_numpy(np.flatnonzero(others & part)) for part in (~picks, picks))
        for kind, network in zip(kinds, of_fold, strict=True):
            found = _fit(network, kind, x, y.float(), of_errors, training, validation, batch_size, seed + fold, verbose)
            n_iter, curves = max(n_iter, found[0]), [*curves, found[1]]
        with torch.no_grad():
            predictions = [_predictions(of_fold, x[part].to(device)).cpu() for part in own.split(PREDICT_BATCH)]
        held_out[own] = torch.cat(predictions)
    curve = [sum(values) / len(curves) for values in zip(*curves, strict=False)]
    ensemble = CrossFittedNetworks(networks).requires_grad_(False).eval()
    return CrossFit(ensemble, held_out, n_iter, curve)


def _kinds(
    features: nn.Module | None, latent: nn.Module | None, n_rows: int, max_iter: int | None, learning_rate: float | None
) -> list[Kind]:
    """The kinds of networks, trained as told or as suits the number of rows."""
    updates = auto_max_iter(n_rows)
    kinds = [Kind(features, max_iter or updates, learning_rate or auto_learning_rate(n_rows), 0.0)]
    if latent is not None:
        kinds.append(Kind(latent, max_iter or LATENT_UPDATES * updates, learning_rate or LATENT_RATE, LATENT_DECAY))
    return kinds


def _fit(
    network: nn.Module,
    kind: Kind,
    x: Points | Tensor,
    y: Tensor,
    weights: Tensor | None,
    training: Tensor,
    validation: Tensor,
    batch_size: int,
    seed: int,
    verbose: int,
) -> tuple[int, list[float]]:
    """Fit one network by least squares on some rows, keeping the best weights on others: updates, losses."""
    device = next(network.parameters()).device
    validation = validation[torch.randperm(len(validation), generator=torch.Generator().manual_seed(seed))]
    validation = validation[:MAX_VALIDATION_ROWS]

    def loss(batch: Tensor) -> Tensor:
        return squared_error(network, x, y, training[batch], weights).mean()

    def validation_loss() -> float:
        parts = validation.split(PREDICT_BATCH)
        errors = (squared_error(network, x, y, part, weights).sum() for part in parts)
        return float(sum(error.item() for error in errors)) / len(validation)

    # Dropout knows no generator: the global one is seeded from ours, and put back.
    with seeded(seed, device):
        return fit_supervised(
            network,
            loss,
            len(training),
            max_iter=kind.max_iter,
            batch_size=batch_size,
            learning_rate=kind.learning_rate,
            weight_decay=kind.weight_decay,
            generator=torch.Generator().manual_seed(seed),
            validation_loss=validation_loss if len(validation) >= MIN_VALIDATION_ROWS else None,
            verbose=verbose,
            description="reward",
        )
