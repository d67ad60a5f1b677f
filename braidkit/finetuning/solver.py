"""Base of the solvers of the fine-tuning problem: the problem, the optimiser, and a state to resume from."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from braidkit.diffusion import DiffusionModel
from braidkit.diffusion.precision import at_precision
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.processes import Processes


@dataclass(frozen=True)
class Problem:
    """Maximise E[reward(x_0)] - alpha KL(path law of `model` || path law of `pretrained`): equation (6).

    Attributes
    ----------
    model : DiffusionModel
        The chain that the solver changes.
    pretrained : DiffusionModel
    reward : callable
        From points (n, \\*space.shape) to r_hat - g_hat (n,), in standard deviations of y. Solvers with
        `needs_gradient` differentiate it.
    alpha : float
        Weight of the KL, on that scale.
    batch_size : int
        Trajectories per update; each is one call of the reward.
    learning_rate, max_grad_norm : float
        Learning rate of Adam, and the largest norm of the gradient.
    seed : int
        The noise of update i depends on the seed and i alone, so a run that resumes goes on as it would have.
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of the policies' networks in updates; everything else is float32.
    processes : Processes, optional
        The processes that share the trajectories of an update; by default those that a launcher started.
    """

    model: DiffusionModel
    pretrained: DiffusionModel
    reward: Callable[[Tensor], Tensor]
    alpha: float
    batch_size: int
    learning_rate: float
    max_grad_norm: float
    seed: int
    precision: str = "float32"
    processes: Processes = field(default_factory=Processes)


class Solver(BaseEstimator, abc.ABC):
    """One way to solve a `Problem`: options in the constructor, then `setup`, then one `update` after the other.

    `setup` sets ``model`` and ``pretrained``, the problem's chains at its precision, for the policies of updates.

    The options are scikit-learn parameters, so a grid can search over ``solver__truncation``; estimators work on a
    clone. A subclass says how an update is made.
    """

    needs_gradient: ClassVar[bool] = False
    n_updates: ClassVar[int | None] = None  # number of updates that it needs, if that is fixed
    usual_updates: ClassVar[int | None] = None  # default number of updates, if it does not depend on the rows
    n_evaluations: ClassVar[int] = 20  # evaluations in a run, besides that of the pretrained chain
    # Standard deviations by which the judge must find a checkpoint worse to reject it. By default so many that it
    # rejects one of equal checkpoints in 5 % of runs.
    rejects_at: ClassVar[float | None] = None
    # Whether an estimator fits the chain again once its reward has learned from all rows, and the updates that this may
    # take beyond those of the first fit.
    refits: ClassVar[bool] = False
    n_settling: ClassVar[int] = 0
    # Whether the second fit finds anew the alpha at which a limit ended the first.
    finds_alpha_again: ClassVar[bool] = False
    splits_batches: ClassVar[bool] = False  # True if the gradient of a batch is the mean over its parts

    def setup(self, problem: Problem) -> Solver:
        """Take on a problem, with a fresh optimiser.

        Raises
        ------
        IncompatibleModelError
            If this solver cannot work with the problem's chain.
        InvalidParameterError
            If it cannot divide a batch among the processes.
        """
        self.check(problem.model)
        self.check_processes(problem.processes, problem.batch_size)
        self.problem = problem
        self.model = at_precision(problem.model, problem.precision)
        self.pretrained = at_precision(problem.pretrained, problem.precision)
        self.parameters = list(problem.model.trainable.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=problem.learning_rate)
        return self

    def check(self, model: DiffusionModel) -> None:
        """Raise unless this solver can work with a chain, and its own options are in range."""
        return

    def check_processes(self, processes: Processes, batch_size: int) -> None:
        """Raise unless the trajectories of an update can be divided among processes."""
        if processes.count > 1 and not self.splits_batches:
            raise InvalidParameterError(
                f"{type(self).__name__} compares the trajectories of a batch, and cannot divide it among "
                f'{processes.count} processes; pass solver="direct", or start a single process.'
            )
        processes.check_batch_size(batch_size)

    @abc.abstractmethod
    def update(self, i: int) -> dict[str, float]:
        """Do update number `i` (from 0), and return numbers for the progress bar."""

    @property
    def tilt(self) -> float:
        """1 / alpha, of the alpha whose optimum the chain is to have after the updates so far."""
        return 1 / self.problem.alpha

    def own_designs(self) -> tuple[Tensor, float] | None:
        """Designs (n, \\*space.shape) of the optimum that the solver has itself, and their KL; None: ask the chain."""
        return None

    def follow(self, earlier: Solver) -> None:
        """Use what an earlier run found, which had the same chain and another reward; after `setup`."""
        return

    def is_settled(self) -> bool:
        """Whether further updates would change nothing but by chance."""
        return False

    def draw_noise(self, i: int) -> Tensor:
        """The noise of update i's trajectories, this process's share of them."""
        model = self.problem.model
        noise = model.draw_noise(self.problem.batch_size, self.generator(i))
        return self.problem.processes.own_rows(noise).to(model.device)

    def generator(self, i: int) -> torch.Generator:
        """The generator of update i."""
        return torch.Generator().manual_seed(self.problem.seed * 1_000_003 + i)

    def descend(self, losses: Iterable[Tensor]) -> None:
        """One step of Adam on the sum of losses."""
        self.accumulate(losses)
        self.step()

    def accumulate(self, losses: Iterable[Tensor]) -> None:
        """Gradients of the sum of losses; each graph is freed before the next is built."""
        self.optimizer.zero_grad(set_to_none=True)
        for loss in losses:
            loss.backward()

    def step(self) -> None:
        """One step of Adam on the accumulated gradients of all processes."""
        self.problem.processes.average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, self.problem.max_grad_norm)
        self.optimizer.step()

    def state_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state, to resume from."""
        state = self.optimizer.state_dict()["state"]
        return {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `state_tensors` gave."""
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
