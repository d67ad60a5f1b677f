"""Run a chain with its pretrained twin alongside: designs, and the KL between the two laws of the path."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel, Policy


class Path(NamedTuple):
    """Where a rollout ended.

    Attributes
    ----------
    point : Tensor of shape (n, \\*space.shape)
        The designs, not yet discretised.
    kl : Tensor of shape (n,)
        Nats. The sum over steps of KL(p_t || p_pre_t) along each path, or an unbiased stand-in for its early part.
    """

    point: Tensor
    kl: Tensor


def rollout(
    model: DiffusionModel,
    pretrained: DiffusionModel,
    noise: Tensor,
    n_grad_steps: int | None = None,
    prefix_step: int | None = None,
) -> Path:
    """Sample from a fine-tuned chain, summing the per-step KL to the pretrained one (BRAID, equation 6).

    Parameters
    ----------
    model, pretrained : DiffusionModel
    noise : Tensor of shape (n, n_steps + 1, \\*state_shape)
        From `DiffusionModel.draw_noise`.
    n_grad_steps : int, optional
        The last steps, which carry gradient through the states; all of them by default. The steps before build no
        graph.
    prefix_step : int, optional
        One of the steps before, n_grad_steps < prefix_step <= n_steps. Its KL at the state reached, times their
        number, stands for all of them: it holds the shared weights where no gradient flows through the states. Without
        it the KL counts the last steps only.

    Returns
    -------
    path : Path
    """
    n_steps = model.n_steps
    n_grad_steps = n_steps if n_grad_steps is None else n_grad_steps
    x = model.initial(len(noise)).rsample(noise[:, 0])
    kl = torch.zeros(len(noise), device=noise.device)
    for t in range(n_steps, 0, -1):
        if t > n_grad_steps:
            if t == prefix_step:
                # x carries no gradient for either policy: detaching it for one of them alone inflates this gradient.
                local = model.policy(x, t).kl(without_gradient(pretrained, x, t))
                kl = kl + (n_steps - n_grad_steps) * local
            x = without_gradient(model, x, t).rsample(noise[:, t])
        else:
            policy = model.policy(x, t)
            kl = kl + policy.kl(pretrained.policy(x, t))
            x = policy.rsample(noise[:, t])
    return Path(model.readout(x), kl)


@torch.no_grad()
def without_gradient(model: DiffusionModel, x: Tensor, t: int) -> Policy:
    """The policy at x, outside any graph."""
    return model.policy(x, t)


@torch.no_grad()
def evaluate(model: DiffusionModel, pretrained: DiffusionModel, noise: Tensor, batch_size: int = 256) -> Path:
    """Sample designs and the exact path KL over all steps, without gradient, in batches."""
    paths = [rollout(model, pretrained, chunk.to(model.device)) for chunk in noise.split(batch_size)]
    return Path(torch.cat([path.point for path in paths]), torch.cat([path.kl for path in paths]))
