"""A chain's network that is told a condition, and classifier-free guidance by it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GuidedNetwork(nn.Module):
    """A network of a chain that sees a condition in channels beside the state: ``f(null) + strength (f(c) - f(null))``.

    A last channel is one where there is no condition, and zero else. Its weights are learned, so that "no condition" is
    a token of its own, apart from every value of the condition. The combination is right for all that the networks of
    chains give: logits of letters, scores and velocities.

    Parameters
    ----------
    network : nn.Module
        Called as ``network(x, *time)``, with n_conditions + 1 more channels of x than a state has. They are on the last
        axis, or on that which the network's ``channel_axis`` names.
    condition : Tensor of shape (1 or n, n_conditions + 1)
        As `with_null` gives it; one for all rows, or one a row.
    strength : float, default=1.0
        One is the conditional law; a larger value exaggerates its difference from the unconditional law.

    References
    ----------
    Ho and Salimans (2021), "Classifier-free diffusion guidance", equation (6), where w is strength - 1.
    """

    condition: Tensor
    strength: Tensor

    def __init__(self, network: nn.Module, condition: Tensor, strength: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("condition", condition)
        self.register_buffer("strength", torch.tensor(float(strength)))

    def forward(self, x: Tensor, *time: Tensor) -> Tensor:
        """The guided output of the network for states (n, ...)."""
        seen = self._given(self.condition, x, *time)
        if self.strength == 1:
            return seen
        null = self._given(with_null(torch.zeros_like(self.condition[:1, :-1]), 1.0), x, *time)
        return null + self.strength * (seen - null)

    def _given(self, condition: Tensor, x: Tensor, *time: Tensor) -> Tensor:
        """The network's output under a condition (1 or n, n_conditions + 1)."""
        axis = getattr(self.network, "channel_axis", -1)
        beside = condition.reshape(len(condition), *[1] * (x.ndim - 2), -1).movedim(-1, axis)
        sizes = list(x.shape)
        sizes[axis] = -1  # as many as there are
        return self.network(torch.cat([x, beside.expand(sizes)], dim=axis), *time)


def with_null(condition: Tensor, null: Tensor | float) -> Tensor:
    """Conditions (n, n_conditions) with a last channel that is 1 where there is none: ``null``, (n,) or for all."""
    flag = torch.as_tensor(null, dtype=condition.dtype, device=condition.device).expand(len(condition))[:, None]
    return torch.cat([condition * (1 - flag), flag], dim=1)
