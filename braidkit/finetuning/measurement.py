"""Evaluate a checkpoint: draw designs, and compute their reward, judge's score and KL."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from braidkit.finetuning.contracts import ConservativeReward, Judge, standardised
from braidkit.finetuning.rollout import sample_with_kl
from braidkit.finetuning.solver import Problem


class Evaluation(NamedTuple):
    """Results of the evaluation of a checkpoint.

    Attributes
    ----------
    n_done : int
        Updates done.
    designs : Tensor of shape (n, \\*space.shape)
    objective : float
        Equation (6), for y of mean 0 and deviation 1.
    judged : float
        The judge's average, standardised by the judge's own mean and deviation of y.
    figures : dict of str to float
        The averages that the history shows, in y's units; the KL in nats.
    """

    n_done: int
    designs: Tensor
    objective: float
    judged: float
    figures: dict[str, float]


class Measurement:
    """Evaluate the current chain of a problem.

    Parameters
    ----------
    problem : Problem
    reward : ConservativeReward
    judge : Judge
        Never optimised.
    maximises : {"lower", "mean"}
        Which quantity is maximised: lower bound or mean.
    noise : Tensor
        Noise of the designs. It is the same at each evaluation, so that only the weights make a difference.
    own_designs : callable, optional
        Gives the solver's own designs and their KL, or None where the chain is to draw them.
    """

    def __init__(
        self,
        problem: Problem,
        reward: ConservativeReward,
        judge: Judge,
        maximises: str,
        noise: Tensor,
        own_designs: Callable[[], tuple[Tensor, float] | None] = lambda: None,
    ) -> None:
        self.problem = problem
        self.reward = reward
        self.judge = judge
        self.maximises = maximises
        self.noise = noise
        self.own_designs = own_designs

    @torch.no_grad()
    def __call__(self, n_done: int) -> Evaluation:
        model, pretrained = self.problem.model, self.problem.pretrained
        found = self.own_designs()
        if found is None:
            path = sample_with_kl(model, pretrained, self.noise)
            found = model.space.discretise(path.point), path.kl.mean().item()
        designs, kl = found
        mean, penalty = (part.mean().item() for part in standardised(self.reward, designs))
        judged = self.judge.standardised(designs)[0].mean().item()
        aim = mean - penalty if self.maximises == "lower" else mean
        origin, scale = self.reward.y_mean_, self.reward.y_std_
        figures = {
            "mean": origin + scale * mean,
            "lower": origin + scale * (mean - penalty),
            "penalty": scale * penalty,
            "kl": kl,
            "judge": self.judge.y_mean_ + self.judge.y_std_ * judged,
        }
        return Evaluation(n_done, designs, aim - self.problem.alpha * kl, judged, figures)
