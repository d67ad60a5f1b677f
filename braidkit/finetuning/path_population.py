"""A population of paths of a masked chain that follows their law tilted towards a reward."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from braidkit.diffusion import MaskedDiffusion
from braidkit.diffusion._masked_networks import masked_positions
from braidkit.finetuning.letter_population import reward_and_gradient
from braidkit.finetuning.population import Population, Reward, Tilted

# Letters that are proposed anew after each change of the order, times the positions that the last step reveals.
SWEEPS = 3


@dataclasses.dataclass(frozen=True)
class PathPopulation(Population):
    """Paths, by letters and the order in which they are revealed, and all that a move of theirs needs.

    `state` (n, 2, length) holds the letters by number, and the step, from x_t to x_{t-1}, that reveals each: t, or 0
    where the space holds a letter. `log_prob` is that of the letters given the order.

    Attributes
    ----------
    logs : Tensor of shape (n, n_steps, n_free, n_letters), float32
        Log-probabilities of the letters at free positions, in the states x_1, ..., x_T of the path.
    slope : Tensor of shape (n, n_free, n_letters), float64
        What another letter adds to the reward, by its gradient; 0 without one.
    """

    logs: Tensor
    slope: Tensor


@dataclasses.dataclass(frozen=True)
class PathTarget(Tilted):
    """The law of a masked chain's paths times ``exp(beta reward(x_0))``: the optimum of (6), by Theorem 1.

    A path is the order in which positions are revealed, uniform, and the letters. The order matters to their
    probabilities where the chain's conditional laws do not belong to one law, as those of language models do not.

    Parameters
    ----------
    chain : MaskedDiffusion
        The pretrained one.
    reward : callable
        From one-hot letters (n, length, n_letters) to rewards (n,), with a gradient or without.
    log_designs : float
    """

    chain: MaskedDiffusion
    reward: Reward
    log_designs: float

    @property
    def n_moves(self) -> int:
        """Two: each costs half as many passes of the network as the chain has steps."""
        return 2

    @property
    def free(self) -> Tensor:
        """Positions that a path reveals."""
        return masked_positions(self.chain.initial(1).state)[0].nonzero()[:, 0]

    @property
    def reveals(self) -> Tensor:
        """The steps (n_free,) that reveal the positions of a path, the last ones first."""
        counts = torch.tensor(self.chain.n_masked).diff()
        return torch.arange(1, len(counts) + 1).repeat_interleave(counts).to(self.chain.device)

    @torch.no_grad()
    def draw(self, chain: Any, n: int, generator: torch.Generator) -> PathPopulation:
        free, held = self.free, self.chain.initial(n).state
        state = torch.stack([held.argmax(dim=-1), torch.zeros_like(held[..., 0], dtype=torch.long)], dim=1)
        order = torch.rand(n, len(free), generator=generator).argsort(dim=1).to(free.device)
        state[:, 1, free] = self.reveals[order]
        logs = []
        for t in range(self.chain.n_steps, 0, -1):
            logs.append(self._logs(state, t))
            drawn = torch.multinomial(logs[-1].flatten(0, 1).exp().cpu(), 1, generator=generator)
            new = drawn.reshape(n, len(free)).to(free.device)
            state[:, 0, free] = torch.where(state[:, 1, free] == t, new, state[:, 0, free])
        return self._population(state, torch.stack(logs[::-1], dim=1))

    @torch.no_grad()
    def at(self, state: Tensor) -> PathPopulation:
        logs = [self._logs(state, t) for t in range(1, self.chain.n_steps + 1)]
        return self._population(state, torch.stack(logs, dim=1))

    def points(self, state: Tensor) -> Tensor:
        return one_hot(state[:, 0], self.chain.space.n_letters).float()

    def normalised_log_prob(self, population: PathPopulation) -> Tensor:
        """Log-probabilities (n,) of the letters given the order."""
        return population.log_prob

    def moved(self, population: PathPopulation, beta: float, generator: torch.Generator) -> PathPopulation:
        """Reveal the positions of some last steps in another order, then move the letters of the very last.

        Both leave the tilted law as it is. The new order is uniform, and taken by the rule of Metropolis and Hastings.
        The letters of the last step are independent of each other given all others, so that their moves need no
        further pass of the network.
        """
        population = self._reordered(population, generator)
        for _ in range(SWEEPS * self.chain.n_masked[1]):
            population = self._substituted(population, beta, generator)
        return population

    def visible(self, state: Tensor, t: int | Tensor) -> Tensor:
        """The states x_t (n, length, n_letters) of paths; t may be one of each path (n, 1)."""
        masked = (state[:, 1] > 0) & (state[:, 1] <= t)
        return self.points(state) * ~masked[..., None]

    @torch.no_grad()
    def _logs(self, state: Tensor, t: int) -> Tensor:
        """Log-probabilities (n, n_free, n_letters) of the letters at x_t."""
        parts = self.visible(state, t).split(self.chain.rows_at_once)
        logits = torch.cat([self.chain.policy(part, t).logits[:, self.free] for part in parts])
        return logits.float().log_softmax(dim=-1)

    def _log_prob(self, state: Tensor, logs: Tensor) -> Tensor:
        """Log-probabilities (n,) of the letters given the order."""
        letters, steps = state[..., self.free].unbind(dim=1)
        at_steps = logs.gather(1, (steps - 1)[:, None, :, None].expand(-1, 1, -1, logs.shape[-1]))[:, 0]
        return at_steps.gather(-1, letters[..., None])[..., 0].double().sum(dim=1)

    def _population(self, state: Tensor, logs: Tensor) -> PathPopulation:
        reward, slope = self._rewarded(state)
        return PathPopulation(state, reward, self._log_prob(state, logs), logs, slope)

    def rewarded(self, population: PathPopulation) -> PathPopulation:
        """The same paths with the rewards of this target."""
        reward, slope = self._rewarded(population.state)
        return dataclasses.replace(population, reward=reward, slope=slope)

    def _rewarded(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards (n,), and their slopes (n, n_free, n_letters)."""
        reward, gradient = reward_and_gradient(self.reward, self.points(state))
        slope = gradient[:, self.free]
        return reward, slope - slope.gather(2, state[:, 0, self.free][..., None])

    def _reordered(self, population: PathPopulation, generator: torch.Generator) -> PathPopulation:
        """Another order of the positions that the last 2, 3, ... or all steps reveal: as many passes, less one."""
        if self.chain.n_steps == 1:
            return population
        state, free, n = population.state, self.free, len(population)
        last = int(torch.randint(2, self.chain.n_steps + 1, (), generator=generator))
        steps = state[:, 1, free]
        keys = torch.rand(n, len(free), generator=generator).to(free.device).masked_fill(steps > last, torch.inf)
        places = keys.argsort(dim=1)[:, : self.chain.n_masked[last]]
        new_state = state.clone()
        new_state[:, 1, free] = steps.scatter(1, places, self.reveals[: places.shape[1]].expand(n, -1))
        # At x_last and before nothing has changed.
        logs = [self._logs(new_state, t) for t in range(1, last)]
        new_logs = torch.cat([torch.stack(logs, dim=1), population.logs[:, last - 1 :]], dim=1)
        log_prob = self._log_prob(new_state, new_logs)
        new = dataclasses.replace(population, state=new_state, logs=new_logs, log_prob=log_prob)
        return population.choose(new, log_prob - population.log_prob, generator)

    def _log_proposals(self, population: PathPopulation, beta: float) -> Tensor:
        """Log-probabilities (n, n_free * n_letters) of changes of a letter that the last step reveals.

        They are locally balanced, as those of `LetterTarget.moved`.
        """
        letters, steps = population.state[..., self.free].unbind(dim=1)
        scores = (self._gain(population) + beta * population.slope) / 2
        scores = scores.masked_fill((steps != 1)[..., None], -torch.inf)
        return scores.scatter(2, letters[..., None], -torch.inf).flatten(1).log_softmax(dim=1)

    def _gain(self, population: PathPopulation) -> Tensor:
        """What another letter adds to the log-probability of the last step (n, n_free, n_letters)."""
        last = population.logs[:, 0].double()
        return last - last.gather(2, population.state[:, 0, self.free][..., None])

    def _substituted(self, population: PathPopulation, beta: float, generator: torch.Generator) -> PathPopulation:
        """Propose another letter at one position that the last step reveals."""
        log_q, n_letters = self._log_proposals(population, beta), self.chain.space.n_letters
        change = torch.multinomial(log_q.exp().cpu(), 1, generator=generator).to(log_q.device)
        place, letter = change // n_letters, change % n_letters
        position = self.free[place]
        before = population.state[:, 0].gather(1, position)
        state = population.state.clone()
        state[:, 0] = state[:, 0].scatter(1, position, letter)
        reward, slope = self._rewarded(state)
        log_prob = population.log_prob + self._gain(population).flatten(1).gather(1, change)[:, 0]
        new = dataclasses.replace(population, state=state, reward=reward, slope=slope, log_prob=log_prob)
        log_ratio = log_prob - population.log_prob + beta * (reward - population.reward)
        back = self._log_proposals(new, beta).gather(1, place * n_letters + before)
        log_ratio += (back - log_q.gather(1, change))[:, 0]
        return population.choose(new, log_ratio, generator)
