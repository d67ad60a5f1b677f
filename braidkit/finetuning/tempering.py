"""Sample the optimum of chains over a known law by sequential Monte Carlo, and fit the chain to the draws."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel, GaussianDiffusion
from braidkit.exceptions import IncompatibleModelError
from braidkit.finetuning.letter_population import LetterTarget
from braidkit.finetuning.population import Population, Reward, Target, log_mean_weight, next_beta
from braidkit.finetuning.solver import Problem, Solver
from braidkit.finetuning.vector_population import VectorTarget
from braidkit.parameters import check_count, check_positive

# Sequences that the chain's law is fitted to in the end.
POOL = 2048
# Parts of a population that share next to no ancestors.
N_LINES = 20
# Steps of the tilt smaller than this share of it are not worth another attempt.
LEAST_STEP = 0.1


class TemperingSolver(Solver):
    """Sample the optimum (7) by annealed sequential Monte Carlo, and fit the chain's law to what was drawn.

    A population starts as draws of the pretrained law p: a `MarkovLaw` of sequences, or a `MixtureLaw` of vectors. Over
    the updates beta rises from 0 to ``1 / alpha``, and the population follows ``p(x) exp(beta reward(x))``. Each rise
    of beta leaves half of the weights effective. The population is then resampled by the weights, and moved by
    Metropolis-Hastings steps; those of sequences follow the reward's gradient if there is one. In each update the
    fine-tuned chain gets the law of the population. It never makes sequences that are impossible under the pretrained
    law. A network on top of the law stays as it was pretrained.

    With many designs and moves the population's law is exact, if the pretrained chain's network is zero. Then it is the
    population that is evaluated and judged. The chain approximates it by a Markov law or a mixture; `moved_to_optimum`
    takes draws of the chain the rest of the way.

    Parameters
    ----------
    n_moves : int, optional
        Metropolis-Hastings steps of each design per update. By default 16 of vectors, and of sequences half as many as
        there are free positions, and at least 8: with fewer, designs remain too much like their ancestors for a law to
        be fitted to them.
    n_effective : int, optional
        Least number of different sequences: the exponential of the tilted law's entropy. If the problem's alpha would
        leave fewer, beta stays smaller. An estimator with ``alpha="auto"`` asks for 200.
    max_rarity : float, optional
        Largest mean rarity of designs under the pretrained law, in standard deviations of its draws' log-probability
        (`LetterChain.rarity`). If they would be rarer, beta stays smaller. An estimator with ``alpha="auto"`` asks for
        1.5.

    References
    ----------
    BRAID (Uehara et al., 2024), equation (7). Del Moral, Doucet and Jasra (2006), "Sequential Monte Carlo samplers".
    Grathwohl et al. (2021), "Oops I took a gradient: scalable sampling for discrete distributions". Cotter et al.
    (2013), "MCMC methods for functions", for moves of vectors.
    """

    usual_updates: ClassVar[int | None] = 40
    n_evaluations: ClassVar[int] = 40
    # Each step of the tilt goes further from the data, so a judge that sees a decline has reason to stop it.
    rejects_at: ClassVar[float | None] = 2.0
    refits: ClassVar[bool] = True
    finds_alpha_again: ClassVar[bool] = True
    n_settling: ClassVar[int] = 5  # a pool of sequences that have moved
    splits_batches: ClassVar[bool] = True  # all processes do the same

    def __init__(
        self, *, n_moves: int | None = None, n_effective: int | None = None, max_rarity: float | None = None
    ) -> None:
        self.n_moves = n_moves
        self.n_effective = n_effective
        self.max_rarity = max_rarity

    def check(self, model: DiffusionModel) -> None:
        self._check_options()
        if model.default_solver != "tempering":
            raise IncompatibleModelError(
                f"{type(self).__name__} is for a MaskedDiffusion over a Markov law and a GaussianDiffusion over a "
                f'mixture; a {type(model).__name__} without one needs solver="{model.default_solver}".'
            )

    def _check_options(self) -> None:
        if self.n_moves is not None:
            check_count(self, "n_moves")
        if self.n_effective is not None:
            check_count(self, "n_effective")
        if self.max_rarity is not None:
            check_positive(self, "max_rarity")

    def setup(self, problem: Problem) -> TemperingSolver:
        super().setup(problem)
        self.target = self._target()
        self.population: Population | None = None
        self.beta, self.largest, self.log_z = 0.0, 1 / problem.alpha, 0.0
        self.pooled = 0.0  # the beta of the pool
        self.n_settled = 0  # updates at the largest beta
        return self

    def update(self, i: int) -> dict[str, float]:
        """Tilt the population if there is more to tilt, move it, and give the chain its law."""
        generator = self.generator(i)
        if self.population is None:
            self._begin(generator)
            self._move(generator)
        elif self.beta < self.largest:
            self._tilt(generator)
        else:
            self._move(generator)
        self._fit_law(generator)
        self.n_settled += self.beta == self.largest
        assert self.population is not None
        return {"lower": float(self.population.reward.mean()), "alpha": 1 / self.beta if self.beta else math.inf}

    @property
    def tilt(self) -> float:
        return self.beta

    def own_designs(self) -> tuple[Tensor, float] | None:
        if self.population is None or not self.problem.pretrained.knows_law:
            return None
        return self._population_and_kl()

    def _population_and_kl(self) -> tuple[Tensor, float]:
        """The designs of the population, and the KL of its law."""
        assert self.population is not None
        kl = self.beta * float(self.population.reward.mean()) - self.log_z
        return self.target.designs(self.population.state), kl

    def is_settled(self) -> bool:
        return self.n_settled >= self.n_settling

    def _target(self) -> Any:
        """The optimum, by which the population is moved."""
        model = self.problem.model
        targets(model).widen(model)
        return target_of(model, self.problem.reward)

    def _begin(self, generator: torch.Generator) -> None:
        """Draw the population from the pretrained law, and remember how probable its sequences are."""
        pretrained, n = self.problem.pretrained, self.problem.batch_size
        self.population = self.target.draw(pretrained, n, generator)
        self.pool = self.population.state[:0].cpu()
        entropy = -float(self.target.normalised_log_prob(self.population).mean())
        # With limits the law is not normalised, but has no more entropy than all designs alike.
        self.entropy = min(entropy, self.target.log_designs)
        self.missing = self.entropy - entropy

    def _move(self, generator: torch.Generator) -> None:
        """Move the population as it is tilted."""
        assert self.population is not None
        self.population, seen = self._moved(self.population, self.beta, generator)
        self._pool(seen)

    def _moved(self, population: Population, beta: float, generator: torch.Generator) -> tuple[Population, Tensor]:
        """The population after its moves, and the sequences (m, length) that it had in the second half of them."""
        seen = []
        n_moves = self.target.n_moves if self.n_moves is None else self.n_moves
        for i in range(n_moves):
            population = self.target.moved(population, beta, generator)
            if i >= n_moves // 2:
                seen.append(population.state.cpu())
        # Four of them at most: those of neighbouring moves are nearly the same.
        return population, torch.cat(seen[:: -max(2, len(seen) // 4)])

    def _pool(self, seen: Tensor) -> None:
        """Add sequences to the pool, which holds those of one tilt."""
        earlier = self.pool if self.beta == self.pooled else self.pool[:0]
        self.pool = torch.cat([seen, earlier])[:POOL]
        self.pooled = self.beta

    def _tilt(self, generator: torch.Generator) -> None:
        """Raise beta, unless too few or too rare designs would be left."""
        before = self.population
        assert before is not None
        beta = next_beta(before.reward, self.beta, self.largest)
        step = beta - self.beta
        log_z = self.log_z + log_mean_weight(before.reward, step)
        tilted, seen = self._moved(before.resampled(step * before.reward, generator), beta, generator)
        if self._is_too_far(tilted, beta, log_z) and (self.beta > 0 or step > LEAST_STEP):
            # Half of the step may do.
            self.largest = self.beta + step / 2 if step > LEAST_STEP * beta else self.beta
            if self.largest == self.beta:
                self.problem = dataclasses.replace(self.problem, alpha=1 / self.beta)
            return
        self.population, self.beta, self.log_z = tilted, beta, log_z
        self._pool(seen)
        if beta == self.largest:
            self.problem = dataclasses.replace(self.problem, alpha=1 / beta)

    def _is_too_far(self, population: Population, beta: float, log_z: float) -> bool:
        """Whether a tilted population has too few different designs, or too rare ones."""
        if self.n_effective and self.target.counts_designs:
            kl = beta * float(population.reward.mean()) - log_z
            entropy = self.missing - float(self.target.normalised_log_prob(population).mean()) - kl
            # A law of few sequences cannot keep many.
            if entropy < min(math.log(self.n_effective), self.entropy - math.log(2)):
                return True
        return self.max_rarity is not None and self._rarity(population) > self.max_rarity

    def _rarity(self, population: Population) -> float:
        """Mean rarity of the population under the pretrained law."""
        return float(self.problem.pretrained.rarity(self.target.points(population.state)).mean())

    def _fit_law(self, generator: torch.Generator) -> None:
        """Give the chain the law of the pooled designs."""
        # Resampling puts copies side by side, and moves come from the design at the same place: neither is to be held
        # out from the other.
        n = self.problem.batch_size
        self.target.fit_law(self.problem.model, self.pool, np.arange(len(self.pool)) % n * N_LINES // n)

    def state_tensors(self) -> dict[str, Tensor]:
        """The population, to resume from."""
        if self.population is None:
            return {}
        figures = [self.beta, self.largest, self.log_z, self.entropy, self.missing, self.problem.alpha]
        return {
            "state": self.population.state,
            "pool": self.pool,
            "figures": torch.tensor(figures, dtype=torch.float64),
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state_tensors` gave."""
        if not tensors:
            return
        self.beta, self.largest, self.log_z, self.entropy, self.missing, alpha = tensors["figures"].tolist()
        self.problem = dataclasses.replace(self.problem, alpha=alpha)
        self.pool, self.pooled = tensors["pool"].cpu(), self.beta
        self.population = self.target.at(tensors["state"])


def targets(chain: DiffusionModel) -> Any:
    """The class of a chain's optima."""
    return VectorTarget if isinstance(chain, GaussianDiffusion) else LetterTarget


def target_of(chain: DiffusionModel, reward: Reward) -> Target:
    """The optimum of a chain over a law that is known."""
    return targets(chain).of_chain(chain, reward)
