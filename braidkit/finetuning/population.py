"""A population of sequences that follows a Markov law tilted ever more towards a reward, without a network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from braidkit.diffusion import MarkovLaw, MaskedDiffusion

Reward = Callable[[Tensor], Tensor]

# Shares of the population that are to count after a change of the tilt: a smaller share would be of a few ancestors.
MIN_SHARE = 0.5
# Of a letter that the law calls impossible, where limits leave no other.
LEAST_PROBABILITY = 1e-9


@dataclasses.dataclass(frozen=True)
class Target:
    """The law ``p(x) exp(beta reward(x))``, up to a constant: the optimum (7) for ``alpha = 1 / beta``.

    Parameters
    ----------
    law : MarkovLaw
    reward : callable
        From one-hot letters (n, length, n_letters) to rewards (n,), with a gradient or without.
    log_allowed : Tensor of shape (length, n_letters)
        0 for letters that designs may have, -inf for others.
    meets : callable, optional
        From sequences (n, length) to whether they are designs (n,): the limits of a space.
    """

    law: MarkovLaw
    reward: Reward
    log_allowed: Tensor
    meets: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of_chain(cls, chain: MaskedDiffusion, law: MarkovLaw, reward: Reward) -> Target:
        """The optimum of a chain over a Markov law, within what its space holds and limits."""
        log_allowed = torch.where(chain.log_held(1)[0] < 0, -torch.inf, 0.0)
        if not chain.space.limited:
            return cls(law, reward, log_allowed)
        # Limits come before the law, as in the chain: what it calls impossible may be all that is left.
        likely = law.widened(law.order)
        likely.transitions.clamp_(min=LEAST_PROBABILITY)
        return cls(likely, reward, log_allowed, chain.space.automaton.meets)

    @property
    def n_moves(self) -> int:
        """Moves after which sequences have little in common with what they were: half as many as free positions."""
        return max(8, int((self.log_allowed.isfinite().sum(dim=1) > 1).sum()) // 2)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Sequences (n, length) of the law without a tilt, by number of letters."""
        noise = torch.rand(n, self.law.length, generator=generator, dtype=torch.float64)
        return self.law.sample(noise.to(self.log_allowed), self.log_allowed.expand(n, -1, -1))


@dataclasses.dataclass(frozen=True)
class Population:
    """Sequences, and all that a move of theirs needs.

    Attributes
    ----------
    tokens : LongTensor of shape (n, length)
    reward : Tensor of shape (n,), float64
    log_prob : Tensor of shape (n,), float64
        By the law alone.
    gain : Tensor of shape (n, length, n_letters), float64
        What one other letter adds to the law's log-probability; -inf where it cannot be.
    slope : Tensor of shape (n, length, n_letters), float64
        What it adds to the reward, by its gradient; 0 without one.
    """

    tokens: Tensor
    reward: Tensor
    log_prob: Tensor
    gain: Tensor
    slope: Tensor

    @classmethod
    def at(cls, tokens: Tensor, target: Target) -> Population:
        """Look at sequences."""
        log_prob, gain = target.law.substitutions(tokens)
        x = one_hot(tokens, target.law.n_letters).float().requires_grad_(True)
        with torch.enable_grad():
            reward = target.reward(x)
            found = torch.autograd.grad(reward.sum(), x, allow_unused=True)[0] if reward.requires_grad else None
        slope = torch.zeros_like(gain) if found is None else found.double()
        slope = slope - slope.gather(2, tokens[..., None])
        return cls(tokens, reward.detach().double(), log_prob, gain + target.log_allowed, slope)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: Tensor) -> Population:
        """The sequences with these row numbers, in this order."""
        return Population(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def moved(self, target: Target, beta: float, generator: torch.Generator) -> Population:
        """Propose another letter at one position of each sequence, and take it by the rule of Metropolis and Hastings.

        A change is proposed in proportion to the square root of the factor by which it would multiply the target's
        density, estimated by the reward's gradient: a locally balanced proposal (Zanella, 2020; Grathwohl et al.,
        2021). The acceptance makes the target exact, whatever the gradient is worth.
        """
        log_q = self._log_proposals(beta)
        change = torch.multinomial(log_q.exp().cpu(), 1, generator=generator).to(log_q.device)
        position, letter = change // target.law.n_letters, change % target.law.n_letters
        before = self.tokens.gather(1, position)
        new = Population.at(self.tokens.scatter(1, position, letter), target)
        back = position * target.law.n_letters + before
        # Metropolis-Hastings: ratio of the targets p(x) exp(beta reward(x)), times that of the proposals.
        log_ratio = new.log_prob - self.log_prob + beta * (new.reward - self.reward)
        log_ratio += (new._log_proposals(beta).gather(1, back) - log_q.gather(1, change))[:, 0]
        if target.meets is not None:
            log_ratio = log_ratio.masked_fill(~target.meets(new.tokens), -torch.inf)
        # The uniform number is drawn on the CPU, so that results do not depend on the device.
        luck = torch.rand(len(self), generator=generator, dtype=torch.float64).to(log_ratio)
        taken = luck.log() < log_ratio
        rows = taken.long() * len(self) + torch.arange(len(self), device=taken.device)
        both = (torch.cat([getattr(self, field.name), getattr(new, field.name)]) for field in dataclasses.fields(self))
        return Population(*(part[rows] for part in both))

    def _log_proposals(self, beta: float) -> Tensor:
        """Log-probabilities (n, length * n_letters) of the changes."""
        scores = (self.gain + beta * self.slope) / 2
        scores = scores.scatter(2, self.tokens[..., None], -torch.inf).flatten(1)
        # Where nothing can change, the letter that is there may be proposed again.
        stuck = torch.isinf(scores).all(dim=1, keepdim=True)
        return torch.where(stuck, torch.zeros_like(scores), scores).log_softmax(dim=1)

    def resampled(self, log_weights: Tensor, generator: torch.Generator) -> Population:
        """As many sequences, each about as often as its weight (systematic resampling)."""
        n = len(self)
        places = (torch.arange(n) + torch.rand(1, generator=generator)).double() / n
        ends = log_weights.softmax(dim=0).cumsum(dim=0).cpu()
        return self.take(torch.searchsorted(ends, places).clamp(max=n - 1).to(self.tokens.device))


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
