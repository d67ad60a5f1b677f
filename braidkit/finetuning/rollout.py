"""Run a chain with its pretrained twin alongside: designs, and the KL between the two laws of the path."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from braidkit.diffusion import DiffusionModel, Policy, last_state


class Rollout(NamedTuple):
    """Where a rollout ended.

    Attributes
    ----------
    point : Tensor of shape (n, \\*space.shape)
        The designs, not yet discretised.
    kl : Tensor of shape (n,)
        Nats: the sum over steps of KL(p_t || p_pre_t) along each path, of the steps that carry gradient and, where one
        stands for them, of those before.
    """

    point: Tensor
    kl: Tensor


def rollout(
    model: DiffusionModel,
    pretrained: DiffusionModel,
    noise: Tensor,
    n_grad_steps: int | None = None,
    *,
    weight: Callable[[int], float] | None = None,
    prefix_step: int | None = None,
    kl_step: int | None = None,
    checkpointing: bool = False,
) -> Rollout:
    """Sample from a fine-tuned chain, summing the per-step KL to the pretrained one (BRAID, equation 6).

    The steps before the last `n_grad_steps` build no graph, yet their weights are the same weights. Two remedies keep
    the gradient honest: `weight`, if the number of steps was drawn at random, and `prefix_step`, if it is fixed.

    Parameters
    ----------
    model, pretrained : DiffusionModel
    noise : Tensor of shape (n, n_steps + 1, \\*state_shape)
        From `DiffusionModel.draw_noise`.
    n_grad_steps : int, optional
        The last steps, which carry gradient through the states; all of them by default.
    weight : callable, optional
        From a step t to the factor of that step's part of the weights' gradient: one over the probability that the
        step carries gradient makes the whole gradient unbiased. Gradients that pass through the states are not scaled.
    prefix_step : int, optional
        One of the steps before, n_grad_steps < prefix_step <= n_steps. Its KL at the state reached, times their
        number, stands for all of them, so that they do not drift.
    kl_step : int, optional
        One of the steps that carry gradient. Its KL, times their number, stands for all of theirs, and the pretrained
        network is not run at the others: drawn uniformly, the gradient is the same on average.
    checkpointing : bool, default=False
        Keep only the policies of the steps that carry gradient, and run their networks again on the way back, and the
        readout's: the graph of one network at one step is in memory at a time, for one more forward pass each. The
        gradients are the same.

    Returns
    -------
    path : Rollout
    """
    n_steps = model.n_steps
    n_grad_steps = n_steps if n_grad_steps is None else n_grad_steps
    call: Callable[..., Any] = recomputed if checkpointing else operator.call
    kl = torch.zeros(len(noise), device=noise.device)

    def move(x: Tensor, t: int, draw: Tensor) -> Tensor:
        nonlocal kl
        if t == prefix_step:
            # x carries no gradient for either policy: detaching it for one of them alone inflates this gradient.
            x, step_kl = model.policy(x, t).step(policy_without_gradient(pretrained, x, t), draw)
            kl = kl + (n_steps - n_grad_steps) * step_kl
            return x.detach()
        if t > n_grad_steps:
            return policy_without_gradient(model, x, t).rsample(draw)
        policy = call(weighted_policy, model, x, t, 1.0 if weight is None else weight(t))
        if kl_step not in (None, t):
            return policy.rsample(draw)
        x, step_kl = policy.step(call(pretrained.policy, x, t), draw)
        kl = kl + (step_kl if kl_step is None else n_grad_steps * step_kl)
        return x

    point = call(model.readout, last_state(model, noise, move))
    return Rollout(point, kl)


def graph_bytes(model: DiffusionModel, pretrained: DiffusionModel) -> int:
    """Bytes that one step's graph keeps for each trajectory."""

    def step(n: int) -> tuple[Tensor, Tensor]:
        noise = model.draw_noise(n, torch.Generator().manual_seed(0)).to(model.device)
        x = model.initial(n).rsample(noise[:, 0]).detach().requires_grad_()
        return model.policy(x, model.n_steps).step(pretrained.policy(x, model.n_steps), noise[:, 1])

    # What is kept whatever their number is of the weights.
    return saved_bytes(lambda: step(3)) - saved_bytes(lambda: step(2))


def reward_bytes(model: DiffusionModel, reward: Callable[[Tensor], Tensor]) -> int:
    """Bytes that the graph of readout and reward keeps for each trajectory."""

    def end(n: int) -> Tensor:
        noise = model.draw_noise(n, torch.Generator().manual_seed(0)).to(model.device)
        return reward(model.readout(model.initial(n).rsample(noise[:, 0]).detach().requires_grad_()))

    return saved_bytes(lambda: end(3)) - saved_bytes(lambda: end(2))


def saved_bytes(build: Callable[[], object]) -> int:
    """Bytes of the storages that the graph of what a call returns keeps."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = build()
    del result  # alive until here, so that no storage took the address of another
    return sum(kept.values())


def recomputed(compute: Callable[..., Any], *arguments: Any) -> Any:
    """A policy, or points, whose graph is not kept, but built again when the gradient comes back to it."""
    # Noise is drawn beforehand, so that a policy computed again needs no state of a generator.
    return checkpoint(compute, *arguments, use_reentrant=False, preserve_rng_state=False)


def weighted_policy(model: DiffusionModel, x: Tensor, t: int, weight: float) -> Policy:
    """The policy at x, with the gradient of the weights, but not that of x, multiplied."""
    if weight == 1.0:
        return model.policy(x, t)
    # What reaches x is multiplied on the way out and divided on the way in; what stays in the weights only the former.
    policy = model.policy(_ScaleGradient.apply(x, 1 / weight), t)
    return policy.mapped(lambda part: _ScaleGradient.apply(part, weight))


@torch.no_grad()
def policy_without_gradient(model: DiffusionModel, x: Tensor, t: int) -> Policy:
    """The policy at x, outside any graph."""
    return model.policy(x, t)


@torch.no_grad()
def sample_with_kl(model: DiffusionModel, pretrained: DiffusionModel, noise: Tensor, batch_size: int = 256) -> Rollout:
    """Sample designs and the exact path KL over all steps, without gradient, in batches."""
    chunks = noise.split(min(batch_size, model.rows_at_once))
    paths = [rollout(model, pretrained, chunk.to(model.device)) for chunk in chunks]
    return Rollout(torch.cat([path.point for path in paths]), torch.cat([path.kl for path in paths]))


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
