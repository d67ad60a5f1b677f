"""Policies: the distributions p_t(x_{t-1} | x_t) of a chain, as small records of tensors.

Each has reparametrised draws from given noise, log-probabilities and the exact KL against its twin, summed over all
dimensions of a design, in nats and float32. They are not torch.distributions: those draw from ambient randomness and
check their arguments at every call.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from braidkit.kernels import has_kernels
from braidkit.kernels.bridge import bridge_mean, bridge_std, bridge_step
from braidkit.kernels.simplex import EPS, euler_step, pull_towards, simplex_step, softmax


class Policy(Protocol):
    """A distribution over the next state of each of n designs."""

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw states from standard noise of the state's shape, differentiably where the policy allows it."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density or log-probability (n,) of states."""

    def kl(self, other: Any) -> Tensor:
        """KL(self || other) per design (n,), nats; `other` is a policy of the same kind."""


class Gaussian(NamedTuple):
    """Independent normal entries; the KL is that of two policies with the same deviations.

    KL(N(m, s^2) || N(m0, s^2)) = |m - m0|^2 / (2 s^2), summed over entries (BRAID, Algorithm 3).
    """

    mean: Tensor
    std: Tensor

    @property
    def normal(self) -> Gaussian:
        """Itself; `Sticks` and `Bridge` compute theirs."""
        return self

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw ``mean + std * noise``."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (n,) of states (n, ...)."""
        z = (x - self.mean) / self.std
        log_std = self.std.log().expand_as(z)
        return _sum_dims(-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi))

    def kl(self, other: Gaussian) -> Tensor:
        """KL per design (n,), nats; gradients flow to both means."""
        return _sum_dims((self.mean - other.mean).float().square() / (2 * self.std.float().square()))


class Sticks(NamedTuple):
    """The normal step of broken sticks, by what it is computed from: what `braidkit.kernels.simplex_step` takes.

    Attributes
    ----------
    x_t : Tensor of shape (n, length, K - 1)
        Sticks as they were drawn, perhaps outside (0, 1).
    logits : Tensor of shape (n, length, K)
        Of the clean letters.
    lineages_zero, lineages_one : Tensor of shape (n, length, K - 1)
        Mean lineage counts given the sticks, for starts at 0 and 1.
    step : float
        Length of the step in time.
    """

    x_t: Tensor
    logits: Tensor
    lineages_zero: Tensor
    lineages_one: Tensor
    step: float

    @property
    def normal(self) -> Gaussian:
        """The same law, by its means and deviations."""
        v = self.x_t.clamp(EPS, 1 - EPS)
        pull = pull_towards(softmax(self.logits), v, self.lineages_zero, self.lineages_one)
        mean, variance = euler_step(v, pull, self.step)
        return Gaussian(mean, variance.sqrt())

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw the next sticks; by the kernel where there is one, whose KL of a policy to itself is not read."""
        if has_kernels(self.x_t.device):
            return simplex_step(self.x_t, self.logits, self.logits, *self[2:4], noise, self.step)[0]
        return self.normal.rsample(noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (n,) of sticks (n, length, K - 1)."""
        return self.normal.log_prob(x)

    def kl(self, other: Sticks) -> Tensor:
        """KL per design (n,), nats, of two policies at the same sticks."""
        return self.normal.kl(other.normal)


class Bridge(NamedTuple):
    """The normal step of sticks' angles, by what it is computed from: what `braidkit.kernels.bridge_step` takes.

    Attributes
    ----------
    x_t : Tensor of shape (n, length, K - 1)
        Angles as they were drawn: any numbers.
    logits : Tensor of shape (n, length, K)
        Of the clean letters.
    lineages_zero, lineages_one : Tensor of shape (n, length, K - 1)
        Mean lineage counts given the sticks, for starts at 0 and 1.
    start, end : float
        Times of the step.
    """

    x_t: Tensor
    logits: Tensor
    lineages_zero: Tensor
    lineages_one: Tensor
    start: float
    end: float

    @property
    def normal(self) -> Gaussian:
        """The same law, by its means and deviations."""
        v = self.x_t.sin().square().clamp(EPS, 1 - EPS)
        times = self.start, self.end
        mean = bridge_mean(v, softmax(self.logits), self.lineages_zero, self.lineages_one, *times)
        return Gaussian(mean, bridge_std(v, *times))

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw the next angles, as `Sticks` does."""
        if has_kernels(self.x_t.device):
            return bridge_step(self.x_t, self.logits, self.logits, *self[2:4], noise, *self[4:])[0]
        return self.normal.rsample(noise)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (n,) of angles (n, length, K - 1)."""
        return self.normal.log_prob(x)

    def kl(self, other: Bridge | Gaussian) -> Tensor:
        """KL per design (n,), nats, of two policies at the same angles."""
        return self.normal.kl(other.normal)


class Categorical(NamedTuple):
    """Independent letters at each position, as one-hot rows; logits of shape (n, ..., n_letters).

    Draws use the Gumbel trick. Their gradient is straight-through: that of the softmax of the same perturbed logits
    (Jang, Gu and Poole, 2017; Bengio et al., 2013), which is biased; see ``docs/theory.md``.
    """

    logits: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw one-hot rows from standard normal noise, one entry a letter."""
        perturbed = self.logits - (-torch.special.log_ndtr(noise)).log()
        hard = torch.zeros_like(perturbed).scatter(-1, perturbed.argmax(dim=-1, keepdim=True), 1.0)
        if not perturbed.requires_grad:
            return hard
        soft = perturbed.softmax(dim=-1)
        return hard + (soft - soft.detach())

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability (n,) of one-hot rows (n, ..., n_letters)."""
        chosen = self.logits.log_softmax(dim=-1).gather(-1, x.argmax(dim=-1, keepdim=True))
        return _sum_dims(chosen)

    def kl(self, other: Categorical) -> Tensor:
        """KL per design (n,), nats."""
        return _sum_dims(self.kl_by_position(other))

    def kl_by_position(self, other: Categorical) -> Tensor:
        """KL of each position (n, ...), nats."""
        log_p, log_q = self.logits.float().log_softmax(dim=-1), other.logits.float().log_softmax(dim=-1)
        return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


class Fixed(NamedTuple):
    """A state without noise, the same for every law of the chain: its KL is zero."""

    state: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """The state, whatever the noise."""
        return self.state

    def log_prob(self, x: Tensor) -> Tensor:
        """Zero (n,): the state is certain."""
        return x.new_zeros(len(x))

    def kl(self, other: Fixed) -> Tensor:
        """Zero (n,)."""
        return self.state.new_zeros(len(self.state))


def _sum_dims(x: Tensor) -> Tensor:
    """Sum over all axes but the first, in float32 at least."""
    return x.float().unsqueeze(-1).flatten(1).sum(dim=1)
