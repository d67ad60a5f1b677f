"""One step back in time of a chain of sticks: letters to pull, next state and KL, each position in one program lane."""

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
from braidkit.kernels.gaussian import normal_kl

BLOCK = 128

# Sticks are read no closer than this to 0 and 1.
EPS = 1e-5


def simplex_step(
    x_t: Tensor,
    logits: Tensor,
    reference_logits: Tensor,
    lineages_zero: Tensor,
    lineages_one: Tensor,
    noise: Tensor,
    step: float,
    margin: float = EPS,
) -> tuple[Tensor, Tensor]:
    r"""Draw the next sticks, and sum the KL of the fine-tuned to the pretrained policy.

    With v = x_t clamped, b_i = K - 1 - i, speeds s_i = 2 / (1 + b_i), the softmax q of the logits and
    ``Q_i = sum_{k>i} q_k``

    ``pull_i = (1 - v_i) q_i E1_i - v_i Q_i E0_i``,
    ``x'_i = v_i + h s_i [(1 - (1 + b_i) v_i) / 2 + pull_i] + sqrt(h s_i v_i (1 - v_i)) z_i``,
    ``KL = sum_i h s_i (pull_i - pull0_i)^2 / (2 v_i (1 - v_i))``.

    Parameters
    ----------
    x_t : Tensor of shape (n, length, K - 1)
        Sticks as they were drawn, perhaps outside (0, 1).
    logits, reference_logits : Tensor of shape (n, length, K)
        Of the clean letters, by the fine-tuned and by the pretrained model.
    lineages_zero, lineages_one : Tensor of shape (n, length, K - 1)
        Mean lineage counts E0, E1 given the clamped sticks, for starts at 0 and 1.
    noise : Tensor of shape (n, length, K - 1)
        Standard normal; a constant, which takes no gradient.
    step : float
        Length h of the step in time, > 0.
    margin : float, default=1e-5
        Sticks are read no closer than this to 0 and 1.

    Returns
    -------
    x : Tensor of shape (n, length, K - 1)
    kl : Tensor of shape (n,)
        Nats, in float32, or float64 if the sticks are. Gradients of both flow to the sticks, the logits and the counts.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit.

    References
    ----------
    P. Avdeyev et al., "Dirichlet diffusion score model for biological sequence generation", ICML 2023.

    Examples
    --------
    >>> half, zeros = torch.full((1, 1, 1), 0.5), torch.zeros(1, 1, 2)
    >>> simplex_step(half, zeros, zeros, half, 2 * half, 0 * half, step=0.1)
    (tensor([[[0.5125]]]), tensor([0.]))
    """
    shape = x_t.shape
    letters = (*shape[:-1], shape[-1] + 1) if len(shape) == 3 else None
    if not (shape == lineages_zero.shape == lineages_one.shape == noise.shape) or not (
        letters == logits.shape == reference_logits.shape
    ):
        raise InvalidParameterError(
            "sticks, lineages and noise must have shape (n, length, K - 1), and logits (n, length, K); got "
            f"{', '.join(str(tuple(x.shape)) for x in (x_t, lineages_zero, lineages_one, noise, logits))} "
            f"and {tuple(reference_logits.shape)}."
        )
    tensors = (x_t, logits, reference_logits, lineages_zero, lineages_one, noise)
    if runs_triton(*tensors):
        return _SimplexStep.apply(*tensors, step, margin)
    return simplex_step_torch(*tensors, step, margin)


def simplex_step_torch(
    x_t: Tensor,
    logits: Tensor,
    reference_logits: Tensor,
    lineages_zero: Tensor,
    lineages_one: Tensor,
    noise: Tensor,
    step: float,
    margin: float,
) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    wide = torch.promote_types(x_t.dtype, torch.float32)
    v = x_t.to(wide).clamp(margin, 1 - margin)
    tuned, reference = (
        pull_towards(softmax(part.to(wide)), v, lineages_zero, lineages_one) for part in (logits, reference_logits)
    )
    mean, variance = euler_step(v, tuned, step)
    std = variance.sqrt()
    # Subtract the drifts, not the means: the difference of two nearly equal means would lose digits to rounding.
    gap = variance / (v * (1 - v)) * (tuned - reference)
    return (mean + std * noise.detach()).to(x_t.dtype), normal_kl(gap, std)


