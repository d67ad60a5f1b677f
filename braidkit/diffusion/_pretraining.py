"""Training a chain's network on designs: held-out rows, the loop of `fit_supervised`, and calibration."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from braidkit.parameters import check_count, check_fraction, check_number, check_positive
from braidkit.spaces import Points
from braidkit.training import fit_supervised

if TYPE_CHECKING:
    from braidkit.diffusion._base import DiffusionModel

# Fewer held-out rows decide nothing; so many are held out wherever they are no more than a quarter. And more than the
# largest number would change no choice.
MIN_HELD_OUT, MAX_HELD_OUT = 16, 4096


class HeldOutLoss(NamedTuple):
    """Mean loss of held-out rows before training, and by the weights that were kept."""

    before: float
    after: float


def check_training(
    max_iter: Any, batch_size: Any, learning_rate: Any, validation_fraction: Any, verbose: Any = 0
) -> None:
    """Raise for settings of `DiffusionModel.fit` that are out of range."""
    settings = SimpleNamespace(
        max_iter=max_iter, batch_size=batch_size, learning_rate=learning_rate, validation_fraction=validation_fraction
    )
    check_count(settings, "batch_size")
    check_count(settings, "max_iter", or_word="auto")
    check_positive(settings, "learning_rate")
    check_number("verbose", verbose, low=0, whole=True)
    check_fraction(settings, "validation_fraction", allow_zero=True)


def pretrain(
    model: DiffusionModel,
    x: Points,
    seed: int,
    *,
    max_iter: int | str,
    validation_fraction: float,
    least_gain: float = 0.0,
    **settings: Any,
) -> HeldOutLoss | None:
    """Fit a chain's network to points by its loss; `settings` are those of `fit_supervised`.

    Held-out rows decide which weights are kept; those before training, if none are better by `least_gain`. The losses
    are None where there are too few rows to hold some out.
    """
    order = torch.Generator().manual_seed(seed)
    permutation = torch.randperm(len(x), generator=order)
    n_held_out = count_held_out(len(x), validation_fraction)
    held_out, x = x.take(permutation[:n_held_out]), x.take(permutation[n_held_out:])
    validate = n_held_out >= MIN_HELD_OUT
    generator = torch.Generator(model.device).manual_seed(seed)

    @torch.no_grad()
    def validation_loss() -> float:
        # The same noise at every evaluation, so that weights differ and luck does not.
        noise = torch.Generator(model.device).manual_seed(seed + 1)
        losses = [(len(chunk), float(model._loss(chunk, noise))) for chunk in held_out.split(1024)]
        return sum(n * loss for n, loss in losses) / len(held_out)

    first = copy.deepcopy(model.state_dict())
    before = validation_loss() if validate else float("inf")
    _, curve = fit_supervised(
        model,
        lambda rows: model._loss(x[rows], generator),
        len(x),
        max_iter=auto_max_iter(len(x)) if max_iter == "auto" else int(max_iter),
        generator=order,
        validation_loss=validation_loss if validate else None,
        description="pretraining",
        **settings,
    )
    after = min(curve, default=before)
    if not after <= before - least_gain:
        model.load_state_dict(first)
        after = before
    with torch.no_grad():
        # The first rows, in random order: any more would calibrate no better.
        model._calibrate((held_out if validate else x)[:MAX_HELD_OUT], generator)
    return HeldOutLoss(before, after) if validate else None


def count_held_out(n_rows: int, validation_fraction: float) -> int:
    """Number of rows that choose which weights are kept."""
    n_held_out = int(validation_fraction * n_rows)
    if validation_fraction > 0 and n_rows >= 4 * MIN_HELD_OUT:
        n_held_out = max(n_held_out, MIN_HELD_OUT)
    return min(n_held_out, MAX_HELD_OUT)


def auto_max_iter(n_rows: int) -> int:
    """Optimiser updates that suit a number of designs."""
    return max(100, round(4 * n_rows**0.5))
