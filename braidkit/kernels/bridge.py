"""One step back in time along bridges of angles: next state and KL from letters, each position in one program lane."""

# Triton's compiler reads annotations of kernels, and knows none but its own.
# mypy: allow-untyped-defs

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from braidkit.exceptions import InvalidParameterError
from braidkit.kernels._backend import launch, load_triton, runs_triton
from braidkit.kernels.gaussian import gaussian_step_torch
from braidkit.kernels.simplex import BLOCK, EPS, softmax, sum_after


def bridge_step(
    x_t: Tensor,
    logits: Tensor,
    reference_logits: Tensor,
    lineages_zero: Tensor,
    lineages_one: Tensor,
    noise: Tensor,
    start: float,
    end: float,
) -> tuple[Tensor, Tensor]:
    r"""Draw the next angles, and sum the KL of the fine-tuned to the pretrained policy.

    With sticks v = sin^2(x_t), no closer than 1e-5 to 0 and 1, b_i = K - 1 - i, speeds s_i = 2 / (1 + b_i), the softmax
    q of the logits, ``Q_i = sum_{k>i} q_k``, a step of length h = t - t' and
    ``w = sinh(t) log(tanh(t/2) / tanh(t'/2))``

    ``A_i = h / 4 + w q_i E1_i``, ``B_i = h (b_i / 2 - 1/4) + w Q_i E0_i``,
    ``v'_i = A_i / (A_i + B_i) + (v_i - A_i / (A_i + B_i)) exp(-s_i (A_i + B_i))``,
    ``x'_i = asin(sqrt(v'_i)) + std_i z_i``, ``std_i^2 = s_i h t' / (4 t)``,
    ``KL = sum_i (asin(sqrt(v'_i)) - asin(sqrt(v0'_i)))^2 / (2 std_i^2)``.

    Parameters
    ----------
    x_t : Tensor of shape (n, length, K - 1)
        Angles as they were drawn: any numbers.
    logits, reference_logits : Tensor of shape (n, length, K)
        Of the clean letters, by the fine-tuned and by the pretrained model.
    lineages_zero, lineages_one : Tensor of shape (n, length, K - 1)
        Mean lineage counts E0, E1 given the sticks, for starts at 0 and 1.
    noise : Tensor of shape (n, length, K - 1)
        Standard normal; a constant, which takes no gradient.
    start, end : float
        Times t > t' > 0 of the step.

    Returns
    -------
    x : Tensor of shape (n, length, K - 1)
    kl : Tensor of shape (n,)
        Nats, in float32, or float64 if the angles are. Gradients of both flow to the angles, the logits and the counts.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit.

    Examples
    --------
    >>> quarter, zeros = torch.full((1, 1, 1), torch.pi / 4), torch.zeros(1, 1, 2)
    >>> bridge_step(quarter, zeros, zeros, 0 * quarter, 0 * quarter, 0 * quarter, start=1.0, end=0.5)
    (tensor([[[0.7854]]]), tensor([0.]))
    """
    shape = x_t.shape
    letters = (*shape[:-1], shape[-1] + 1) if len(shape) == 3 else None
    if not (shape == lineages_zero.shape == lineages_one.shape == noise.shape) or not (
        letters == logits.shape == reference_logits.shape
    ):
        raise InvalidParameterError(
            "angles, lineages and noise must have shape (n, length, K - 1), and logits (n, length, K); got "
            f"{', '.join(str(tuple(x.shape)) for x in (x_t, lineages_zero, lineages_one, noise, logits))} "
            f"and {tuple(reference_logits.shape)}."
        )
    tensors = (x_t, logits, reference_logits, lineages_zero, lineages_one, noise)
    if runs_triton(*tensors):
        return _BridgeStep.apply(*tensors, start, end)
    return bridge_step_torch(*tensors, start, end)


def bridge_step_torch(
    x_t: Tensor,
    logits: Tensor,
    reference_logits: Tensor,
    lineages_zero: Tensor,
    lineages_one: Tensor,
    noise: Tensor,
    start: float,
    end: float,
) -> tuple[Tensor, Tensor]:
    """The same in plain torch."""
    wide = torch.promote_types(x_t.dtype, torch.float32)
    v = sticks_of_angles(x_t.to(wide))
    mean, reference = (
        bridge_mean(v, softmax(part.to(wide)), lineages_zero, lineages_one, start, end)
        for part in (logits, reference_logits)
    )
    x, kl = gaussian_step_torch(mean, reference, bridge_std(v, start, end), noise)
    return x.to(x_t.dtype), kl


