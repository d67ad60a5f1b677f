"""What fine-tuning of a simplex chain can reach with few steps: independent letters, whose optimum is closed.

    PYTHONPATH=. python benchmarks/exactness.py --few-steps

Letters have the probabilities 0.4, 0.3, 0.2, 0.1, the exact network, and a reward of two alpha for the third. "fixed
deviations" is what the best means can reach from every state while the deviations of the steps stay: no fine-tuning of
this chain does better. It is exact to about 0.01 of the share, by `theory.AngleChain`, and there for bridges alone,
whose deviations do not depend on the state. "one tilt a step" is what a network reaches that adds one number a step to
the logit of the rewarded letter, trained by gradient and measured on fresh letters.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.theory import AngleChain, letters_optimum

PROBABILITIES = torch.tensor([0.4, 0.3, 0.2, 0.1])
LETTER, REWARD = 2, 2.0  # the letter that is rewarded, and its reward over alpha
LENGTH = 64  # independent positions of a row


class TiltedLetters(nn.Module):
    """The exact network of independent letters, and a tilt of one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(PROBABILITIES.log())
        self.tilt: Tensor | float = 0.0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Log-probabilities (n, L, K), tilted by a number."""
        return (self.logits + self.tilt * nn.functional.one_hot(torch.tensor(LETTER), 4)).expand_as(x)


def chain_of(scheme: str, n_steps: int, length: int) -> SimplexDiffusion:
    """The chain of the exact network."""
    chain = SimplexDiffusion(SequenceSpace("DNA", length), n_steps=n_steps, scheme=scheme)
    chain.network = TiltedLetters()
    return chain.freeze()


def fixed_deviations(n_steps: int) -> tuple[float, float]:
    """Gain of the optimum and of the best fixed deviations over the pretrained chain, nats a letter."""
    chain = chain_of("bridge", n_steps, 1)
    position = torch.zeros(1, *chain.state_shape)
    std = torch.stack([chain.policy(position, t).normal.std.reshape(-1) for t in range(1, n_steps + 1)])
    # Gauss-Legendre in the initial sticks' probabilities, each stick being Beta(1, b).
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(12))
    sticks = [(1 - ((1 - nodes) / 2) ** (1 / b)).sqrt().asin() for b in chain.law.b.double().flatten()]
    angles = AngleChain(
        lambda theta, t: chain.policy(theta.float()[:, None], t).normal.mean[:, 0],
        std,
        torch.cartesian_prod(*sticks),
        torch.cartesian_prod(*[weights / 2] * len(sticks)).prod(dim=1),
        n_modes=12,
    )

    def reward(theta: Tensor) -> Tensor:
        return REWARD * (chain.readout(theta.float()[:, None])[:, 0].argmax(dim=-1) == LETTER)

    with torch.no_grad():
        pretrained = angles.value(reward, 1.0)
        optimum, best = angles.soft_value(reward, 1.0), angles.best_fixed_std(reward, 1.0, n_iter=8)
    return float(optimum - pretrained), float(best - pretrained)


def rollout(chain: SimplexDiffusion, tilts: Tensor, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Last states of n rows under tilts (T,), and the mean KL of a letter."""
    x = chain.initial(n).rsample(torch.randn(n, *chain.state_shape, generator=generator))
    kl = torch.zeros(())
    for t in range(chain.n_steps, 0, -1):
        chain.network.tilt = 0.0
        pretrained = chain.policy(x, t)
        chain.network.tilt = tilts[t - 1]
        policy = chain.policy(x, t)
        kl = kl + policy.kl(pretrained).mean() / LENGTH
        x = policy.rsample(torch.randn(x.shape, generator=generator))
    chain.network.tilt = 0.0
    return x, kl


def one_tilt_a_step(scheme: str, n_steps: int, n_updates: int = 30, seed: int = 0) -> float:
    """Gain of the best tilts over the pretrained letters' mean, nats a letter."""
    chain, generator = chain_of(scheme, n_steps, LENGTH), torch.Generator().manual_seed(seed)
    tilts = torch.full((n_steps,), REWARD).requires_grad_()
    optimizer = torch.optim.Adam([tilts], lr=0.1)
    for update in range(n_updates):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - update / n_updates)
        x, kl = rollout(chain, tilts, 32, generator)
        optimizer.zero_grad()
        (kl - REWARD * chain.readout(x)[..., LETTER].mean()).backward()
        optimizer.step()
    with torch.no_grad():
        x, kl = rollout(chain, tilts, 1000, generator)
        share = (chain.readout(x).argmax(dim=-1) == LETTER).double().mean()
    return float(REWARD * (share - PROBABILITIES[LETTER]) - kl)


def few_steps() -> pd.DataFrame:
    """The table: a row for each chain."""
    rewards = REWARD * nn.functional.one_hot(torch.tensor(LETTER), 4)
    gain = float(letters_optimum(PROBABILITIES, rewards, 1.0).gain)
    rows = []
    for n_steps in (10, 25, 50, 100):
        start = time.process_time()
        optimum, best = fixed_deviations(n_steps)
        rows.append(
            ("bridge", n_steps, "fixed deviations", best / optimum, optimum - best, time.process_time() - start)
        )
    for scheme, n_steps in (("bridge", 25), ("euler", 50)):
        start = time.process_time()
        reached = one_tilt_a_step(scheme, n_steps)
        seconds = time.process_time() - start
        rows.append((scheme, n_steps, "one tilt a step", reached / gain, gain - reached, seconds))
    columns = ["steps", "number", "what is free", "share of the gain", "short, nats a letter", "seconds"]
    return pd.DataFrame(rows, columns=columns)