def euler_step(v: Tensor, pull: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Mean and variance (n, L, K - 1) of the next sticks, from sticks v in (0, 1) and their pull."""
    b = torch.arange(v.shape[-1], 0, -1, device=v.device, dtype=v.dtype)
    length = 2 * step / (1 + b)
    return v + length * (0.5 * (1 - (1 + b) * v) + pull), length * v * (1 - v)


def pull_towards(letters: Tensor, v: Tensor, lineages_zero: Tensor, lineages_one: Tensor) -> Tensor:
    """The exact drift (n, L, K - 1) of sticks v towards clean letters with probabilities (n, L, K)."""
    return (1 - v) * letters[..., :-1] * lineages_one - v * sum_after(letters) * lineages_zero


def sum_after(x: Tensor) -> Tensor:
    """``sum_{j>i} x_j`` for i = 0, ..., K - 2, of shape (..., K - 1)."""
    return x[..., 1:].flip(-1).cumsum(dim=-1).flip(-1)


def softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension, done with that in front: for a few letters this is much faster on a CPU."""
    return logits.movedim(-1, 0).softmax(dim=0).movedim(0, -1).contiguous()


class _SimplexStep(torch.autograd.Function):
    """The same in Triton: a lane a position, going through its letters one by one; KL by position added up by torch."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *tensors, step, margin = arguments
        x_t, logits, reference_logits, zero, one, noise = (part.contiguous() for part in tensors)
        n, length, n_sticks = x_t.shape
        x = torch.empty_like(x_t)
        q, q0 = (torch.empty_like(part, dtype=torch.float32) for part in (logits, reference_logits))
        gap = torch.empty_like(x_t, dtype=torch.float32)
        kl = x_t.new_empty(n, length, dtype=torch.float32)
        if x.numel():
            blocks = (x_t, logits, reference_logits, zero, one, noise, x, q, q0, gap, kl)
            grid = (-(-n * length // BLOCK),)
            launch(_kernels()[0], grid, *blocks, step, margin, n * length, K=n_sticks + 1, BLOCK=BLOCK)
        ctx.save_for_backward(x_t, q, q0, gap, zero, one, noise)
        ctx.step, ctx.margin, ctx.dtypes = step, margin, (logits.dtype, reference_logits.dtype)
        return x, kl.sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, x_gradient: Tensor, kl_gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_t, q, q0, gap, zero, one, noise = ctx.saved_tensors
        n, length, n_sticks = x_t.shape
        to_logits = [torch.empty_like(part, dtype=dtype) for part, dtype in zip((q, q0), ctx.dtypes, strict=True)]
        out = [torch.empty_like(x_t), *to_logits, torch.empty_like(zero), torch.empty_like(one)]
        if x_t.numel():
            blocks = (x_t, q, q0, gap, zero, one, noise, x_gradient.contiguous(), kl_gradient.contiguous(), *out)
            grid = (-(-n * length // BLOCK),)
            numbers = ctx.step, ctx.margin, n * length, length
            launch(_kernels()[1], grid, *blocks, *numbers, K=n_sticks + 1, BLOCK=BLOCK)
        return *out, None, None, None


@functools.cache
def _kernels() -> tuple[Any, Any]:
    """The forward and the backward kernel."""
    triton = load_triton()
    import triton.language as tl

    @triton.jit
    def forward(
        x_t,
        logits,
        reference_logits,
        lineages_zero,
        lineages_one,
        noise,
        x,
        letters,
        reference_letters,
        gap,
        kl,
        step,
        margin,
        n_positions,
        K: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = position < n_positions
        letter = position * K
        stick = position * (K - 1)
        # The largest logit and the sum of exponentials, of the fine-tuned and of the pretrained model.
        top = tl.load(logits + letter, mask=inside, other=0.0).to(tl.float32)
        top0 = tl.load(reference_logits + letter, mask=inside, other=0.0).to(tl.float32)
        for k in range(1, K):
            top = tl.maximum(top, tl.load(logits + letter + k, mask=inside, other=0.0).to(tl.float32))
            top0 = tl.maximum(top0, tl.load(reference_logits + letter + k, mask=inside, other=0.0).to(tl.float32))
        total = tl.zeros((BLOCK,), tl.float32)
        total0 = tl.zeros((BLOCK,), tl.float32)
        for k in range(K):
            total += tl.exp(tl.load(logits + letter + k, mask=inside, other=0.0).to(tl.float32) - top)
            total0 += tl.exp(tl.load(reference_logits + letter + k, mask=inside, other=0.0).to(tl.float32) - top0)
        # From the last letter down, so that the probability of what comes after is a sum and not a difference.
        after = tl.zeros((BLOCK,), tl.float32)
        after0 = tl.zeros((BLOCK,), tl.float32)
        divergence = tl.zeros((BLOCK,), tl.float32)
        for b in range(K):
            i = K - 1 - b
            q = tl.exp(tl.load(logits + letter + i, mask=inside, other=0.0).to(tl.float32) - top) / total
            q0 = tl.exp(tl.load(reference_logits + letter + i, mask=inside, other=0.0).to(tl.float32) - top0) / total0
            tl.store(letters + letter + i, q, mask=inside)
            tl.store(reference_letters + letter + i, q0, mask=inside)
            has_stick = inside & (i < K - 1)
            e0 = tl.load(lineages_zero + stick + i, mask=has_stick, other=0.0).to(tl.float32)
            e1 = tl.load(lineages_one + stick + i, mask=has_stick, other=0.0).to(tl.float32)
            z = tl.load(noise + stick + i, mask=has_stick, other=0.0).to(tl.float32)
            v = tl.load(x_t + stick + i, mask=has_stick, other=0.5).to(tl.float32)
            v = tl.minimum(tl.maximum(v, margin), 1 - margin)
            length = step * 2 / (1 + b)
            pull = (1 - v) * q * e1 - v * after * e0
            pull0 = (1 - v) * q0 * e1 - v * after0 * e0
            drawn = v + length * (0.5 * (1 - (1 + b) * v) + pull) + tl.sqrt(length * v * (1 - v)) * z
            tl.store(x + stick + i, drawn, mask=has_stick)
            tl.store(gap + stick + i, pull - pull0, mask=has_stick)
            divergence += length * (pull - pull0) * (pull - pull0) / (2 * v * (1 - v))
            after += q
            after0 += q0
        tl.store(kl + position, divergence, mask=inside)

    @triton.jit
    def backward(
        x_t,
        letters,
        reference_letters,
        gap,
        lineages_zero,
        lineages_one,
        noise,
        x_gradient,
        kl_gradient,
        to_x_t,
        to_logits,
        to_reference_logits,
        to_zero,
        to_one,
        step,
        margin,
        n_positions,
        n_row,
        K: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = position < n_positions
        letter = position * K
        stick = position * (K - 1)
        c = tl.load(kl_gradient + position // n_row, mask=inside, other=0.0).to(tl.float32)
        # With A_i the gradient in pull_i, that in q_k is A_k (1 - v_k) E1_k less the sum over i < k of A_i v_i E0_i; as
        # the drifts are linear in q, its mean under q is the sum of A_i drift_i.
        mean = tl.zeros((BLOCK,), tl.float32)
        mean0 = tl.zeros((BLOCK,), tl.float32)
        after = tl.load(letters + letter + K - 1, mask=inside, other=0.0)
        after0 = tl.load(reference_letters + letter + K - 1, mask=inside, other=0.0)
        for b in range(1, K):
            i = K - 1 - b
            q = tl.load(letters + letter + i, mask=inside, other=0.0)
            q0 = tl.load(reference_letters + letter + i, mask=inside, other=0.0)
            e0 = tl.load(lineages_zero + stick + i, mask=inside, other=0.0).to(tl.float32)
            e1 = tl.load(lineages_one + stick + i, mask=inside, other=0.0).to(tl.float32)
            z = tl.load(noise + stick + i, mask=inside, other=0.0).to(tl.float32)
            g = tl.load(x_gradient + stick + i, mask=inside, other=0.0).to(tl.float32)
            d = tl.load(gap + stick + i, mask=inside, other=0.0)
            read = tl.load(x_t + stick + i, mask=inside, other=0.5).to(tl.float32)
            v = tl.minimum(tl.maximum(read, margin), 1 - margin)
            length = step * 2 / (1 + b)
            spread = v * (1 - v)
            to_pull0 = -c * length * d / spread
            to_pull = g * length - to_pull0
            to_v = g * (1 - 0.5 * length * (1 + b))
            to_v += 0.5 * (1 - 2 * v) * (g * z * tl.sqrt(length / spread) + to_pull0 * d / spread)
            to_v -= to_pull * (q * e1 + after * e0) + to_pull0 * (q0 * e1 + after0 * e0)
            free = (read >= margin) & (read <= 1 - margin)
            tl.store(to_x_t + stick + i, tl.where(free, to_v, 0.0), mask=inside)
            tl.store(to_zero + stick + i, -v * (to_pull * after + to_pull0 * after0), mask=inside)
            tl.store(to_one + stick + i, (1 - v) * (to_pull * q + to_pull0 * q0), mask=inside)
            mean += to_pull * ((1 - v) * q * e1 - v * after * e0)
            mean0 += to_pull0 * ((1 - v) * q0 * e1 - v * after0 * e0)
            after += q
            after0 += q0
        before = tl.zeros((BLOCK,), tl.float32)
        before0 = tl.zeros((BLOCK,), tl.float32)
        for i in range(K):
            q = tl.load(letters + letter + i, mask=inside, other=0.0)
            q0 = tl.load(reference_letters + letter + i, mask=inside, other=0.0)
            has_stick = inside & (i < K - 1)
            e0 = tl.load(lineages_zero + stick + i, mask=has_stick, other=0.0).to(tl.float32)
            e1 = tl.load(lineages_one + stick + i, mask=has_stick, other=0.0).to(tl.float32)
            g = tl.load(x_gradient + stick + i, mask=has_stick, other=0.0).to(tl.float32)
            d = tl.load(gap + stick + i, mask=has_stick, other=0.0)
            v = tl.load(x_t + stick + i, mask=has_stick, other=0.5).to(tl.float32)
            v = tl.minimum(tl.maximum(v, margin), 1 - margin)
            length = step * 2 / (K - i)
            to_pull0 = -c * length * d / (v * (1 - v))
            to_pull = g * length - to_pull0
            tl.store(to_logits + letter + i, q * (to_pull * (1 - v) * e1 - before - mean), mask=inside)
            tl.store(to_reference_logits + letter + i, q0 * (to_pull0 * (1 - v) * e1 - before0 - mean0), mask=inside)
            before += to_pull * v * e0
            before0 += to_pull0 * v * e0

    return forward, backward
