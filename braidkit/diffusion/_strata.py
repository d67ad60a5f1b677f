"""Stratified draws: one from each of n equal parts of a range, so that losses of batches vary less."""

from __future__ import annotations

import torch
from torch import Tensor


def strata(n: int, generator: torch.Generator) -> Tensor:
    """Numbers (n,), uniform from 0 to 1, from 1 to 2, and so on up to n; on the generator's device."""
    device = generator.device
    return torch.arange(n, device=device) + torch.rand(n, generator=generator, device=device)


def stratified_steps(n: int, n_steps: int, generator: torch.Generator) -> Tensor:
    """Steps (n,) of a chain, each of 1, ..., n_steps about as often; on the generator's device."""
    return 1 + (n_steps * strata(n, generator) / n).long().clamp(max=n_steps - 1)
