"""The policy gradient, for rewards that only give numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel, Policy, sample_path
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.rollout import policy_without_gradient
from braidkit.finetuning.solver import Problem, Solver
from braidkit.parameters import check_count, check_positive


class PolicyGradientSolver(Solver):
    """Ascend the objective (6) by the likelihood-ratio gradient of each step, as PPO does.

    It works with any chain, and the reward need not be differentiable. The return of a step is the reward minus alpha
    times the KL of the steps after it; its mean over the other trajectories of the batch is subtracted. The KL of the
    step itself is exact and is differentiated directly. Each batch of trajectories is used for several steps of Adam,
    with clipped likelihood ratios.

    Parameters
    ----------
    n_epochs : int, default=4
        Steps of Adam on one batch of trajectories.
    clip : float, default=0.2
        Likelihood ratios outside 1 - clip to 1 + clip bring no further gain.

    References
    ----------
    Schulman et al. (2017), "Proximal policy optimization", equation (7). Black et al. (2024), "Training diffusion
    models with reinforcement learning", and Fan et al. (2023), "DPOK", for the KL of each step.
    """

    def __init__(self, *, n_epochs: int = 4, clip: float = 0.2) -> None:
        self.n_epochs = n_epochs
        self.clip = clip

    def check(self, model: DiffusionModel) -> None:
        check_count(self, "n_epochs")
        check_positive(self, "clip")

    def setup(self, problem: Problem) -> PolicyGradientSolver:
        if problem.batch_size < 2:
            raise InvalidParameterError(
                f"the policy gradient compares trajectories: batch_size must be at least 2; got {problem.batch_size}."
            )
        super().setup(problem)
        return self

    def update(self, i: int) -> dict[str, float]:
        """Draw a batch of trajectories, and do several steps of Adam on it."""
        problem = self.problem
        path = sample_path(self.model, self.draw_noise(i))
        reference, log_probs, kl = self._look_back(path)
        with torch.no_grad():
            reward = problem.reward(problem.model.readout(path[0]))
        # Entry t - 1 is the part of (6) that depends on the draw of x_{t-1}: the reward, and the KL of the steps
        # t - 1, ..., 1. The KL of step t is a function of x_t, and is added to the loss below.
        returns = reward - problem.alpha * (kl.cumsum(dim=0) - kl)
        # Subtract the mean over the *other* trajectories: with its own return in the mean, a trajectory's gradient
        # would be too small by the factor (n - 1) / n.
        n = len(reward)
        advantage = (returns - returns.mean(dim=1, keepdim=True)) * n / (n - 1)

        def losses() -> Iterator[Tensor]:
            for t in range(1, problem.model.n_steps + 1):
                policy = self.model.policy(path[t], t)
                ratio = (policy.log_prob(path[t - 1]) - log_probs[t - 1]).exp()
                gain = advantage[t - 1] * ratio
                clipped = advantage[t - 1] * ratio.clamp(1 - self.clip, 1 + self.clip)
                yield -(torch.minimum(gain, clipped) - problem.alpha * policy.kl(reference[t - 1])).mean()

        for _ in range(self.n_epochs):
            self.descend(losses())
        return {"lower": float(reward.mean())}

    @torch.no_grad()
    def _look_back(self, path: list[Tensor]) -> tuple[list[Policy], Tensor, Tensor]:
        """Pretrained policies along a path, and the model's log-probabilities and KL, (n_steps, n); item t - 1 is t."""
        model, pretrained = self.model, self.pretrained
        reference, log_probs, kl = [], [], []
        for t in range(1, model.n_steps + 1):
            policy = model.policy(path[t], t)
            reference.append(policy_without_gradient(pretrained, path[t], t))
            log_probs.append(policy.log_prob(path[t - 1]))
            kl.append(policy.kl(reference[-1]))
        return reference, torch.stack(log_probs), torch.stack(kl)
