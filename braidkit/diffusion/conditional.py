"""Train a chain on designs together with what is known of each, and guide it to what is wanted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._pretraining import auto_max_iter
from braidkit.diffusion.guided_network import GuidedNetwork, with_null
from braidkit.spaces import Points
from braidkit.torch_state import seeded
from braidkit.training import fit_supervised

_VALIDATION_ROWS, _CALIBRATION_ROWS = 4096, 1024


def fit_guided(
    chain: DiffusionModel,
    x: Points,
    conditions: Tensor,
    target: Tensor,
    *,
    strength: float,
    dropout: float,
    weights: Tensor | None = None,
    max_iter: int | str = "auto",
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    validation_fraction: float = 0.1,
    seed: int = 0,
    verbose: int = 0,
) -> int:
    """Train a fresh chain on designs and their conditions, then hold the condition at a target.

    Rows are drawn with replacement, with probabilities proportional to their weights, in every mini-batch anew.

    Parameters
    ----------
    chain : DiffusionModel
        Without weights of its own; it becomes a frozen chain that samples under `target`.
    x : Points of shape (n, \\*space.shape)
    conditions : Tensor of shape (n, n_conditions)
    target : Tensor of shape (n_conditions,)
    strength : float
        Weight of the guidance, see `GuidedNetwork`.
    dropout : float
        Share of the rows of a mini-batch whose condition is withheld.
    weights : Tensor of shape (n,), optional
        All alike by default.
    max_iter : int or "auto"
    batch_size, learning_rate, validation_fraction, verbose
        As in `DiffusionModel.fit`.
    seed : int

    Returns
    -------
    n_iter : int
        Updates done.

    Raises
    ------
    IncompatibleModelError
        If the chain is of a kind that takes no condition.
    """
    device = x.device
    with seeded(seed):
        network = chain._build_network(conditions.shape[1] + 1).to(device)
    guided = GuidedNetwork(network, with_null(conditions[:1], 0.0))
    chain.network = guided

    order, generator = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
    permutation = torch.randperm(len(x), generator=order).to(device)
    n_held_out = int(validation_fraction * len(x))
    validate = n_held_out >= 16
    held_out, rows = (permutation[:n_held_out], permutation[n_held_out:]) if validate else (permutation, permutation)
    weights = torch.ones(len(x)) if weights is None else weights
    levels = {pool: weights.to(device, torch.float64)[pool].cumsum(dim=0) for pool in (held_out, rows)}

    def draw(pool: Tensor, n: int) -> Tensor:
        """Draw n rows of a pool by weight."""
        u = levels[pool][-1] * torch.rand(n, generator=generator, dtype=torch.float64, device=device)
        return pool[torch.searchsorted(levels[pool], u, right=True).clamp(max=len(pool) - 1)]

    def loss(chosen: Tensor, noise: torch.Generator) -> Tensor:
        """The chain's loss on rows, some of whose conditions are withheld."""
        withheld = torch.rand(len(chosen), generator=noise, device=device) < dropout
        guided.condition = with_null(conditions[chosen], withheld)
        return chain._loss(x[chosen], noise)

    validation_rows = draw(held_out, min(n_held_out, _VALIDATION_ROWS))

    def validation_loss() -> float:
        """The same rows and noise at every evaluation."""
        noise = torch.Generator(device).manual_seed(seed + 1)
        losses = [len(part) * float(loss(part, noise)) for part in validation_rows.split(1024)]
        return math.fsum(losses) / len(validation_rows)

    n_iter, _ = fit_supervised(
        network,
        lambda batch: loss(draw(rows, len(batch)), generator),
        len(rows),
        # What a condition changes takes longer to learn than what all designs share.
        max_iter=3 * auto_max_iter(len(rows)) if max_iter == "auto" else int(max_iter),
        batch_size=batch_size,
        learning_rate=learning_rate,
        generator=order,
        validation_loss=validation_loss if validate else None,
        verbose=verbose,
        description="training on conditions",
    )
    with torch.no_grad():
        chosen = draw(held_out, _CALIBRATION_ROWS)
        guided.condition = with_null(conditions[chosen], 0.0)
        chain._calibrate(x[chosen], generator)
    chain.network = GuidedNetwork(network, with_null(target[None], 0.0), strength)
    chain.to(device).freeze()
    return n_iter
