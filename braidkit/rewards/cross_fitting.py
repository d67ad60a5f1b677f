"""Networks trained on parts of the rows, so that each row has a prediction by a network that has not seen it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braidkit.rewards.features import (
    PREDICT_BATCH,
    auto_batch_size,
    auto_learning_rate,
    auto_max_iter,
    make_networks,
)
from braidkit.spaces import Space
from braidkit.training import fit_supervised

# Fewer rows teach a network nothing, and leave too few in a fold.
MIN_ROWS = 60
# Five networks of few rows train in seconds; each of three networks sees as many rows as one needs.
FEW_FOLDS, MANY_FOLDS, MANY_ROWS = 5, 3, 10_000
MAX_VALIDATION_ROWS = 2000


class CrossFittedNetworks(nn.Module):
    """An ensemble, each network of which has left out one fold of the rows.

    A layer trained on the same y as the evidence would make it too good. So each network leaves out a fold, and a tenth
    of the other rows that pick its best weights; a row's *held-out* prediction is by the network that left it out.

    Parameters
    ----------
    networks : nn.ModuleList
        From points (n, \\*space.shape) to predictions (n,).
    """

    def __init__(self, networks: nn.ModuleList) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the networks and variance between them, (n,) each, float64."""
        predictions = torch.stack([network(x.float()).double() for network in self.networks])
        return predictions.mean(dim=0), predictions.var(dim=0)


def cross_fit(
    features: nn.Module | None,
    space: Space,
    x: Tensor,
    y: Tensor,
    *,
    max_iter: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    device: torch.device | str = "cpu",
    random_state: np.random.RandomState,
    verbose: int = 0,
) -> tuple[CrossFittedNetworks, Tensor]:
    """Train the networks.

    Parameters
    ----------
    features : nn.Module or None
        Copied for each network; None for the default of the space.
    space : Space
    x : Tensor of shape (n, \\*space.shape)
    y : Tensor of shape (n,)
        Standardised.
    max_iter, batch_size, learning_rate : optional
        Of each network; by default from the number of rows.
    device, random_state, verbose

    Returns
    -------
    networks : CrossFittedNetworks
    held_out : Tensor of shape (n,), float64
        The prediction of each row by the network that has not seen it.
    """
    folds = MANY_FOLDS if len(x) >= MANY_ROWS else FEW_FOLDS
    n_rows = int(0.9 * len(x) * (1 - 1 / folds))
    max_iter = auto_max_iter(n_rows) if max_iter is None else max_iter
    batch_size = auto_batch_size(n_rows) if batch_size is None else batch_size
    learning_rate = auto_learning_rate(n_rows) if learning_rate is None else learning_rate
    order = torch.from_numpy(random_state.permutation(len(x)))
    seed = int(random_state.randint(2**31))
    networks = make_networks(features, space, n_rows, x[:2], seed=seed, n_networks=folds).to(device)
    held_out = torch.zeros(len(x), dtype=torch.float64)
    y = y.float()
    for fold, network in enumerate(networks):
        others = order[torch.arange(len(x)) % folds != fold]
        validation, training = others[: len(others) // 10][:MAX_VALIDATION_ROWS], others[len(others) // 10 :]
        _fit(network, x, y, training, validation, max_iter, batch_size, learning_rate, seed + fold, verbose)
        rows = order[fold::folds]
        with torch.no_grad():
            held_out[rows] = torch.cat(
                [network(x[part].to(device)).double() for part in rows.split(PREDICT_BATCH)]
            ).cpu()
    return CrossFittedNetworks(networks.requires_grad_(False).eval()), held_out


def _fit(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    training: Tensor,
    validation: Tensor,
    max_iter: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    verbose: int,
) -> None:
    """Fit one network by least squares on some rows, keeping the weights that do best on others."""
    device = next(network.parameters()).device

    def loss(batch: Tensor) -> Tensor:
        rows = training[batch]
        return F.mse_loss(network(x[rows].to(device)).float(), y[rows].to(device))

    def validation_loss() -> float:
        parts = validation.split(PREDICT_BATCH)
        errors = (
            F.mse_loss(network(x[part].to(device)).float(), y[part].to(device), reduction="sum") for part in parts
        )
        return float(sum(error.item() for error in errors)) / len(validation)

    # Dropout knows no generator: the global one is seeded from ours, and put back.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        fit_supervised(
            network,
            loss,
            len(training),
            max_iter=max_iter,
            batch_size=batch_size,
            learning_rate=learning_rate,
            generator=torch.Generator().manual_seed(seed),
            validation_loss=validation_loss,
            verbose=verbose,
            description="reward",
        )
