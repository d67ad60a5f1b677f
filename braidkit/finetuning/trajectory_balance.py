"""Relative trajectory balance: a loss of whole trajectories that is zero at the optimum only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel, sample_path
from braidkit.finetuning.solver import Problem, Solver
from braidkit.parameters import check_count, check_positive


class Trajectories(NamedTuple):
    """Paths, their pretrained log-probabilities and their rewards; rows are trajectories.

    Attributes
    ----------
    states : Tensor of shape (n, n_steps + 1, \\*state_shape)
        Item t holds x_t.
    log_probs : Tensor of shape (n, n_steps)
        Of each step under the pretrained chain; item t - 1 is that of p_pre_t.
    reward : Tensor of shape (n,)
    """

    states: Tensor
    log_probs: Tensor
    reward: Tensor

    def at(self, rows: Tensor) -> Trajectories:
        """The trajectories with these row numbers."""
        return Trajectories(*(part[rows] for part in self))


class TrajectoryBalanceSolver(Solver):
    """Square the imbalance ``log Z + log p(path) - log p_pre(path) - reward / alpha`` of trajectories.

    The imbalance is zero on every path at the optimum of (6), and only there. Z is then the constant C of the largest
    value, alpha log C. The loss needs log-probabilities only: no gradient of the reward, and none through the chain. It
    can learn from trajectories drawn earlier. On fresh ones its expected gradient is that of the objective. If the
    policies cannot represent the optimum, as Gaussian policies of fixed deviations, log Z tends to the best objective
    divided by alpha.

    Parameters
    ----------
    n_replay : int, default=1024
        Number of trajectories to keep. Each update adds its batch, and learns from it and from as many old ones.
    log_z_rate : float, default=0.1
        Share of the mean imbalance by which an update moves log Z.

    References
    ----------
    Venkatraman et al. (2024), "Amortizing intractable inference in diffusion models for vision, language, and
    control", equation (8); Malkin et al. (2022), "Trajectory balance", for log Z.
    """

    def __init__(self, *, n_replay: int = 1024, log_z_rate: float = 0.1) -> None:
        self.n_replay = n_replay
        self.log_z_rate = log_z_rate

    def check(self, model: DiffusionModel) -> None:
        check_count(self, "n_replay", minimum=0)
        check_positive(self, "log_z_rate")

    def setup(self, problem: Problem) -> TrajectoryBalanceSolver:
        super().setup(problem)
        self.log_z: Tensor | None = None
        self.replay: Trajectories | None = None
        return self

    def update(self, i: int) -> dict[str, float]:
        """Learn from a fresh batch of trajectories and from old ones."""
        problem = self.problem
        generator = self.generator(i)
        fresh = self._draw(generator)
        batch = fresh
        if self.replay is not None:
            old = self.replay.at(torch.randint(len(self.replay.reward), (len(fresh.reward),), generator=generator))
            batch = Trajectories(*(torch.cat(parts) for parts in zip(fresh, old, strict=True)))
        n, imbalances = len(batch.reward), []
        if self.log_z is None:
            # Start where the mean imbalance is 0; a poor start of log Z would dominate the first gradients.
            with torch.no_grad():
                self.log_z = -self._imbalance(fresh, torch.zeros(())).mean()
        log_z = self.log_z
        rows_at_once = max(1, 65536 // math.prod(problem.model.state_shape))

        def losses() -> Iterator[Tensor]:
            for rows in torch.arange(n).split(rows_at_once):
                imbalance = self._imbalance(batch.at(rows), log_z)
                imbalances.append(imbalance.detach())
                # Half the square, times alpha: on fresh trajectories the gradient of the objective itself.
                yield 0.5 * problem.alpha * imbalance.square().sum() / n

        self.descend(losses())
        # At the optimum the mean imbalance is 0, so move log Z against it instead of by gradients.
        self.log_z = log_z - self.log_z_rate * torch.cat(imbalances).mean()
        self._remember(fresh)
        return {"lower": float(fresh.reward.mean()), "log Z": float(self.log_z)}

    def _imbalance(self, paths: Trajectories, log_z: Tensor) -> Tensor:
        """The imbalance (n,), whose square is the loss."""
        model, states = self.model, paths.states
        total = log_z - paths.reward / self.problem.alpha
        for t in range(1, model.n_steps + 1):
            total = total + model.policy(states[:, t], t).log_prob(states[:, t - 1]) - paths.log_probs[:, t - 1]
        return total

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> Trajectories:
        """Fresh trajectories of the model."""
        problem = self.problem
        model, pretrained = self.model, self.pretrained
        path = sample_path(model, model.draw_noise(problem.batch_size, generator).to(model.device))
        log_probs = [pretrained.policy(path[t], t).log_prob(path[t - 1]) for t in range(1, model.n_steps + 1)]
        return Trajectories(
            torch.stack(path, dim=1), torch.stack(log_probs, dim=1), problem.reward(model.readout(path[0]))
        )

    def _remember(self, fresh: Trajectories) -> None:
        """Keep the newest `n_replay` trajectories."""
        if self.n_replay == 0:
            return
        old = fresh.at(torch.arange(0)) if self.replay is None else self.replay
        self.replay = Trajectories(*(torch.cat(parts)[-self.n_replay :] for parts in zip(old, fresh, strict=True)))

    def state_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state, log Z and the trajectories kept."""
        tensors = {f"adam.{name}": value for name, value in super().state_tensors().items()}
        if self.log_z is not None:
            tensors["log_z"] = self.log_z
        if self.replay is not None:
            tensors |= {f"replay.{name}": value for name, value in self.replay._asdict().items()}
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state_tensors` gave."""
        parts: dict[str, dict[str, Tensor]] = {"adam": {}, "replay": {}}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = value
        super().load_state_tensors(parts["adam"])
        self.log_z = tensors.get("log_z")
        self.replay = Trajectories(**parts["replay"]) if parts["replay"] else None
