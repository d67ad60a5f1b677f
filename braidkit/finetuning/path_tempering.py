"""Sample the optimum of a masked chain without a law, such as a language model, and fit the chain to the paths."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel, MaskedDiffusion
from braidkit.diffusion._strata import stratified_steps
from braidkit.exceptions import IncompatibleModelError
from braidkit.finetuning.path_population import PathTarget
from braidkit.finetuning.population import Population, log_mean_weight
from braidkit.finetuning.solver import Problem, Solver
from braidkit.finetuning.tempering import TemperingSolver

# Optimiser steps of the chain in an update, and paths in each.
N_FITS, N_PATHS = 6, 32
# By how much faster than whole networks adapters of low rank may learn: their first factor is zero at the start.
ADAPTER_RATE = 5.0
# Least standard deviation of the letters' log-probability that rarity is counted in, in nats.
LEAST_DEVIATION = 2.0


class PathTemperingSolver(TemperingSolver):
    """Sample the optimum (6) of a masked chain by annealed sequential Monte Carlo, and fit the chain to the paths.

    It is for masked chains without a Markov law, such as one of `MaskedDiffusion.from_masked_lm`, whose passes are
    slow. A population of paths starts as draws of the pretrained chain. As in `TemperingSolver` it is weighted,
    resampled and moved as beta rises from 0 to ``1 / alpha``. A move gives the positions of some last steps another
    order, and the letters of the very last step new values; both keep the law of paths times ``exp(beta reward)``
    exactly. In each update the chain, or the adapter of a language model, learns from the paths of one beta: a few
    steps of Adam on their negative log-likelihood, which is KL(optimum || chain) up to a constant. With many paths and
    moves the population's law is exact; the chain approximates it.

    The population is what is evaluated and judged. Its KL is ``beta E[reward] - log C``, C estimated along the way.

    An update costs about as many passes of the network as the drawing of the population, and those of the adapter's
    steps. Moves are better the fewer steps the chain has; see ``n_steps`` of `MaskedDiffusion.from_masked_lm`.

    Parameters
    ----------
    n_moves : int, optional
        Changes of the order of each path per update, 2 by default.
    n_effective : int, optional
        As in `TemperingSolver`, of the sequences given the order.
    max_rarity : float, optional
        As in `TemperingSolver`, by the log-probability of the letters given the order.

    References
    ----------
    BRAID (Uehara et al., 2024), Theorem 1. Del Moral, Doucet and Jasra (2006), "Sequential Monte Carlo samplers".
    Zanella (2020), "Informed proposals for local MCMC in discrete spaces", for the letters' proposals.
    """

    usual_updates: ClassVar[int | None] = 12
    n_evaluations: ClassVar[int] = 12
    n_settling: ClassVar[int] = 3
    finds_alpha_again: ClassVar[bool] = False  # it would take as many updates as the first time, which are slow

    def check(self, model: DiffusionModel) -> None:
        self._check_options()
        if not isinstance(model, MaskedDiffusion) or model.prior_kind is not None:
            raise IncompatibleModelError(
                f"{type(self).__name__} is for a masked chain without a Markov law, such as one of "
                f'MaskedDiffusion.from_masked_lm; a {type(model).__name__} needs solver="{model.default_solver}".'
            )

    def setup(self, problem: Problem) -> PathTemperingSolver:
        super().setup(problem)
        self.spread, self.gap = LEAST_DEVIATION, 0.0
        for group in self.optimizer.param_groups:
            group["lr"] = ADAPTER_RATE * problem.learning_rate
        return self

    def update(self, i: int) -> dict[str, float]:
        """Tilt the population if there is more to tilt, move it, and let the chain learn from it."""
        if self.population is None:
            self._begin(self.generator(-1))
        return super().update(i) | {"gap": self.gap}

    def own_designs(self) -> tuple[Tensor, float] | None:
        if self.population is None:
            self._begin(self.generator(-1))
        return self._population_and_kl()

    def follow(self, earlier: Solver) -> None:
        """Start from the paths of an earlier run, whose reward was another one, and from its chain.

        They get the tilt, up to the one that is wanted, at which most of them count.
        """
        assert isinstance(earlier, PathTemperingSolver)
        if earlier.population is None:
            return
        self.problem.model.trainable.load_state_dict(earlier.problem.model.trainable.state_dict())
        self.entropy, self.missing, self.spread = earlier.entropy, earlier.missing, earlier.spread
        generator = self.generator(-1)
        population = self.target.rewarded(earlier.population)
        tilts = torch.linspace(0, self.largest, 101, dtype=torch.float64, device=population.reward.device)[:, None]
        log_weights = tilts * population.reward - earlier.beta * earlier.population.reward
        best = int(log_weights.softmax(dim=1).square().sum(dim=1).argmin())
        self.beta = float(tilts[best])
        self.log_z = earlier.log_z + log_mean_weight(log_weights[best], 1.0)
        self.population = population.resampled(log_weights[best], generator)
        # The first step of the tilt may be too far; then there are these alone to learn from.
        self.pool, self.pooled = self.population.state.cpu(), self.beta

    def state_tensors(self) -> dict[str, Tensor]:
        """The population, and the optimiser's state, to resume from."""
        tensors = super().state_tensors()
        if tensors:
            tensors["spread"] = torch.tensor(self.spread, dtype=torch.float64)
            tensors |= {f"adam.{name}": value for name, value in Solver.state_tensors(self).items()}
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state_tensors` gave."""
        if not tensors:
            return
        adam = {name.removeprefix("adam."): value for name, value in tensors.items() if name.startswith("adam.")}
        Solver.load_state_tensors(self, adam)
        self.spread = float(tensors["spread"])
        super().load_state_tensors(tensors)

    def _target(self) -> PathTarget:
        pretrained: Any = self.pretrained
        return PathTarget(pretrained, self.problem.reward, math.log(pretrained.space.n_designs))

    def _begin(self, generator: torch.Generator) -> None:
        super()._begin(generator)
        assert self.population is not None
        self.spread = max(float(self.population.log_prob.std()), LEAST_DEVIATION)

    def _rarity(self, population: Population) -> float:
        return (self.entropy - self.missing + float(population.log_prob.mean())) / -self.spread

    def _fit_law(self, generator: torch.Generator) -> None:
        """A few steps of the optimiser on paths of the pool."""
        if self.beta == 0:
            return
        assert self.population is not None
        nats = []
        for _ in range(N_FITS):
            rows = torch.randint(len(self.pool), (N_PATHS,), generator=generator)
            loss = self._nats(self.pool[rows].to(self.problem.model.device), generator)
            nats.append(float(loss.detach()))
            self.descend([loss / self.target.log_designs])
        log_prob = self.population.log_prob + self.beta * self.population.reward - self.log_z
        self.gap = float(log_prob.mean()) + sum(nats) / len(nats)

    def _nats(self, paths: Tensor, generator: torch.Generator) -> Tensor:
        """Mean negative log-likelihood of the letters of paths, estimated from one step of each."""
        model: Any = self.model
        t = stratified_steps(len(paths), model.n_steps, generator).to(paths.device)[:, None]
        logs = model.policy(self.target.visible(paths, t), 1).logits.float().log_softmax(dim=-1)
        chosen = logs.gather(-1, paths[:, 0][..., None])[..., 0]
        return -model.n_steps * (chosen * (paths[:, 1] == t)).sum(dim=1).mean()
