"""One step of a chain of normal policies: next state and KL to the pretrained policy, in one pass over memory."""

# Triton's compiler reads annotations of kernels, and knows none but its own.
# mypy: allow-untyped-defs

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from braidkit.exceptions import InvalidParameterError
from braidkit.kernels._backend import launch, load_triton, runs_triton

BLOCK = 1024


def gaussian_step(mean: Tensor, reference_mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the next state, and sum the KL of two normal policies that share their deviations.

    ``x' = mean + std * noise``; ``KL(N(m, s^2) || N(m0, s^2)) = |m - m0|^2 / (2 s^2)``, summed over a row.

    Parameters
    ----------
    mean, reference_mean : Tensor of shape (n, ...)
        Means of the fine-tuned and of the pretrained policy.
    std : Tensor of shape (n, ...) or ()
        Their deviations, > 0.
    noise : Tensor of shape (n, ...)
        Standard normal; a constant, which takes no gradient.

    Returns
    -------
    x : Tensor of shape (n, ...)
    kl : Tensor of shape (n,)
        Nats, in float32, or float64 if the means are. Gradients of both flow to the means and the deviations.

    Raises
    ------
    InvalidParameterError
        If shapes differ.

    References
    ----------
    BRAID (Uehara et al., 2024), Algorithm 3.

    Examples
    --------
    >>> x, kl = gaussian_step(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor(0.5), torch.ones(1, 2))
    >>> x, kl
    (tensor([[1.5000, 1.5000]]), tensor([4.]))
    """
    if not mean.shape == reference_mean.shape == noise.shape or std.shape not in (mean.shape, ()):
        raise InvalidParameterError(
            "means, noise and std must have one shape, or std none; got "
            f"{tuple(mean.shape)}, {tuple(reference_mean.shape)}, {tuple(noise.shape)} and {tuple(std.shape)}."
        )
    if runs_triton(mean, reference_mean, std, noise):
        return _GaussianStep.apply(mean, reference_mean, std, noise)
    return gaussian_step_torch(mean, reference_mean, std, noise)


def gaussian_step_torch(mean: Tensor, reference_mean: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    return mean + std * noise.detach(), normal_kl(mean - reference_mean, std)


def normal_kl(gap: Tensor, std: Tensor) -> Tensor:
    """KL (n,) of normal laws that share deviations and whose means differ by a gap (n, ...), in float32 at least."""
    wide = torch.promote_types(gap.dtype, torch.float32)
    kl = gap.to(wide).square() / (2 * std.to(wide).square())
    return kl.unsqueeze(-1).flatten(1).sum(dim=1)


class _GaussianStep(torch.autograd.Function):
    """The same in Triton: a program a row and block of its entries, partial sums of the KL added up by torch."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, reference: Tensor, std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, reference, std, noise = (part.contiguous() for part in (mean, reference, std, noise))
        ctx.save_for_backward(mean, reference, std, noise)
        n, width = len(mean), mean[:1].numel()
        grid = (n, -(-width // BLOCK))
        dtype = torch.promote_types(mean.dtype, noise.dtype)
        x = torch.empty_like(mean, dtype=torch.promote_types(dtype, std.dtype) if std.ndim else dtype)
        kl = mean.new_empty(grid, dtype=torch.float32)
        if x.numel():
            shared = std.ndim == 0
            launch(_kernels()[0], grid, mean, reference, std, noise, x, kl, width, SHARED=shared, BLOCK=BLOCK)
        return x, kl.sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, x_gradient: Tensor, kl_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        mean, reference, std, noise = ctx.saved_tensors
        x_gradient, kl_gradient = x_gradient.contiguous(), kl_gradient.contiguous()
        n, width = len(mean), mean[:1].numel()
        grid = (n, -(-width // BLOCK))
        shared = std.ndim == 0
        out = torch.empty_like(mean), torch.empty_like(reference)
        std_gradient = std.new_empty(grid, dtype=torch.float32) if shared else torch.empty_like(std)
        if mean.numel():
            tensors = (mean, reference, std, noise, x_gradient, kl_gradient, *out, std_gradient)
            launch(_kernels()[1], grid, *tensors, width, SHARED=shared, BLOCK=BLOCK)
        return *out, std_gradient.sum().to(std.dtype) if shared else std_gradient, None


@functools.cache
def _kernels() -> tuple[Any, Any]:
    """The forward and the backward kernel."""
    triton = load_triton()
    import triton.language as tl

    @triton.jit
    def forward(
        mean,
        reference,
        std,
        noise,
        x,
        kl,
        width,
        SHARED: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0).to(tl.int64)
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < width
        at = row * width + column
        m = tl.load(mean + at, mask=inside, other=0.0).to(tl.float32)
        m0 = tl.load(reference + at, mask=inside, other=0.0).to(tl.float32)
        z = tl.load(noise + at, mask=inside, other=0.0).to(tl.float32)
        s = tl.load(std).to(tl.float32) if SHARED else tl.load(std + at, mask=inside, other=1.0).to(tl.float32)
        tl.store(x + at, m + s * z, mask=inside)
        ratio = (m - m0) / s
        tl.store(kl + row * tl.num_programs(1) + tl.program_id(1), tl.sum(0.5 * ratio * ratio, axis=0))

    @triton.jit
    def backward(
        mean,
        reference,
        std,
        noise,
        x_gradient,
        kl_gradient,
        mean_gradient,
        reference_gradient,
        std_gradient,
        width,
        SHARED: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0).to(tl.int64)
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        inside = column < width
        at = row * width + column
        m = tl.load(mean + at, mask=inside, other=0.0).to(tl.float32)
        m0 = tl.load(reference + at, mask=inside, other=0.0).to(tl.float32)
        z = tl.load(noise + at, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(x_gradient + at, mask=inside, other=0.0).to(tl.float32)
        k = tl.load(kl_gradient + row)
        s = tl.load(std).to(tl.float32) if SHARED else tl.load(std + at, mask=inside, other=1.0).to(tl.float32)
        # d kl / d m = (m - m0) / s^2 = -d kl / d m0, and d kl / d s = -(m - m0)^2 / s^3.
        ratio = (m - m0) / s
        pull = k * ratio / s
        tl.store(mean_gradient + at, g + pull, mask=inside)
        tl.store(reference_gradient + at, -pull, mask=inside)
        to_std = g * z - pull * ratio
        if SHARED:
            tl.store(std_gradient + row * tl.num_programs(1) + tl.program_id(1), tl.sum(to_std, axis=0))
        else:
            tl.store(std_gradient + at, to_std, mask=inside)

    return forward, backward