def sticks_of_angles(x: Tensor) -> Tensor:
    """The sticks of angles, no closer than EPS to 0 and 1."""
    return x.sin().square().clamp(EPS, 1 - EPS)


def bridge_mean(
    v: Tensor, letters: Tensor, lineages_zero: Tensor, lineages_one: Tensor, start: float, end: float
) -> Tensor:
    """Mean angles (n, L, K - 1) at the end of a step from sticks v, if the letters have probabilities (n, L, K)."""
    b = _downward(v)
    length, pulled = start - end, _pulled(start, end)
    # A / s and B / s of SimplexDiffusion's docstring: the rates towards 1 and towards 0, integrated over the step.
    up = 0.25 * length + pulled * letters[..., :-1] * lineages_one
    down = (0.5 * b - 0.25) * length + pulled * sum_after(letters) * lineages_zero
    target = up / (up + down)
    moved = target + (v - target) * (-2 / (1 + b) * (up + down)).exp()
    return moved.clamp(EPS, 1 - EPS).sqrt().asin()


def bridge_std(v: Tensor, start: float, end: float) -> Tensor:
    """Deviations (K - 1,) of the angles of a step, of the type of v."""
    # The variance of a Brownian bridge that ends at time 0: s (t - t') (t' / t) / 4.
    return (0.5 / (1 + _downward(v)) * (start - end) * (end / start)).sqrt()


def _downward(v: Tensor) -> Tensor:
    """The sticks' b = K - 1, ..., 1, along the last dimension of v."""
    return torch.arange(v.shape[-1], 0, -1, device=v.device, dtype=v.dtype)


def _pulled(start: float, end: float) -> float:
    """The integral of sinh(start) / sinh(t) over the step: the counts fall with time as 1 / sinh(t)."""
    return math.sinh(start) * math.log(math.tanh(start / 2) / math.tanh(end / 2))


