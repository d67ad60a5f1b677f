"""Variance of a linear Gaussian process at many rows: squared row norms of features times a triangular root."""

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

BLOCK = 32


def posterior_variance(phi: Tensor, root: Tensor) -> Tensor:
    r"""Squared norms of the rows of ``phi R``: the posterior variance lam phi^T A^-1 phi.

    With the Cholesky factor L of A = Phi^T Phi + lam I and ``R = sqrt(lam) L^-T`` it is ``lam |L^-1 phi|^2``: R is
    computed once, and a query is then a product with a triangular matrix in place of a triangular solve.

    Parameters
    ----------
    phi : Tensor of shape (n, d)
        Features.
    root : Tensor of shape (d, d)
        Upper triangular R, zero below the diagonal; a constant, which takes no gradient.

    Returns
    -------
    variance : Tensor of shape (n,)
        In the root's type. The gradient flows to the features.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit.

    References
    ----------
    BRAID (Uehara et al., 2024), Example 1, in weight space.

    Examples
    --------
    >>> posterior_variance(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    tensor([10.])
    """
    if phi.ndim != 2 or root.shape != (phi.shape[1], phi.shape[1]):
        raise InvalidParameterError(
            f"features (n, d) need a root (d, d); got shapes {tuple(phi.shape)} and {tuple(root.shape)}."
        )
    if root.dtype == torch.float32 and runs_triton(phi, root):
        return _PosteriorPenalty.apply(phi, root)
    return posterior_variance_torch(phi, root)


def posterior_variance_torch(phi: Tensor, root: Tensor) -> Tensor:
    """The same in plain torch."""
    return (phi.to(root.dtype) @ root.detach()).square().sum(dim=1)


class _PosteriorPenalty(torch.autograd.Function):
    """The same in Triton: tiles of ``phi R``, over the upper triangle only, squared and added up by rows."""

    @staticmethod
    def forward(ctx: Any, phi: Tensor, root: Tensor) -> Tensor:
        phi, root = phi.contiguous(), root.contiguous()
        n, d = phi.shape
        grid = (-(-n // BLOCK), -(-d // BLOCK))
        product = root.new_empty(n, d)
        sums = root.new_empty(n, grid[1])
        if product.numel():
            launch(_kernels()[0], grid, phi, root, product, sums, n, d, BLOCK=BLOCK)
        ctx.save_for_backward(root, product)
        ctx.dtype = phi.dtype
        return sums.sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        root, product = ctx.saved_tensors
        n, d = product.shape
        out = torch.empty_like(product, dtype=ctx.dtype)
        if out.numel():
            grid = (-(-n // BLOCK), -(-d // BLOCK))
            launch(_kernels()[1], grid, product, root, gradient.contiguous(), out, n, d, BLOCK=BLOCK)
        return out, None


@functools.cache
def _kernels() -> tuple[Any, Any]:
    """The forward and the backward kernel."""
    triton = load_triton()
    import triton.language as tl

    @triton.jit
    def forward(phi, root, product, sums, n, d, BLOCK: tl.constexpr):
        row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
        column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
        inner = tl.arange(0, BLOCK)
        total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
        # (phi R)_j = sum_{k <= j} phi_k R_kj
        for start in range(0, (tl.program_id(1) + 1) * BLOCK, BLOCK):
            k = start + inner
            left = tl.load(phi + row.to(tl.int64) * d + k[None, :], mask=(row < n) & (k[None, :] < d), other=0.0)
            right = tl.load(root + k[:, None] * d + column, mask=(k[:, None] < d) & (column < d), other=0.0)
            total = tl.dot(left.to(tl.float32), right, total, input_precision="ieee")
        tl.store(product + row.to(tl.int64) * d + column, total, mask=(row < n) & (column < d))
        at = tl.program_id(0) * BLOCK + inner
        tl.store(sums + at * tl.num_programs(1) + tl.program_id(1), tl.sum(total * total, axis=1), mask=at < n)

    @triton.jit
    def backward(product, root, gradient, out, n, d, BLOCK: tl.constexpr):
        row = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
        column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
        inner = tl.arange(0, BLOCK)
        total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
        # d |phi R|^2 / d phi_k = 2 sum_{j >= k} (phi R)_j R_kj
        for start in range(tl.program_id(1) * BLOCK, d, BLOCK):
            j = start + inner
            left = tl.load(product + row.to(tl.int64) * d + j[None, :], mask=(row < n) & (j[None, :] < d), other=0.0)
            right = tl.load(root + column * d + j[:, None], mask=(column < d) & (j[:, None] < d), other=0.0)
            total = tl.dot(left, right, total, input_precision="ieee")
        scale = 2 * tl.load(gradient + row, mask=row < n, other=0.0)
        tl.store(out + row.to(tl.int64) * d + column, scale * total, mask=(row < n) & (column < d))

    return forward, backward
