"""Unmasking: the policy of an any-order chain."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from braidkit.diffusion._policies import Categorical, Policy


@dataclass(frozen=True, eq=False)
class Unmasking(Policy):
    """One step of an any-order chain: some masked positions, drawn uniformly, get a letter each.

    Attributes
    ----------
    state : Tensor of shape (n, length, n_letters)
        One-hot rows; zeros at masked positions.
    logits : Tensor of shape (n, length, n_letters)
        Of the letters, independent of each other and of which positions are drawn.
    masked : Tensor of shape (n, length)
        1 at masked positions, 0 elsewhere.
    n_revealed : int
        Positions that the step reveals, at least 1 and at most as many as are masked.
    """

    state: Tensor
    logits: Tensor
    masked: Tensor
    n_revealed: int

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw states from standard normal noise (n, length, n_letters + 1).

        The last entry of a row ranks its position, the others make its letter; gradients are those of
        `Categorical.rsample`, and pass to the state as well.
        """
        ranks = noise[..., -1].masked_fill(self.masked == 0, -torch.inf)
        chosen = torch.zeros_like(self.masked).scatter(1, ranks.topk(self.n_revealed, dim=1).indices, 1.0)
        return self.state + chosen[..., None] * Categorical(self.logits).rsample(noise[..., :-1])

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability (n,) of next states: -log C(m, u) of u positions out of m, and that of their letters.

        It is -inf where a state cannot be reached in this step.
        """
        revealed = self.masked * (x.detach().sum(dim=-1) > 0.5)
        letters = self.logits.float().log_softmax(dim=-1).gather(-1, x.argmax(dim=-1, keepdim=True))[..., 0]
        m, u = self.masked.float().sum(dim=1), self.n_revealed
        log_ways = torch.lgamma(m + 1) - math.lgamma(u + 1) - torch.lgamma(m - u + 1)
        kept = ((x - self.state).detach().abs().sum(dim=-1) * (1 - self.masked) < 0.5).all(dim=1)
        reached = kept & (revealed.sum(dim=1) == u)
        return ((revealed * letters).sum(dim=1) - log_ways).masked_fill(~reached, -torch.inf)

    def kl(self, other: Unmasking) -> Tensor:
        """KL per design (n,), nats, against a step from the same state.

        Both draw the positions alike, so the KL is that of the letters, averaged over the positions drawn: u / m times
        the sum over all m masked positions. This is exact.
        """
        by_position = Categorical(self.logits).kl_by_position(Categorical(other.logits))
        return self.n_revealed * (self.masked * by_position).sum(dim=1) / self.masked.sum(dim=1)

    def shifted(self, gradient: Tensor) -> Unmasking:
        """Letters tilted; which positions are drawn is left alone."""
        return replace(self, logits=self.logits + gradient)
