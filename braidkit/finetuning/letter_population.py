"""A population of sequences that follows a Markov law tilted towards a reward, without a network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from braidkit.diffusion import DiffusionModel, MarkovLaw, MaskedDiffusion
from braidkit.diffusion.markov import order_within_table
from braidkit.finetuning.population import Population, Reward, Target

# Of a letter that the law calls impossible, where limits leave no other.
LEAST_PROBABILITY = 1e-9


@dataclasses.dataclass(frozen=True)
class LetterPopulation(Population):
    """Sequences (n, length), by number of letters, and all that a move of theirs needs.

    Attributes
    ----------
    gain : Tensor of shape (n, length, n_letters), float64
        What one other letter adds to the law's log-probability; -inf where it cannot be.
    slope : Tensor of shape (n, length, n_letters), float64
        What it adds to the reward, by its gradient; 0 without one.
    """

    gain: Tensor
    slope: Tensor

    def log_proposals(self, beta: float) -> Tensor:
        """Log-probabilities (n, length * n_letters) of the changes."""
        scores = (self.gain + beta * self.slope) / 2
        scores = scores.scatter(2, self.state[..., None], -torch.inf).flatten(1)
        # Where nothing can change, the letter that is there may be proposed again.
        stuck = torch.isinf(scores).all(dim=1, keepdim=True)
        return torch.where(stuck, torch.zeros_like(scores), scores).log_softmax(dim=1)


@dataclasses.dataclass(frozen=True)
class LetterTarget(Target):
    """The tilted law of sequences.

    Parameters
    ----------
    law : MarkovLaw
    reward : callable
        From one-hot letters (n, length, n_letters) to rewards (n,), with a gradient or without.
    log_allowed : Tensor of shape (length, n_letters)
        0 for letters that designs may have, -inf for others.
    meets : callable, optional
        From sequences (n, length) to whether they are designs (n,): the limits of a space.
    log_designs : float
    within : MarkovLaw, optional
        Nothing becomes possible in `fit_law` that it calls impossible.
    """

    law: MarkovLaw
    reward: Reward
    log_allowed: Tensor
    meets: Callable[[Tensor], Tensor] | None = None
    log_designs: float = math.inf
    within: MarkovLaw | None = None

    @classmethod
    def of_chain(cls, chain: MaskedDiffusion, reward: Reward) -> LetterTarget:
        """The optimum of a chain over a Markov law, within what its space holds and limits."""
        assert isinstance(chain.prior, MarkovLaw)
        space, law = chain.space, chain.prior.widened(chain.prior.order)
        log_allowed = torch.where(chain.log_held(1)[0] < 0, -torch.inf, 0.0)
        log_designs = math.log(space.n_designs)
        if not space.limited:
            return cls(law, reward, log_allowed, None, log_designs, law)
        # Limits come before the law, as in the chain: what it calls impossible may be all that is left.
        likely = law.widened(law.order)
        likely.transitions.clamp_(min=LEAST_PROBABILITY)
        return cls(likely, reward, log_allowed, space.automaton.meets, log_designs, law)

    @staticmethod
    def widen(model: MaskedDiffusion) -> None:
        """Let the law of a chain depend on more letters, as the tilted law may."""
        assert isinstance(model.prior, MarkovLaw)
        order = max(model.prior.order, order_within_table(model.space.length, model.space.n_letters))
        model.prior = model.prior.widened(order)

    @property
    def n_moves(self) -> int:
        """Half as many as there are free positions, and at least 8."""
        return max(8, int((self.log_allowed.isfinite().sum(dim=1) > 1).sum()) // 2)

    def draw(self, chain: DiffusionModel, n: int, generator: torch.Generator) -> LetterPopulation:
        if self.meets is not None:
            return self.at(self.states(chain.sample_points(chain.draw_noise(n, generator))))
        noise = torch.rand(n, self.law.length, generator=generator, dtype=torch.float64)
        return self.at(self.law.sample(noise.to(self.log_allowed), self.log_allowed.expand(n, -1, -1)))

    def at(self, state: Tensor) -> LetterPopulation:
        log_prob, gain = self.law.substitutions(state)
        reward, gradient = reward_and_gradient(self.reward, self.points(state))
        slope = gradient - gradient.gather(2, state[..., None])
        return LetterPopulation(state, reward, log_prob, gain + self.log_allowed, slope)

    def points(self, state: Tensor) -> Tensor:
        return one_hot(state, self.law.n_letters).float()

    def states(self, points: Tensor) -> Tensor:
        return points.argmax(dim=-1)

    def moved(self, population: LetterPopulation, beta: float, generator: torch.Generator) -> LetterPopulation:
        """Propose another letter at one position of each sequence, and take it by the rule of Metropolis and Hastings.

        A change is proposed in proportion to the square root of the factor by which it would multiply the target's
        density, estimated by the reward's gradient: a locally balanced proposal (Zanella, 2020; Grathwohl et al.,
        2021). The acceptance makes the target exact, whatever the gradient is worth.
        """
        log_q = population.log_proposals(beta)
        change = torch.multinomial(log_q.exp().cpu(), 1, generator=generator).to(log_q.device)
        position, letter = change // self.law.n_letters, change % self.law.n_letters
        before = population.state.gather(1, position)
        new = self.at(population.state.scatter(1, position, letter))
        back = position * self.law.n_letters + before
        # Metropolis-Hastings: ratio of the targets p(x) exp(beta reward(x)), times that of the proposals.
        log_ratio = new.log_prob - population.log_prob + beta * (new.reward - population.reward)
        log_ratio += (new.log_proposals(beta).gather(1, back) - log_q.gather(1, change))[:, 0]
        if self.meets is not None:
            log_ratio = log_ratio.masked_fill(~self.meets(new.state), -torch.inf)
        return population.choose(new, log_ratio, generator)

    def normalised_log_prob(self, population: LetterPopulation) -> Tensor:
        """Log-probabilities (n,) under the law given what the space holds."""
        return population.log_prob - self.law.log_normaliser(self.log_allowed)

    def fit_law(self, model: DiffusionModel, pool: Tensor, lines: Any) -> None:
        assert isinstance(model, MaskedDiffusion)
        assert isinstance(model.prior, MarkovLaw)
        law, _ = MarkovLaw.fit(pool, model.space.n_letters, within=self.within, groups=lines)
        model.prior.transitions.copy_(law.transitions)
        # Sequences within limits made the law, so the limits are weighed by what it expects itself.
        model.expect()

    def supported_by(self, model: DiffusionModel) -> LetterTarget:
        assert isinstance(model, MaskedDiffusion)
        own = model.prior
        assert isinstance(own, MarkovLaw)
        return dataclasses.replace(self, meets=lambda tokens: own.log_prob(tokens).isfinite())


def reward_and_gradient(reward: Reward, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards (n,) of points (n, length, n_letters), and their gradient, 0 where there is none; both float64."""
    x = x.requires_grad_(True)
    with torch.enable_grad():
        values = reward(x)
        found = torch.autograd.grad(values.sum(), x, allow_unused=True)[0] if values.requires_grad else None
    gradient = torch.zeros_like(x) if found is None else found
    return values.detach().double(), gradient.detach().double()
