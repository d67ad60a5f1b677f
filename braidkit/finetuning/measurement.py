"""The designs of a checkpoint, and what reward, judge and KL are of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from braidkit.finetuning.contracts import ConservativeReward, Judge, standardised
from braidkit.finetuning.rollout import sample_with_kl
from braidkit.finetuning.solver import Problem


class Evaluation(NamedTuple):
    """What is known of a checkpoint.

    Attributes
    ----------
    n_done : int
        Updates done.
    designs : Tensor of shape (n, \\*space.shape)
    objective : float
        Equation (6), for y of mean 0 and deviation 1.
    judged : float
        The judge's average on that scale, by its own mean and deviation of y.
    figures : dict of str to float
        The averages that people read, in y's units; the KL in nats.
    """

    n_done: int
    designs: Tensor
    objective: float
    judged: float
    figures: dict[str, float]


class Measurement:
    """Evaluate the chain of a problem as it is.

    Parameters
    ----------
    problem : Problem
    reward : ConservativeReward
    judge : Judge
        Never optimised.
    climbs : {"lower", "mean"}
        What of the reward the objective has.
    noise : Tensor
        Of the designs to evaluate: the same at each evaluation, so that weights differ and luck does not.
    """

    def __init__(self, problem: Problem, reward: ConservativeReward, judge: Judge, climbs: str, noise: Tensor) -> None:
        self.problem = problem
        self.reward = reward
        self.judge = judge
        self.climbs = climbs
        self.noise = noise

    @torch.no_grad()
    def __call__(self, n_done: int) -> Evaluation:
        model, pretrained = self.problem.model, self.problem.pretrained
        path = sample_with_kl(model, pretrained, self.noise)
        designs, kl = model.space.discretise(path.point), path.kl.mean().item()
        mean, penalty = (part.mean().item() for part in standardised(self.reward, designs))
        judged = self.judge.standardised(designs)[0].mean().item()
        aim = mean - penalty if self.climbs == "lower" else mean
        origin, scale = self.reward.y_mean_, self.reward.y_std_
        figures = {
            "mean": origin + scale * mean,
            "lower": origin + scale * (mean - penalty),
            "penalty": scale * penalty,
            "kl": kl,
            "judge": self.judge.y_mean_ + self.judge.y_std_ * judged,
        }
        return Evaluation(n_done, designs, aim - self.problem.alpha * kl, judged, figures)
