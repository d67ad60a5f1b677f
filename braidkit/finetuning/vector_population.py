"""A population of vectors that follows a mixture of normal laws tilted towards a reward."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel, GaussianDiffusion, MixtureLaw
from braidkit.finetuning.population import Population, Reward, Target
from braidkit.spaces import VectorSpace

# Moves that the population makes at each tilt.
N_MOVES = 16
# Least length of a move, in deviations of the component; 1 forgets where the vector was.
LEAST_LENGTH = 0.02
# Deviation, in those of the columns, of how far vectors may lie outside of the bounds before they are clipped: clipping
# by more would take them from where the law has them, such as from a sum of 1.
MARGIN = 0.02
# Components of a tilted law, at least: one normal law has no room for several optima.
MIN_COMPONENTS = 8


@dataclasses.dataclass(frozen=True)
class VectorPopulation(Population):
    """Points (n, n_features), with their rewards and log-densities.

    Attributes
    ----------
    log_inside : Tensor of shape (n,), float64
        0 within the bounds, and lower the further outside.
    """

    log_inside: Tensor


@dataclasses.dataclass(frozen=True)
class VectorTarget(Target):
    """The tilted law of vectors.

    Parameters
    ----------
    law : MixtureLaw
    reward : callable
        From points (n, n_features) to rewards (n,). It needs no gradient.
    space : VectorSpace
        Within whose bounds the law is restricted.
    """

    law: MixtureLaw
    reward: Reward
    space: VectorSpace
    log_designs: float = math.inf

    counts_designs: ClassVar[bool] = False
    n_moves: ClassVar[int] = N_MOVES

    @classmethod
    def of_chain(cls, chain: GaussianDiffusion, reward: Reward) -> VectorTarget:
        """The optimum of a chain over a mixture."""
        assert chain.prior is not None
        return cls(chain.prior.widened(1), reward, chain.space)

    @staticmethod
    def widen(model: GaussianDiffusion) -> None:
        """Give the law of a chain more components, as the tilted law may need."""
        assert model.prior is not None
        model.prior = model.prior.widened(MIN_COMPONENTS)

    def draw(self, chain: DiffusionModel, n: int, generator: torch.Generator) -> VectorPopulation:
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        normal = torch.randn(n, self.law.means.shape[1], generator=generator, dtype=torch.float64)
        drawn = self.law.sample(uniform.to(self.law.means), normal.to(self.law.means))
        return self.at(self.space.confine(drawn))

    @torch.no_grad()
    def at(self, state: Tensor) -> VectorPopulation:
        log_inside = -0.5 * self.space.squared_excess(state) / MARGIN**2
        return VectorPopulation(state, self.reward(self.points(state)).double(), self.law.log_prob(state), log_inside)

    def points(self, state: Tensor) -> Tensor:
        return state.float()

    def designs(self, state: Tensor) -> Tensor:
        # A state is not rounded, and may lie a little outside of the bounds; the reward is asked about the design.
        return self.space.discretise(self.points(state))

    def states(self, points: Tensor) -> Tensor:
        return points.double()

    def moved(self, population: VectorPopulation, beta: float, generator: torch.Generator) -> VectorPopulation:
        """Draw the component that each vector comes from, and move the vector within it.

        Given the component k the proposal ``m_k + sqrt(1 - r^2) (x - m_k) + r noise_k`` leaves its normal law as it is,
        so that reward and bounds alone decide whether it is taken: the preconditioned Crank-Nicolson proposal (Cotter
        et al., 2013). Its length r is drawn anew each time.
        """
        law, x = self.law, population.state
        which = torch.multinomial(law.log_shares(x).exp().cpu(), 1, generator=generator)[:, 0].to(x.device)
        luck = torch.rand(len(x), 1, generator=generator, dtype=torch.float64)
        length = (math.log(LEAST_LENGTH) * luck).exp().to(x.device)
        normal = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
        mean = law.means[which]
        new = self.at(mean + (1 - length.square()).sqrt() * (x - mean) + length * law.scattered(which, normal))
        log_ratio = beta * (new.reward - population.reward) + new.log_inside - population.log_inside
        return population.choose(new, log_ratio, generator)

    def normalised_log_prob(self, population: VectorPopulation) -> Tensor:
        return population.log_prob

    def fit_law(self, model: DiffusionModel, pool: Tensor, lines: Any) -> None:
        assert isinstance(model, GaussianDiffusion)
        model.fit_law(pool)

    def supported_by(self, model: DiffusionModel) -> VectorTarget:
        return self
