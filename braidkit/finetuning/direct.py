"""Direct back-propagation: Algorithm 2 of the paper."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.rollout import graph_bytes, reward_bytes, rollout
from braidkit.finetuning.solver import Problem, Solver
from braidkit.parameters import check_choice, check_count

# Most memory for graphs at a time on a CPU. With fewer trajectories at once an update is slower.
GRAPH_BYTES = 4 * 2**30
CHECKPOINTED_BYTES = 2**27


class DirectSolver(Solver):
    """Ascend the objective (6) by its pathwise gradient, through the last K steps of the chain.

    With ``truncation="random"``, K is drawn uniformly from 1 to n_steps for each update. Each step's part of the
    gradient is divided by the probability that the step is among the last K. Before clipping, the gradient is therefore
    that of the full chain on average, at half the cost. With a fixed K the gradient is biased: the first steps see no
    reward, only the KL of one of them, drawn uniformly.

    On chains of letters a draw's gradient is straight-through, which is biased for any truncation.

    Parameters
    ----------
    truncation : int or "random", default="random"
        Steps at the end of the chain that carry gradient. "random" draws their number uniformly for each update.
    rows_at_once : int, optional
        Trajectories that are in memory together. Gradients add up over the batch, so this does not change the result.
        The default on a CPU is as many as have graphs of 4 GiB in all (128 MiB with `checkpointing`), readout and
        reward included; on a GPU it is the whole batch. If a GPU's memory is too small, their number is halved, with a
        warning.
    checkpointing : bool, default=False
        Run each step's networks again in the backward pass instead of keeping their graphs. Memory is then that of one
        network at one step, for any K, and each step with gradient costs one more forward pass of both networks.
    kl_steps : {"all", "one"}, default="all"
        Steps with gradient whose KL is computed. With "one", one step is drawn uniformly for each update, and its KL
        estimates that of all. The gradient is the same on average but noisier, and the pretrained network runs once.

    References
    ----------
    BRAID (Uehara et al., 2024), Algorithm 2 (page 18; its loss (10) is to be ascended) and equation (6). Truncation:
    Prabhudesai et al. (2023), "AlignProp".
    """

    needs_gradient: ClassVar[bool] = True
    splits_batches: ClassVar[bool] = True

    def __init__(
        self,
        truncation: int | str = "random",
        *,
        rows_at_once: int | None = None,
        checkpointing: bool = False,
        kl_steps: str = "all",
    ) -> None:
        self.truncation = truncation
        self.rows_at_once = rows_at_once
        self.checkpointing = checkpointing
        self.kl_steps = kl_steps

    def check(self, model: DiffusionModel) -> None:
        if self.truncation != "random":
            check_count(self, "truncation")
        if self.rows_at_once is not None:
            check_count(self, "rows_at_once")
        if not isinstance(self.checkpointing, bool):
            raise InvalidParameterError(f"checkpointing must be True or False; got {self.checkpointing!r}.")
        check_choice("kl_steps", self.kl_steps, ("all", "one"))

    def setup(self, problem: Problem) -> DirectSolver:
        super().setup(problem)
        self._most_rows = self.rows_at_once or problem.batch_size
        measured = self.rows_at_once is None and problem.model.device.type == "cpu"
        self._step_bytes = graph_bytes(self.model, self.pretrained) if measured else 0
        self._reward_bytes = reward_bytes(self.model, problem.reward) if measured else 0
        return self

    def update(self, i: int) -> dict[str, float]:
        """One step of Algorithm 2 on fresh trajectories."""
        problem, lower = self.problem, 0.0
        noise, steps = self.draw_noise(i), self._draw_steps(self.generator(i))
        rows = self._rows_at_once(steps["n_grad_steps"])

        def losses() -> Iterator[Tensor]:
            nonlocal lower
            lower = 0.0
            for chunk in noise.chunk(math.ceil(len(noise) / rows)):
                path = rollout(self.model, self.pretrained, chunk, checkpointing=self.checkpointing, **steps)
                reward = problem.reward(path.point)
                lower += float(reward.detach().sum()) / len(noise)
                # Equation (6), negative because Adam descends; the KL is that of equation (10).
                yield -(reward - problem.alpha * path.kl).sum() / len(noise)

        while True:
            try:
                self.accumulate(losses())
                break
            except torch.OutOfMemoryError as error:
                if rows == 1:
                    error.add_note("A single trajectory is too much: pass solver=DirectSolver(checkpointing=True).")
                    raise
            rows = self._most_rows = math.ceil(min(rows, len(noise)) / 2)
            warnings.warn(
                f"out of memory: {rows} trajectories at once from here on; gradients add up as before.",
                stacklevel=2,
            )
        self.step()
        return {"lower": lower}

    def _rows_at_once(self, n_grad_steps: int) -> int:
        """Number of trajectories whose graphs fit into memory together, given the number of steps with gradient."""
        if self.checkpointing:  # the steps' graphs come after the reward's is freed
            budget, each = CHECKPOINTED_BYTES, max(self._step_bytes, self._reward_bytes)
        else:
            budget, each = GRAPH_BYTES, n_grad_steps * self._step_bytes + self._reward_bytes
        return max(1, min(self._most_rows, budget // each)) if each else self._most_rows

    def _draw_steps(self, generator: torch.Generator) -> dict[str, Any]:
        """Arguments of `rollout`: those of `_draw_truncation`, and the step whose KL is computed if it is one."""
        drawn = self._draw_truncation(generator)
        if self.kl_steps == "all":
            return drawn
        return drawn | {"kl_step": int(torch.randint(1, drawn["n_grad_steps"] + 1, (), generator=generator))}

    def _draw_truncation(self, generator: torch.Generator) -> dict[str, Any]:
        """Arguments of `rollout`: which steps carry gradient in this update, and the correction for the others."""
        n_steps = self.problem.model.n_steps
        if self.truncation == "random":
            # K is uniform on 1, ..., n_steps, so step t is among the last K with probability (n_steps - t + 1) /
            # n_steps.
            n_grad_steps = int(torch.randint(1, n_steps + 1, (), generator=generator))
            return {"n_grad_steps": n_grad_steps, "weight": lambda t: n_steps / (n_steps - t + 1)}
        n_grad_steps = min(int(self.truncation), n_steps)
        if n_grad_steps == n_steps:
            return {"n_grad_steps": n_steps}
        # The other steps use the same weights, and would drift without a KL of their own.
        prefix_step = int(torch.randint(n_grad_steps + 1, n_steps + 1, (), generator=generator))
        return {"n_grad_steps": n_grad_steps, "prefix_step": prefix_step}