class _BridgeStep(torch.autograd.Function):
    """The same in Triton: a lane a position, going through its letters one by one; KL by position added up by torch."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *tensors, start, end = arguments
        x_t, logits, reference_logits, zero, one, noise = (part.contiguous() for part in tensors)
        n, length, n_sticks = x_t.shape
        numbers = start - end, _pulled(start, end), (start - end) * (end / start), n * length
        x = torch.empty_like(x_t)
        q, q0 = (torch.empty_like(part, dtype=torch.float32) for part in (logits, reference_logits))
        after, after0, gap = (torch.empty_like(x_t, dtype=torch.float32) for _ in range(3))
        kl = x_t.new_empty(n, length, dtype=torch.float32)
        if x.numel():
            blocks = (x_t, logits, reference_logits, zero, one, noise, x, q, q0, after, after0, gap, kl)
            grid = (-(-n * length // BLOCK),)
            launch(_kernels()[0], grid, *blocks, *numbers, K=n_sticks + 1, MARGIN=EPS, BLOCK=BLOCK)
        ctx.save_for_backward(x_t, q, q0, after, after0, gap, zero, one)
        ctx.numbers, ctx.dtypes = numbers, (logits.dtype, reference_logits.dtype)
        return x, kl.sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, x_gradient: Tensor, kl_gradient: Tensor) -> tuple[Tensor | None, ...]:
        x_t, q, q0, *_, zero, one = saved = ctx.saved_tensors
        n, length, n_sticks = x_t.shape
        out = [torch.empty_like(part) for part in (x_t, q, q0, zero, one)]
        if x_t.numel():
            blocks = (*saved, x_gradient.contiguous(), kl_gradient.contiguous(), *out)
            grid = (-(-n * length // BLOCK),)
            launch(_kernels()[1], grid, *blocks, *ctx.numbers, length, K=n_sticks + 1, MARGIN=EPS, BLOCK=BLOCK)
        to_x_t, to_logits, to_reference_logits, to_zero, to_one = out
        to_logits, to_reference_logits = to_logits.to(ctx.dtypes[0]), to_reference_logits.to(ctx.dtypes[1])
        return to_x_t, to_logits, to_reference_logits, to_zero, to_one, None, None, None


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
        later,
        reference_later,
        gap,
        kl,
        step,
        pulled,
        variance,
        n_positions,
        K: tl.constexpr,
        MARGIN: tl.constexpr,
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
            sine = tl.sin(tl.load(x_t + stick + i, mask=has_stick, other=0.8).to(tl.float32))
            v = tl.minimum(tl.maximum(sine * sine, MARGIN), 1 - MARGIN)
            speed = 2.0 / (1 + b)
            # The last letter has no stick, and b = 0, for which the drift down would be negative.
            drift = step * tl.maximum(0.5 * b - 0.25, 0.0)
            up, down = 0.25 * step + pulled * q * e1, drift + pulled * after * e0
            up0, down0 = 0.25 * step + pulled * q0 * e1, drift + pulled * after0 * e0
            target, target0 = up / (up + down), up0 / (up0 + down0)
            moved = target + (v - target) * tl.exp(-speed * (up + down))
            moved0 = target0 + (v - target0) * tl.exp(-speed * (up0 + down0))
            # asin(x) = pi / 2 - sqrt(1 - x) P(x), to 2e-8: M. Abramowitz and I. Stegun, "Handbook of mathematical
            # functions", 4.4.46.
            root = tl.sqrt(tl.minimum(tl.maximum(moved, MARGIN), 1 - MARGIN))
            root0 = tl.sqrt(tl.minimum(tl.maximum(moved0, MARGIN), 1 - MARGIN))
            series = -0.0012624911 * root + 0.0066700901
            series0 = -0.0012624911 * root0 + 0.0066700901
            series = series * root - 0.0170881256
            series0 = series0 * root0 - 0.0170881256
            series = series * root + 0.0308918810
            series0 = series0 * root0 + 0.0308918810
            series = series * root - 0.0501743046
            series0 = series0 * root0 - 0.0501743046
            series = series * root + 0.0889789874
            series0 = series0 * root0 + 0.0889789874
            series = series * root - 0.2145988016
            series0 = series0 * root0 - 0.2145988016
            series = series * root + 1.5707963050
            series0 = series0 * root0 + 1.5707963050
            mean = 1.5707963268 - tl.sqrt(1 - root) * series
            apart = tl.sqrt(1 - root0) * series0 - tl.sqrt(1 - root) * series
            tl.store(x + stick + i, mean + 0.5 * tl.sqrt(speed * variance) * z, mask=has_stick)
            tl.store(later + stick + i, after, mask=has_stick)
            tl.store(reference_later + stick + i, after0, mask=has_stick)
            tl.store(gap + stick + i, apart, mask=has_stick)
            divergence += tl.where(has_stick, 2 * apart * apart / (speed * variance), 0.0)
            after += q
            after0 += q0
        tl.store(kl + position, divergence, mask=inside)

    @triton.jit
    def backward(
        x_t,
        letters,
        reference_letters,
        later,
        reference_later,
        gap,
        lineages_zero,
        lineages_one,
        x_gradient,
        kl_gradient,
        to_x_t,
        to_logits,
        to_reference_logits,
        to_zero,
        to_one,
        step,
        pulled,
        variance,
        n_positions,
        n_row,
        K: tl.constexpr,
        MARGIN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = position < n_positions
        letter = position * K
        stick = position * (K - 1)
        c = tl.load(kl_gradient + position // n_row, mask=inside, other=0.0).to(tl.float32)
        # The gradient in q_k is that through its own stick, and through what comes after each stick before. First they
        # are written where those in the logits will be, which need their mean under q.
        before = tl.zeros((BLOCK,), tl.float32)
        before0 = tl.zeros((BLOCK,), tl.float32)
        mean = tl.zeros((BLOCK,), tl.float32)
        mean0 = tl.zeros((BLOCK,), tl.float32)
        for i in range(K):
            has_stick = inside & (i < K - 1)
            q = tl.load(letters + letter + i, mask=inside, other=0.0)
            q0 = tl.load(reference_letters + letter + i, mask=inside, other=0.0)
            after = tl.load(later + stick + i, mask=has_stick, other=0.0)
            after0 = tl.load(reference_later + stick + i, mask=has_stick, other=0.0)
            e0 = tl.load(lineages_zero + stick + i, mask=has_stick, other=0.0).to(tl.float32)
            e1 = tl.load(lineages_one + stick + i, mask=has_stick, other=0.0).to(tl.float32)
            g = tl.load(x_gradient + stick + i, mask=has_stick, other=0.0).to(tl.float32)
            d = tl.load(gap + stick + i, mask=has_stick, other=0.0)
            theta = tl.load(x_t + stick + i, mask=has_stick, other=0.8).to(tl.float32)
            sine = tl.sin(theta)
            v = tl.minimum(tl.maximum(sine * sine, MARGIN), 1 - MARGIN)
            # Without a stick nothing comes in, and any b will do.
            b = tl.maximum(K - 1 - i, 1)
            speed = 2.0 / (1 + b)
            up, down = 0.25 * step + pulled * q * e1, step * (0.5 * b - 0.25) + pulled * after * e0
            up0, down0 = 0.25 * step + pulled * q0 * e1, step * (0.5 * b - 0.25) + pulled * after0 * e0
            target, target0 = up / (up + down), up0 / (up0 + down0)
            left, left0 = tl.exp(-speed * (up + down)), tl.exp(-speed * (up0 + down0))
            moved, moved0 = target + (v - target) * left, target0 + (v - target0) * left0
            # From the gradients in the mean angles to those in the next sticks, in q E1 and in Q E0.
            to_angle0 = -4 * c * d / (speed * variance)
            kept = tl.minimum(tl.maximum(moved, MARGIN), 1 - MARGIN)
            kept0 = tl.minimum(tl.maximum(moved0, MARGIN), 1 - MARGIN)
            to_moved = 0.5 * (g - to_angle0) / tl.sqrt(kept * (1 - kept))
            to_moved0 = 0.5 * to_angle0 / tl.sqrt(kept0 * (1 - kept0))
            to_moved = tl.where((moved >= MARGIN) & (moved <= 1 - MARGIN), to_moved, 0.0)
            to_moved0 = tl.where((moved0 >= MARGIN) & (moved0 <= 1 - MARGIN), to_moved0, 0.0)
            nearer, nearer0 = (1 - left) / (up + down), (1 - left0) / (up0 + down0)
            faster, faster0 = speed * (v - target) * left, speed * (v - target0) * left0
            to_up = pulled * to_moved * (nearer * (1 - target) - faster)
            to_up0 = pulled * to_moved0 * (nearer0 * (1 - target0) - faster0)
            to_down = -pulled * to_moved * (nearer * target + faster)
            to_down0 = -pulled * to_moved0 * (nearer0 * target0 + faster0)
            to_v = to_moved * left + to_moved0 * left0
            free = (sine * sine >= MARGIN) & (sine * sine <= 1 - MARGIN)
            tl.store(to_x_t + stick + i, tl.where(free, to_v * tl.sin(2 * theta), 0.0), mask=has_stick)
            tl.store(to_zero + stick + i, to_down * after + to_down0 * after0, mask=has_stick)
            tl.store(to_one + stick + i, to_up * q + to_up0 * q0, mask=has_stick)
            tl.store(to_logits + letter + i, to_up * e1 + before, mask=inside)
            tl.store(to_reference_logits + letter + i, to_up0 * e1 + before0, mask=inside)
            mean += to_up * q * e1 + to_down * after * e0
            mean0 += to_up0 * q0 * e1 + to_down0 * after0 * e0
            before += to_down * e0
            before0 += to_down0 * e0
        tl.debug_barrier()
        for i in range(K):
            q = tl.load(letters + letter + i, mask=inside, other=0.0)
            q0 = tl.load(reference_letters + letter + i, mask=inside, other=0.0)
            to_q = tl.load(to_logits + letter + i, mask=inside, other=0.0)
            to_q0 = tl.load(to_reference_logits + letter + i, mask=inside, other=0.0)
            tl.store(to_logits + letter + i, q * (to_q - mean), mask=inside)
            tl.store(to_reference_logits + letter + i, q0 * (to_q0 - mean0), mask=inside)

    return forward, backward
