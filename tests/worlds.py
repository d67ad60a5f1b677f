"""Toy worlds whose answers are known, shared by tests and benchmarks."""

import torch
from torch import nn

from braidkit.diffusion import GaussianDiffusion
from braidkit.finetuning import Problem
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
