"""Direct back-propagation: Algorithm 2 of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from braidkit.diffusion import DiffusionModel
from braidkit.finetuning.rollout import rollout


class DirectSolver:
    """Ascend the objective (6) by its pathwise gradient, through the last K steps of the chain.

    With ``truncation="random"``, K is drawn uniformly from 1 to n_steps once for each update, and each step's part of
    the gradient is divided by the probability that the step is among the last K: the gradient is that of the full chain
    on average, at half the cost. With a fixed K it is biased: the first steps see no reward, only the KL of one of
    them, drawn uniformly.

    Parameters
    ----------
    model : DiffusionModel
        Whose network is changed.
    pretrained : DiffusionModel
    reward : callable
        From points (n, \\*space.shape) to r_hat - g_hat (n,), in standard deviations of y; differentiable.
    alpha : float
        Weight of the KL, on that scale.
    batch_size : int
        Trajectories an update.
    truncation : int or "random"
    learning_rate, max_grad_norm : float
    seed : int
        The noise of update i depends on the seed and i alone, so a run that resumes goes on as it would have.
    rows_at_once : int, optional
        Trajectories that are in memory together; gradients add up over the batch, so it does not change the result. By
        default as many as keep the states of a step to some thousand numbers, at which processors are already busy.

    References
    ----------
    BRAID (Uehara et al., 2024), Algorithm 2 (page 18; its loss (10) is to be ascended) and equation (6). Truncation:
    Prabhudesai et al. (2023), "AlignProp".
    """

    def __init__(
        self,
        model: DiffusionModel,
        pretrained: DiffusionModel,
        reward: Callable[[Tensor], Tensor],
        *,
        alpha: float,
        batch_size: int,
        truncation: int | str,
        learning_rate: float,
        max_grad_norm: float,
        seed: int,
        rows_at_once: int | None = None,
    ) -> None:
        self.model = model
        self.pretrained = pretrained
        self.reward = reward
        self.alpha = alpha
        self.batch_size = batch_size
        self.truncation = truncation
        self.max_grad_norm = max_grad_norm
        self.seed = seed
        self.rows_at_once = rows_at_once or max(1, 8192 // math.prod(model.state_shape))
        assert model.network is not None
        self.parameters = list(model.network.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=learning_rate)

    def update(self, i: int) -> dict[str, float]:
        """One step of Algorithm 2 on fresh trajectories."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + i)
        truncation = self._draw_truncation(generator)
        noise = self.model.draw_noise(self.batch_size, generator).to(self.model.device)
        self.optimizer.zero_grad(set_to_none=True)
        lower = 0.0
        for chunk in noise.split(self.rows_at_once):
            path = rollout(self.model, self.pretrained, chunk, **truncation)
            reward = self.reward(path.point)
            loss = -(reward - self.alpha * path.kl).sum() / self.batch_size
            loss.backward()
            lower += float(reward.detach().sum()) / self.batch_size
        nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimizer.step()
        return {"lower": lower}

    def _draw_truncation(self, generator: torch.Generator) -> dict[str, Any]:
        """Which steps carry gradient in this update, and what makes up for the others: arguments of `rollout`."""
        n_steps = self.model.n_steps
        if self.truncation == "random":
            n_grad_steps = int(torch.randint(1, n_steps + 1, (), generator=generator))
            return {"n_grad_steps": n_grad_steps, "weight": lambda t: n_steps / (n_steps - t + 1)}
        n_grad_steps = min(int(self.truncation), n_steps)
        if n_grad_steps == n_steps:
            return {"n_grad_steps": n_steps}
        prefix_step = int(torch.randint(n_grad_steps + 1, n_steps + 1, (), generator=generator))
        return {"n_grad_steps": n_grad_steps, "prefix_step": prefix_step}

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
