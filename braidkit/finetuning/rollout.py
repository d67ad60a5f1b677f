"""Run a chain and its pretrained version side by side: designs, and the KL between the laws of their paths."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from braidkit.diffusion import DiffusionModel, Policy, last_state
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_number


class Rollout(NamedTuple):
    """The result of a rollout.

    Attributes
    ----------
    point : Tensor of shape (n, \\*space.shape)
        The designs, not yet discretised.
    kl : Tensor of shape (n,)
        Nats: KL(p_t || p_pre_t) along each path, summed over the steps that carry gradient. With `prefix_step` also
        over the steps before, estimated from that one.
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

    The steps before the last `n_grad_steps` build no graph, although they use the same weights. Two arguments correct
    the gradient for this: `weight`, if the number of steps was drawn at random, and `prefix_step`, if it is fixed.

    Parameters
    ----------
    model, pretrained : DiffusionModel
    noise : Tensor of shape (n, n_steps + 1, \\*state_shape)
        From `DiffusionModel.draw_noise`.
    n_grad_steps : int, optional
        Number of last steps that carry gradient through the states; all by default.
    weight : callable, optional
        Factor of step t's part of the weights' gradient. One over the probability that the step carries gradient makes
        the whole gradient unbiased. Gradients that pass through the states are not scaled.
    prefix_step : int, optional
        One of the steps without gradient, n_grad_steps < prefix_step <= n_steps. Its KL, times their number, estimates
        the KL of all of them, so that they do not drift away from the pretrained model.
    kl_step : int, optional
        One of the steps that carry gradient. Its KL, times their number, estimates the KL of all of them, and the
        pretrained network is not run at the others. If it is drawn uniformly, the gradient is the same on average.
    checkpointing : bool, default=False
        Keep only the policies of the steps that carry gradient, and run the networks again in the backward pass. Only
        the graph of one network at one step is in memory at a time, for one more forward pass of each. The gradients
        are the same.

    Returns
    -------
    path : Rollout
    """
    _check_chains(model, pretrained, noise)
    n_steps = model.n_steps
    n_grad_steps = n_steps if n_grad_steps is None else n_grad_steps
    check_number("n_grad_steps", n_grad_steps, low=0, whole=True)
    call: Callable[..., Any] = recomputed if checkpointing else operator.call
    kl = torch.zeros(len(noise), device=noise.device)

    def move(x: Tensor, t: int, draw: Tensor) -> Tensor:
        nonlocal kl
        if t == prefix_step:
            # x is detached for both policies. Detaching it for one of them would add a wrong term to the KL's gradient.
            x, step_kl = call(model.policy, x, t).step(policy_without_gradient(pretrained, x, t), draw)
            kl = kl + (n_steps - n_grad_steps) * step_kl
            return x.detach()
        if t > n_grad_steps:
            return policy_without_gradient(model, x, t).rsample(draw)
        policy = call(weighted_policy, model, x, t, 1.0 if weight is None else weight(t))
        if kl_step not in (None, t):  # another step's KL estimates this one's
            return policy.rsample(draw)
        x, step_kl = policy.step(call(pretrained.policy, x, t), draw)
        kl = kl + (step_kl if kl_step is None else n_grad_steps * step_kl)
        return x

    point = call(model.readout, last_state(model, noise, move))
    return Rollout(point, kl)


def _check_chains(model: DiffusionModel, pretrained: DiffusionModel, noise: Tensor) -> None:
    """Raise unless both are chains, and the noise is that of whole trajectories of either."""
    for chain in (model, pretrained):
        if not hasattr(chain, "check_noise"):  # also a chain of another precision, which is no subclass
            raise InvalidParameterError(f"a chain must be a DiffusionModel; got {chain!r:.60}.")
        chain.check_noise(noise)


def graph_bytes(model: DiffusionModel, pretrained: DiffusionModel) -> int:
    """Bytes that one step's graph keeps for each trajectory."""

    def step(n: int) -> tuple[Tensor, Tensor]:
        noise = model.draw_noise(n, torch.Generator().manual_seed(0)).to(model.device)
        x = model.initial(n).rsample(noise[:, 0]).detach().requires_grad_()
        return model.policy(x, model.n_steps).step(pretrained.policy(x, model.n_steps), noise[:, 1])

    # Memory that does not grow with the batch belongs to the weights; the difference cancels it.
    return saved_bytes(lambda: step(3)) - saved_bytes(lambda: step(2))


def reward_bytes(model: DiffusionModel, reward: Callable[[Tensor], Tensor]) -> int:
    """Bytes that the graph of readout and reward keeps for each trajectory."""

    def end(n: int) -> Tensor:
        noise = model.draw_noise(n, torch.Generator().manual_seed(0)).to(model.device)
        return reward(model.readout(model.initial(n).rsample(noise[:, 0]).detach().requires_grad_()))

    return saved_bytes(lambda: end(3)) - saved_bytes(lambda: end(2))


def saved_bytes(build: Callable[[], object]) -> int:
    """Bytes of the tensors that autograd keeps for the result of a call."""
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
    """A policy, or points, whose graph is not kept but built again in the backward pass."""
    # Noise is drawn beforehand, so that a policy computed again needs no state of a generator.
    return checkpoint(compute, *arguments, use_reentrant=False, preserve_rng_state=False)


def weighted_policy(model: DiffusionModel, x: Tensor, t: int, weight: float) -> Policy:
    """The policy at x, with the gradient of the weights multiplied by `weight`, and that of x unchanged."""
    if weight == 1.0:
        return model.policy(x, t)
    # Scale the weights' gradient, not the state's. The policy's gradient is multiplied by the factor at the output; the
    # part that reaches x is divided by it again.
    policy = model.policy(_ScaleGradient.apply(x, 1 / weight), t)
    return policy.mapped(lambda part: _ScaleGradient.apply(part, weight))


@torch.no_grad()
def policy_without_gradient(model: DiffusionModel, x: Tensor, t: int) -> Policy:
    """The policy at x, without gradient."""
    return model.policy(x, t)


@torch.no_grad()
def sample_with_kl(model: DiffusionModel, pretrained: DiffusionModel, noise: Tensor, batch_size: int = 256) -> Rollout:
    """Sample designs and the path KL over all steps, without gradient, in batches.

    It is exact. Where both chains know their laws, a design has the logarithm of its probabilities' ratio instead. The
    mean is the same, because positions are revealed in one and the same random order.
    """
    _check_chains(model, pretrained, noise)
    check_number("batch_size", batch_size, low=1, whole=True)
    chunks = noise.split(min(batch_size, model.rows_at_once))
    if model.knows_law and pretrained.knows_law:
        points = torch.cat([model.sample_points(chunk) for chunk in chunks])
        return Rollout(points, (model.log_prob(points) - pretrained.log_prob(points)).to(points.dtype))
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
