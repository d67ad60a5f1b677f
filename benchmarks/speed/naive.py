"""Pretraining, sampling and fine-tuning as one would write them first: the yardstick of this folder's scripts.

The same functions as those of `SimplexDiffusion(head="score")`: convolutions with all their taps, a time embedding a
row, and the score carried to sticks by automatic differentiation in float64. A fine-tuning update has a graph at every
step (cut before the last K), and the pretrained network only where there is gradient; `DirectSolver` at a fixed
truncation adds the KL of one early step.
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


class NaiveChain:
    """A chain's functions by a plain network with the same weights.

    Parameters
    ----------
    chain : SimplexDiffusion
        With head "score".
    """

    def __init__(self, chain: SimplexDiffusion) -> None:
        assert chain.head == "score" and chain.network is not None
        self.chain = chain
        self.network = NaiveNetwork(chain.space.n_letters, **NETWORKS[chain.network_size]).load(chain.network)

    def mean(self, v: Tensor, t: int, step: Tensor) -> Tensor:
        """Mean of the Euler step from sticks v."""
        drift = 0.5 * (1 - (1 + self.chain.law.b) * v)
        return v + step * (drift + v * (1 - v) * self._stick_score(v, self.chain.score_scale[t], self.chain.clock[t]))

    def readout(self, x: Tensor) -> Tensor:
        """The mean of a last step to time 0, as a point."""
        v = x.clamp(EPS, 1 - EPS)
        return break_sticks(self.mean(v, 0, self.chain.times[0] * self.chain.speed).clamp(0, 1))

    def sample_points(self, noise: Tensor) -> Tensor:
        """Points of whole trajectories, as `DiffusionModel.sample_points` has them."""
        x = self.chain.initial(len(noise)).rsample(noise[:, 0])
        for t in range(self.chain.n_steps, 0, -1):
            step = (self.chain.times[t] - self.chain.times[t - 1]) * self.chain.speed
            v = x.clamp(EPS, 1 - EPS)
            x = (self.mean(v, t, step) + (step * v * (1 - v)).sqrt() * noise[:, t]).detach()
        return self.readout(x).detach()

    def loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of pretraining, with a time for each row."""
        chain, n = self.chain, len(x)
        times = torch.multinomial((-chain.clock).softmax(dim=0), n, replacement=True, generator=generator)
        v = chain.noised(x, times, generator).clamp(EPS, 1 - EPS)
        zero, one, *_ = chain.law.evidence(v, times)
        target = x[..., :-1] * one / v - x[..., 1:].flip(-1).cumsum(-1).flip(-1) * zero / (1 - v)
        error = self._stick_score(v, chain.score_scale[times].reshape(-1, 1, 1), chain.clock[times]) - target
        weight = ((1 + chain.score_scale) / chain.score_scale.square())[times, None, None]
        return (weight * chain.speed * error.square() * v * (1 - v)).mean()

    def _stick_score(self, v: Tensor, scale: Tensor, time: Tensor) -> Tensor:
        """The network's score of sticks, less the stationary one."""
        score = self.network(break_sticks(v), time.expand(len(v)))
        return to_sticks(scale * (score - score.mean(dim=-1, keepdim=True)), v)


class NaiveUpdate:
    """One fine-tuning update after the other, with an optimiser of its own."""

    def __init__(self, problem: Problem) -> None:
        assert isinstance(problem.model, SimplexDiffusion) and isinstance(problem.pretrained, SimplexDiffusion)
        self.problem = problem
        self.model, self.pretrained = NaiveChain(problem.model), NaiveChain(problem.pretrained)
        self.pretrained.network.requires_grad_(False)
        self.networks = [self.model.network, self.pretrained.network]
        self.optimizer = torch.optim.Adam(self.model.network.parameters(), lr=problem.learning_rate)

    def update(self, noise: Tensor, n_grad_steps: int) -> float:
        problem, chain = self.problem, self.model.chain
        x = chain.initial(len(noise)).rsample(noise[:, 0])
        kl = torch.zeros(len(noise))
        for t in range(chain.n_steps, 0, -1):
            step = (chain.times[t] - chain.times[t - 1]) * chain.speed
            v = x.clamp(EPS, 1 - EPS)
            mean, std = self.model.mean(v, t, step), (step * v * (1 - v)).sqrt()
            if t <= n_grad_steps:
                kl = kl + ((mean - self.pretrained.mean(v, t, step)).square() / (2 * std.square())).sum((1, 2))
            x = mean + std * noise[:, t]
            if t > n_grad_steps:
                x = x.detach()
        reward = problem.reward(self.pretrained.readout(x))
        self.optimizer.zero_grad()
        (problem.alpha * kl - reward).mean().backward()
        nn.utils.clip_grad_norm_(self.model.network.parameters(), problem.max_grad_norm)
        self.optimizer.step()
        return float(reward.detach().mean())


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
