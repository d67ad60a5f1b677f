"""The fine-tuning update as one would write it first: the yardstick of ``update.py``.

The same function as `SimplexDiffusion(head="score")` under `DirectSolver`, but for the one early step whose KL the
latter adds at a fixed truncation: convolutions with all their taps, a time embedding a row, the score carried to sticks
by automatic differentiation in float64, a graph at every step (cut before the last K), and the pretrained network only
where there is gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from braidkit.diffusion.simplex import EPS, NETWORKS, SimplexDiffusion
from braidkit.finetuning import Problem
from braidkit.networks.time_embedding import TimeEmbedding


class NaiveBlock(nn.Module):
    """A residual block on channels-first features."""

    def __init__(self, width: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.shift = nn.Linear(width, width)
        self.norm = nn.GroupNorm(1, width)
        self.conv = nn.Conv1d(
            width, width, kernel_size, dilation=dilation, padding=kernel_size // 2 * dilation, padding_mode="zeros"
        )

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return h + nn.functional.silu(self.conv(self.norm(h + self.shift(embedding)[:, :, None])))


class NaiveNetwork(nn.Module):
    """The network of `SimplexDiffusion`, with the same names of weights."""

    def __init__(
        self, n_letters: int, *, width: int, kernel_size: int, dilations: tuple[int, ...], time_scale: float
    ) -> None:
        super().__init__()
        self.time = TimeEmbedding(width, time_scale)
        self.first = nn.Conv1d(n_letters, width, kernel_size, padding=kernel_size // 2)
        self.blocks = nn.ModuleList(NaiveBlock(width, kernel_size, dilation) for dilation in dilations)
        self.last = nn.Sequential(nn.Conv1d(width, width, 1), nn.GELU(), nn.Conv1d(width, n_letters, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = self.time(t)
        h = nn.functional.silu(self.first(x.permute(0, 2, 1)))
        for block in self.blocks:
            h = block(h, embedding)
        return self.last(h).permute(0, 2, 1)

    def load(self, network: nn.Module) -> NaiveNetwork:
        """Take over the weights of the library's network."""
        weights = network.state_dict()
        for name in ("last.0.weight", "last.2.weight"):
            weights[name] = weights[name][:, :, None]
        self.load_state_dict(weights)
        return self


class NaiveUpdate:
    """One update after the other, with an optimiser of its own."""

    def __init__(self, problem: Problem) -> None:
        assert isinstance(problem.model, SimplexDiffusion) and problem.model.head == "score"
        self.problem = problem
        self.chain = problem.model
        settings = NETWORKS[self.chain.network_size]
        n_letters = self.chain.space.n_letters
        self.network = NaiveNetwork(n_letters, **settings).load(problem.model.network)
        self.pretrained = NaiveNetwork(n_letters, **settings).load(problem.pretrained.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=problem.learning_rate)

    def update(self, noise: Tensor, n_grad_steps: int) -> float:
        problem, chain = self.problem, self.chain
        x = chain.initial(len(noise)).rsample(noise[:, 0])
        kl = torch.zeros(len(noise))
        for t in range(chain.n_steps, 0, -1):
            step = (chain.times[t] - chain.times[t - 1]) * chain.speed
            v = x.clamp(EPS, 1 - EPS)
            mean, std = self._mean(self.network, v, t, step), (step * v * (1 - v)).sqrt()
            if t <= n_grad_steps:
                kl = kl + ((mean - self._mean(self.pretrained, v, t, step)).square() / (2 * std.square())).sum((1, 2))
            x = mean + std * noise[:, t]
            if t > n_grad_steps:
                x = x.detach()
        v = x.clamp(EPS, 1 - EPS)
        point = break_sticks(self._mean(self.pretrained, v, 0, chain.times[0] * chain.speed).clamp(0, 1))
        reward = problem.reward(point)
        self.optimizer.zero_grad()
        (problem.alpha * kl - reward).mean().backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), problem.max_grad_norm)
        self.optimizer.step()
        return float(reward.detach().mean())

    def _mean(self, network: nn.Module, v: Tensor, t: int, step: Tensor) -> Tensor:
        """Mean of the Euler step from sticks v."""
        score = network(break_sticks(v), self.chain.clock[t].expand(len(v)))
        score = self.chain.score_scale[t] * (score - score.mean(dim=-1, keepdim=True))
        stick_score = to_sticks(score, v)
        return v + step * (0.5 * (1 - (1 + self.chain.law.b) * v) + v * (1 - v) * stick_score)


def break_sticks(v: Tensor) -> Tensor:
    """Points (n, L, K) of the simplex for sticks (n, L, K - 1)."""
    left = (1 - v).cumprod(dim=-1)
    return torch.cat([v[..., :1], v[..., 1:] * left[..., :-1], left[..., -1:]], dim=-1)


def to_sticks(score: Tensor, v: Tensor) -> Tensor:
    """The score in sticks of a score in points: the chain rule, by automatic differentiation in float64."""
    with torch.enable_grad():
        sticks = v.double() if v.requires_grad else v.double().requires_grad_()
        (gradient,) = torch.autograd.grad((break_sticks(sticks) * score.double()).sum(), sticks, create_graph=True)
    return gradient.to(v.dtype)
