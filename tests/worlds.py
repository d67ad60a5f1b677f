"""Toy worlds whose answers are known, shared by tests and benchmarks."""

import math

import torch
from torch import nn

from braidkit.diffusion import (
    Choice,
    Conditioned,
    Fixed,
    Gaussian,
    GaussianDiffusion,
    MaskedDiffusion,
    split_context,
)
from braidkit.finetuning import Problem
from braidkit.networks import Adapter, Shared
from braidkit.spaces import VectorSpace


class ExactVelocity(nn.Module):
    """The best velocity for standard normal data, which is zero: x and the noise cancel on average."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x, angle):
        return torch.zeros_like(x) + self.shift


class IndependentLetters(nn.Module):
    """The exact network of a `SimplexDiffusion` of independent letters: their log-probabilities, whatever is seen."""

    def __init__(self, probabilities):
        super().__init__()
        self.logits = nn.Parameter(probabilities.log())

    def forward(self, x, t):
        return self.logits.expand_as(x)


class LowRankLinear(nn.Linear):
    """A linear layer with an adapter of low rank built in, which does nothing at first."""

    def __init__(self, n_in, n_out, rank):
        super().__init__(n_in, n_out)
        self.down = nn.Parameter(torch.randn(rank, n_in) / n_in**0.5)
        self.up = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.up.T


class Backbone(nn.Module):
    """A stand-in for a large pretrained network of letters."""

    def __init__(self, length, n_letters, width, depth, rank):
        super().__init__()
        self.first = nn.Linear(length * n_letters, width)
        self.layers = nn.ModuleList(LowRankLinear(width, width, rank) for _ in range(depth))
        self.last = nn.Linear(width, length * n_letters)

    def forward(self, x):
        h = self.first(x.flatten(1))
        for layer in self.layers:
            h = h + nn.functional.silu(layer(h))
        return self.last(h).reshape(x.shape)


class AdaptedLetters(MaskedDiffusion):
    """A masked chain on a frozen backbone that all copies share; fine-tuning changes an adapter of low rank alone."""

    def __init__(self, space, *, n_steps=None, seed=0, width=16, depth=2, rank=8):
        super().__init__(space, n_steps=n_steps)
        self.settings = {"seed": seed, "width": width, "depth": depth, "rank": rank}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.backbone = Shared(Backbone(*space.shape, width, depth, rank))

    def _build_network(self, n_conditions=0):
        names = [name for name, _ in self.backbone.module.named_parameters() if name.endswith((".down", ".up"))]
        return Adapter(self.backbone, names)

    def _config(self):
        return {"n_steps": self.n_steps, **self.settings}


class TargetedDiffusion(GaussianDiffusion):
    """Normal designs around a target that each trajectory is given: N(target, I), for targets -4, 0 and 4.

    The chain of the noised x_t - cos(phi_t) target is that of standard normal data.
    """

    targets = (-4.0, 0.0, 4.0)

    @property
    def state_shape(self):
        return (self.space.n_features + 1,)

    def initial(self, n):
        inner = Gaussian(torch.zeros(n, *self.space.shape), torch.ones(()))
        return Conditioned(inner, Choice(torch.tensor(self.targets)[:, None]), self.space.shape)

    def policy(self, x_t, t):
        x, target = split_context(x_t, self.space.shape)
        law = super().policy(x - math.cos(self._angles[t]) * target, t)
        law = Gaussian(law.mean + math.cos(self._angles[t - 1]) * target, law.std)
        return Conditioned(law, Fixed(target), self.space.shape)

    def denoise(self, x_t, t):
        if x_t.shape[1:] == self.space.shape:  # as the policy of the shifted chain asks
            return super().denoise(x_t, t)
        x, target = split_context(x_t, self.space.shape)
        return target + super().denoise(x - math.cos(self._angles[t]) * target, t)

    def readout(self, x_0):
        return split_context(x_0, self.space.shape)[0]

    def as_points(self, x_t, t):
        return split_context(x_t, self.space.shape)[0]

    def noised(self, x, t, generator):
        target = torch.tensor(self.targets)[torch.randint(3, (len(x), 1), generator=generator)]
        return torch.cat([super().noised(x, t, generator), target], dim=1)


def targeted_chain(n_features=2, n_steps=6):
    """The exact chain of normal designs around targets, with a network that can learn."""
    chain = TargetedDiffusion.standard_normal(n_features, n_steps=n_steps, n_hidden=32)
    chain.kind = "vectors"
    return chain


def exact_chain(n_features=1, n_steps=20):
    """The exact chain of standard normal data: velocity 0, whose mean squared error is 1 at every level."""
    model = GaussianDiffusion(VectorSpace(n_features), n_steps=n_steps)
    model.network = ExactVelocity()
    model.velocity_error.fill_(1.0)
    return model.freeze()


def normal_chain(n_features=1, n_steps=20):
    """The exact chain of standard normal data, with a network that can learn."""
    return GaussianDiffusion.standard_normal(n_features, n_steps=n_steps)


def untrained(chain, seed=0):
    """A chain with the random weights of a network that has seen nothing, frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chain.network = chain._build_network()
    return chain.freeze()


def problem_on(pretrained, reward, **changes):
    """A problem at alpha 1 with settings that suit these chains."""
    settings = {"alpha": 1.0, "batch_size": 64, "learning_rate": 0.01, "max_grad_norm": 1.0, "seed": 0}
    return Problem(pretrained.trainable_copy(), pretrained, reward, **(settings | changes))


def moved(pretrained, by=0.05):
    """A trainable copy whose weights are elsewhere."""
    model = pretrained.trainable_copy()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.trainable.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return model
