"""Training a chain's network on designs: held-out rows, the loop of `fit_supervised`, and calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from braidkit.spaces import Points
from braidkit.training import fit_supervised

# Held-out rows only pick weights and scales: more would change no choice.
MAX_HELD_OUT = 4096

if TYPE_CHECKING:
    from braidkit.diffusion._base import DiffusionModel


def pretrain(
    model: DiffusionModel, x: Points, seed: int, *, max_iter: int | str, validation_fraction: float, **settings: Any
) -> None:
    """Fit a chain's network to points by its loss; `settings` are those of `fit_supervised`."""
    order = torch.Generator().manual_seed(seed)
    permutation = torch.randperm(len(x), generator=order)
    n_held_out = min(int(validation_fraction * len(x)), MAX_HELD_OUT)
    held_out, x = x.take(permutation[:n_held_out]), x.take(permutation[n_held_out:])
    validate = n_held_out >= 16
    generator = torch.Generator(model.device).manual_seed(seed)

    def validation_loss() -> float:
        # The same noise at every evaluation, so that weights differ and luck does not.
        noise = torch.Generator(model.device).manual_seed(seed + 1)
        losses = [(len(chunk), float(model._loss(chunk, noise))) for chunk in held_out.split(1024)]
        return sum(n * loss for n, loss in losses) / len(held_out)

    fit_supervised(
        model,
        lambda rows: model._loss(x[rows], generator),
        len(x),
        max_iter=auto_max_iter(len(x)) if max_iter == "auto" else int(max_iter),
        generator=order,
        validation_loss=validation_loss if validate else None,
        description="pretraining",
        **settings,
    )
    with torch.no_grad():
        # The first rows, in random order: any more would calibrate no better.
        model._calibrate((held_out if validate else x)[:MAX_HELD_OUT], generator)


def auto_max_iter(n_rows: int) -> int:
    """Optimiser updates that suit a number of designs."""
    return max(100, round(4 * n_rows**0.5))
