"""A population of designs that follows a law tilted ever more towards a reward."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel

Reward = Callable[[Tensor], Tensor]

# Shares of the population that are to count after a change of the tilt: a smaller share would be of a few ancestors.
MIN_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class Population(abc.ABC):
    """Designs, and all that a move of theirs needs.

    Attributes
    ----------
    state : Tensor of shape (n, ...)
        The designs as they are moved: letters by number, or points.
    reward : Tensor of shape (n,), float64
    log_prob : Tensor of shape (n,), float64
        By the law alone.
    """

    state: Tensor
    reward: Tensor
    log_prob: Tensor

    def __len__(self) -> int:
        return len(self.state)

    def take(self, rows: Tensor) -> Self:
        """The designs with these row numbers, in this order."""
        return type(self)(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def resampled(self, log_weights: Tensor, generator: torch.Generator) -> Self:
        """As many designs, each about as often as its weight (systematic resampling)."""
        n = len(self)
        places = (torch.arange(n) + torch.rand(1, generator=generator)).double() / n
        ends = log_weights.softmax(dim=0).cumsum(dim=0).cpu()
        return self.take(torch.searchsorted(ends, places).clamp(max=n - 1).to(self.state.device))

    def choose(self, new: Self, log_ratio: Tensor, generator: torch.Generator) -> Self:
        """The new design of each row where the rule of Metropolis and Hastings takes it, else the old one."""
        # The uniform number is drawn on the CPU, so that results do not depend on the device.
        luck = torch.rand(len(self), generator=generator, dtype=torch.float64).to(log_ratio)
        taken = luck.log() < log_ratio
        rows = taken.long() * len(self) + torch.arange(len(self), device=taken.device)
        both = (torch.cat([getattr(self, field.name), getattr(new, field.name)]) for field in dataclasses.fields(self))
        return type(self)(*(part[rows] for part in both))


class Tilted(abc.ABC):
    """The law ``p(x) exp(beta reward(x))``, up to a constant: the optimum (7) for ``alpha = 1 / beta``.

    Attributes
    ----------
    reward : callable
        From points (n, \\*space.shape) to rewards (n,).
    n_moves : int
        Moves after which designs have little in common with what they were.
    log_designs : float
        Logarithm of the number of designs.
    counts_designs : bool
        Whether the entropy is that of a number of designs; that of vectors is a density's.
    """

    reward: Reward
    log_designs: float
    counts_designs: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def n_moves(self) -> int: ...

    @abc.abstractmethod
    def draw(self, chain: DiffusionModel, n: int, generator: torch.Generator) -> Any:
        """A population of the law without a tilt, or of the chain's own designs where they have limits."""

    @abc.abstractmethod
    def at(self, state: Tensor) -> Any:
        """The population of given designs."""

    @abc.abstractmethod
    def points(self, state: Tensor) -> Tensor:
        """Points (n, \\*space.shape) of designs."""

    def designs(self, state: Tensor) -> Tensor:
        """Points of the designs that states stand for."""
        return self.points(state)

    @abc.abstractmethod
    def moved(self, population: Any, beta: float, generator: torch.Generator) -> Any:
        """The population after one Metropolis-Hastings step of each design, which leaves the tilted law as it is."""

    @abc.abstractmethod
    def normalised_log_prob(self, population: Any) -> Tensor:
        """Log-probabilities (n,) by the law without a tilt."""


class Target(Tilted):
    """The tilted law of a chain over a law that is known, which can be fitted to designs and whose designs are moved.

    Its attributes are those of `Tilted`.
    """

    @abc.abstractmethod
    def states(self, points: Tensor) -> Tensor:
        """The designs that points are."""

    @abc.abstractmethod
    def fit_law(self, model: DiffusionModel, pool: Tensor, lines: Any) -> None:
        """Give a chain the law of designs that were drawn; `lines` (n,) number those with common ancestors."""

    @abc.abstractmethod
    def supported_by(self, model: DiffusionModel) -> Target:
        """The same law, without the designs that a fine-tuned chain calls impossible."""


def next_beta(reward: Tensor, beta: float, largest: float) -> float:
    """The largest tilt, up to some, whose weights leave at least half of a population effective."""

    def share(other: float) -> float:
        weights = ((other - beta) * reward).softmax(dim=0)
        return float(1 / weights.square().sum()) / len(reward)

    if share(largest) >= MIN_SHARE:
        return largest
    low, high = beta, largest
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) >= MIN_SHARE else (low, middle)
    return max(low, beta + 1e-3 * (high - beta))


def log_mean_weight(reward: Tensor, step: float) -> float:
    """The change of the logarithm of the target's constant in a step of beta."""
    return float((step * reward).logsumexp(dim=0)) - math.log(len(reward))
