"""Policies: the distributions p_t(x_{t-1} | x_t) of a chain, as small records of tensors.

Each has reparametrised draws from given noise, log-probabilities, and the exact KL to another of its kind. Both are
summed over all dimensions of a design, in nats and in float32 at least. They are not torch.distributions, which draw
from the global generator and check their arguments at every call.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from braidkit.exceptions import IncompatibleModelError
from braidkit.kernels import bridge_step, gaussian_step, has_kernels, simplex_step
from braidkit.kernels.bridge import bridge_mean, bridge_std, sticks_of_angles
from braidkit.kernels.gaussian import normal_kl
from braidkit.kernels.simplex import EPS, euler_step, pull_towards, softmax


@dataclass(frozen=True, eq=False)
class Policy(abc.ABC):
    """A distribution over the next state of each of n designs."""

    @abc.abstractmethod
    def rsample(self, noise: Tensor) -> Tensor:
        """Draw states from standard normal noise (n, \\*noise_shape), differentiably where the policy allows it."""

    @abc.abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density or log-probability (n,) of states."""

    @abc.abstractmethod
    def kl(self, other: Any) -> Tensor:
        """KL(self || other) per design (n,), nats; `other` is a policy of the same kind at the same states."""

    def step(self, reference: Any, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The next states, and the KL (n,) to a reference at the same states; in one kernel where there is one."""
        return self.rsample(noise), self.kl(reference)

    def shifted(self, gradient: Tensor) -> Policy:
        """The policy tilted by ``exp(<gradient, x_{t-1}>)``: exactly for normal steps and letters.

        Parameters
        ----------
        gradient : Tensor of shape (n, \\*state_shape)
        """
        raise IncompatibleModelError(f"a {type(self).__name__} step cannot be tilted by a gradient.")

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The policy with another tensor in place of each of its own."""
        parts = (getattr(self, field.name) for field in dataclasses.fields(self))
        return type(self)(
            *(
                change(part) if isinstance(part, Tensor) else part.mapped(change) if isinstance(part, Policy) else part
                for part in parts
            )
        )


class NormalPolicy(Policy):
    """A policy of independent normal entries; the pretrained policy has the same deviations."""

    @property
    @abc.abstractmethod
    def normal(self) -> Gaussian:
        """The same law, by its means and deviations."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (n,) of states (n, \\*state_shape)."""
        return self.normal.log_prob(x)

    def kl(self, other: NormalPolicy) -> Tensor:
        """KL per design (n,), nats; gradients flow to both means."""
        return self.normal.kl(other.normal)

    def shifted(self, gradient: Tensor) -> Gaussian:
        """Means moved by the variance times the gradient."""
        law = self.normal
        return Gaussian(law.mean + law.std.square() * gradient, law.std)


@dataclass(frozen=True, eq=False)
class Gaussian(NormalPolicy):
    """Independent normal entries, of means (n, \\*state_shape) and deviations of a shape that spreads to theirs.

    ``KL(N(m, s^2) || N(m0, s^2)) = |m - m0|^2 / (2 s^2)``, summed over entries (BRAID, Algorithm 3).
    """

    mean: Tensor
    std: Tensor

    @property
    def normal(self) -> Gaussian:
        """Itself."""
        return self

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw ``mean + std * noise``."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (n,) of states."""
        z = (x - self.mean) / self.std
        log_std = self.std.log().expand_as(z)
        return _sum_dims(-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi))

    def kl(self, other: NormalPolicy) -> Tensor:
        """KL per design (n,), nats; gradients flow to both means."""
        return normal_kl(self.mean - other.normal.mean, self.std)

    def step(self, reference: NormalPolicy, noise: Tensor) -> tuple[Tensor, Tensor]:
        std = self.std.expand_as(self.mean) if self.std.ndim else self.std
        return gaussian_step(self.mean, reference.normal.mean, std, noise)


@dataclass(frozen=True, eq=False)
class Sticks(NormalPolicy):
    """The normal step of broken sticks, by what it is computed from: what `braidkit.kernels.simplex_step` takes.

    Attributes
    ----------
    x_t : Tensor of shape (n, length, K - 1)
        Sticks as they were drawn, perhaps outside (0, 1).
    logits : Tensor of shape (n, length, K)
        Of the clean letters.
    lineages_zero, lineages_one : Tensor of shape (n, length, K - 1)
        Mean lineage counts given the sticks, for starts at 0 and 1.
    length : float
        Length of the step in time.
    """

    x_t: Tensor
    logits: Tensor
    lineages_zero: Tensor
    lineages_one: Tensor
    length: float

    @property
    def normal(self) -> Gaussian:
        """The same law, by its means and deviations."""
        v = self.x_t.clamp(EPS, 1 - EPS)
        pull = pull_towards(softmax(self.logits), v, self.lineages_zero, self.lineages_one)
        mean, variance = euler_step(v, pull, self.length)
        return Gaussian(mean, variance.sqrt())

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw the next sticks; by the kernel where there is one, whose KL of a policy to itself is not read."""
        return self.step(self, noise)[0] if has_kernels(self.x_t.device) else self.normal.rsample(noise)

    def step(self, reference: NormalPolicy, noise: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(reference, Sticks):
            return self.normal.step(reference, noise)
        counts = self.lineages_zero, self.lineages_one
        return simplex_step(self.x_t, self.logits, reference.logits, *counts, noise, self.length)


@dataclass(frozen=True, eq=False)
class Bridge(NormalPolicy):
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
        v = sticks_of_angles(self.x_t)
        counts, times = (self.lineages_zero, self.lineages_one), (self.start, self.end)
        return Gaussian(bridge_mean(v, softmax(self.logits), *counts, *times), bridge_std(v, *times))

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw the next angles, as `Sticks` does."""
        return self.step(self, noise)[0] if has_kernels(self.x_t.device) else self.normal.rsample(noise)

    def step(self, reference: NormalPolicy, noise: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(reference, Bridge):
            return self.normal.step(reference, noise)
        counts, times = (self.lineages_zero, self.lineages_one), (self.start, self.end)
        return bridge_step(self.x_t, self.logits, reference.logits, *counts, noise, *times)


@dataclass(frozen=True, eq=False)
class Categorical(Policy):
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

    def shifted(self, gradient: Tensor) -> Categorical:
        """Logits moved by the gradient, of which what all letters share drops out."""
        return Categorical(self.logits + gradient)


@dataclass(frozen=True, eq=False)
class Fixed(Policy):
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

    def shifted(self, gradient: Tensor) -> Fixed:
        """Itself: nothing tilts what is certain."""
        return self


def _sum_dims(x: Tensor) -> Tensor:
    """Sum over all axes but the first, in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.to(wide).unsqueeze(-1).flatten(1).sum(dim=1)
