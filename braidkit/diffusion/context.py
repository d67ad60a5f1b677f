"""The context of a trajectory: what it is conditioned on, in columns of the state that no step changes.

A prompt's number, a target value or a held template is drawn with x_T, from the row's own noise. It is then a part of
the state: it is recorded, replayed, resampled, divided among processes and saved with it. A chain with a context has
flat states (n, m + c), the m entries of the inner state first, and flat noise likewise; `split_context` takes them
apart where the chain's formulas begin, and `Conditioned` puts them together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from braidkit.diffusion._policies import Policy


def split_context(x: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The inner states (n, \\*shape), and the context (n, c), of flat ones (n, m + c)."""
    m = math.prod(shape)
    return x[:, :m].reshape(len(x), *shape), x[:, m:]


@dataclass(frozen=True, eq=False)
class Conditioned(Policy):
    """A policy of inner states, with the law of the context beside it.

    Attributes
    ----------
    inner : Policy
    context : Policy
        Of columns (n, c): `Fixed`, as they came, at every step, and in `DiffusionModel.initial` their law.
    shape : tuple of int
        Shape of the inner state of one design.
    noise_shape : tuple of int, optional
        Shape of its noise; by default the same.
    """

    inner: Policy
    context: Policy
    shape: tuple[int, ...]
    noise_shape: tuple[int, ...] | None = None

    def rsample(self, noise: Tensor) -> Tensor:
        """Draw both from flat noise (n, k + c); what a step's last c columns hold is not used."""
        inner, columns = self._split_noise(noise)
        return self._join(self.inner.rsample(inner), columns)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability (n,) of flat states."""
        inner, columns = split_context(x, self.shape)
        return self.inner.log_prob(inner) + self.context.log_prob(columns)

    def kl(self, other: Conditioned) -> Tensor:
        """KL per design (n,), nats: that of the inner states, given the context."""
        return self.inner.kl(other.inner) + self.context.kl(other.context)

    def step(self, reference: Conditioned, noise: Tensor) -> tuple[Tensor, Tensor]:
        inner, columns = self._split_noise(noise)
        x, kl = self.inner.step(reference.inner, inner)
        return self._join(x, columns), kl

    def shifted(self, gradient: Tensor) -> Conditioned:
        """The inner policy tilted; the context is left alone."""
        return replace(self, inner=self.inner.shifted(split_context(gradient, self.shape)[0]))

    def _split_noise(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        return split_context(noise, self.shape if self.noise_shape is None else self.noise_shape)

    def _join(self, x: Tensor, columns: Tensor) -> Tensor:
        return torch.cat([x.flatten(1), self.context.rsample(columns).to(x.dtype)], dim=1)


@dataclass(frozen=True, eq=False)
class Choice(Policy):
    """One of some contexts, all as likely: prompts, or target values.

    Attributes
    ----------
    values : Tensor of shape (k, c)
    """

    values: Tensor

    def rsample(self, noise: Tensor) -> Tensor:
        """Contexts (n, c), by the first column of standard normal noise (n, c)."""
        k = len(self.values)
        return self.values[(k * torch.special.ndtr(noise[:, 0])).long().clamp(max=k - 1)]

    def log_prob(self, x: Tensor) -> Tensor:
        """-log k (n,)."""
        return x.new_full((len(x),), -math.log(len(self.values)))

    def kl(self, other: Choice) -> Tensor:
        """Zero: contexts are drawn alike by all chains of one kind."""
        return self.values.new_zeros(())

    def shifted(self, gradient: Tensor) -> Choice:
        """Itself."""
        return self
