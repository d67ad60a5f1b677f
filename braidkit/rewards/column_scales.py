"""How much each column of vectors matters: scales of columns in a kernel, by marginal likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from braidkit.rewards.evidence import CONSTANT, PRIOR_MEAN, PRIOR_STD, SMALLEST
from braidkit.rewards.row_noise import RowNoise

# Rows that the scales are fitted on.
SCALE_ROWS = 600
MAX_ITER = 150
# Sum of the scales with which the search begins: typical rows then have a correlation of e^-3.
FIRST_SUM = 3.0
# Squared scales a priori have the density of (a^2 + this) to the power -COST: each tenfold growth beyond it needs 2.3
# COST nats of evidence. So a column counts only where rows ask for it; more must ask where it is one of hundreds.
LEAST_SQUARE = 1e-4

Kernel = Callable[[Tensor, Tensor], Tensor]


def cost_of(n_columns: int) -> float:
    """COST among so many columns."""
    return max(1.0, math.log(n_columns) / 3)


def smooth(x: Tensor, z: Tensor) -> Tensor:
    """``exp(-|x - z|^2 / 2)`` (..., n, m) of rows (..., n, d) and (..., m, d)."""
    return torch.exp(-0.5 * squared_distances(x, z))


def rough(x: Tensor, z: Tensor) -> Tensor:
    """``exp(-sum_j |x_j - z_j|)`` (..., n, m): functions with steps along columns, as those of trees.

    It is the kernel of a Mondrian forest (Lakshminarayanan et al., 2016, "Mondrian forests for large-scale regression
    when uncertainty matters").
    """
    return torch.exp(-torch.cdist(x, z, p=1))


def squared_distances(x: Tensor, z: Tensor) -> Tensor:
    """Squared Euclidean distances (..., n, m) of rows (..., n, d) and (..., m, d)."""
    return (x.square().sum(dim=-1)[..., :, None] + z.square().sum(dim=-1)[..., None, :] - 2 * x @ z.mT).clamp_min(0)


def first_scales(n: int) -> Tensor:
    """Scales (n,) before any row is seen."""
    return torch.full((n,), math.sqrt(FIRST_SUM / n), dtype=torch.float64)


def fit_scales(
    kernel: Kernel, x: Tensor, y: Tensor, row_noise: RowNoise | None = None, *, start: Tensor | None = None
) -> Tensor:
    """Maximise the evidence of a kernel of scaled columns, a linear one and noise, over all scales and variances.

    The logarithms of the squared scales are searched by L-BFGS, with a prior by which most columns do not matter. As it
    may drop a column too early, the search begins a second time where one without that prior has ended.

    Parameters
    ----------
    kernel : callable
        From rows (n, d) and (m, d) to a matrix (n, m) with a diagonal of 1.
    x : Tensor of shape (n, d), float64
        Standardised rows. A column that does not vary keeps its scale.
    y : Tensor of shape (n,), float64
        Standardised.
    row_noise : RowNoise, optional
        On the scale of y.
    start : Tensor of shape (d,), optional
        Scales of a single search to begin with.

    Returns
    -------
    scales : Tensor of shape (d,), float64
        What columns are to be multiplied by.

    References
    ----------
    Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), sections 5.1 and 5.4.1.

    Examples
    --------
    >>> x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).double()
    >>> scales = fit_scales(smooth, x, torch.sin(2 * x[:, 0]))
    >>> bool(scales[0] > 10 * scales[1])
    True
    """
    n, d = x.shape
    share, known = (RowNoise.read(n) if row_noise is None else row_noise).tensors(y)
    linear = x @ x.T / d
    varies = (x != x[0]).any(dim=0).double().cpu().numpy()

    def loss(logs: np.ndarray, cost: float) -> tuple[float, np.ndarray]:
        squares, (of_kernel, of_linear, noise) = np.exp(logs[:d]), np.exp(logs[d:]).tolist()
        scales = torch.from_numpy(np.sqrt(squares)).to(x).requires_grad_()
        scaled = x * scales
        matrix = kernel(scaled, scaled)
        covariance = of_kernel * matrix.detach() + of_linear * linear + CONSTANT + (noise * share + known).diag()
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed:
            return 1e10, np.zeros_like(logs)
        solved = torch.cholesky_solve(y[:, None], factor)[:, 0]
        value = 0.5 * float(y @ solved) + float(factor.diagonal().log().sum())
        # Equation (5.9): half of the derivative by each entry of the covariance.
        sensitivity = 0.5 * (torch.cholesky_inverse(factor) - torch.outer(solved, solved))
        matrix.backward(of_kernel * sensitivity)
        assert scales.grad is not None
        gradient = scales.grad.cpu().numpy() * np.sqrt(squares) / 2 + cost * squares / (squares + LEAST_SQUARE)
        of_variances = [
            of_kernel * float((matrix.detach() * sensitivity).sum()),
            of_linear * float((linear * sensitivity).sum()),
            noise * float(sensitivity.diagonal() @ share),
        ]
        z = (logs[d:] - PRIOR_MEAN) / PRIOR_STD
        value += cost * float(np.log1p(squares / LEAST_SQUARE) @ varies) + 0.5 * float(z @ z)
        return value, np.concatenate([gradient * varies, of_variances + z / PRIOR_STD])

    def search(logs: np.ndarray, cost: float) -> OptimizeResult:
        with torch.enable_grad():
            return minimize(loss, logs, (cost,), jac=True, method="L-BFGS-B", bounds=bounds, options=options)

    first = first_scales(d) if start is None else start
    logs = np.concatenate([2 * np.log(first.cpu().numpy()), np.log([0.5, 0.1, 0.4])])
    bounds = [(-14.0, 6.0)] * d + [(-14.0, 4.0)] * 2 + [(math.log(SMALLEST), 1.0)]
    options = {"maxiter": MAX_ITER}
    found = search(logs, cost_of(d))
    if start is None:
        found = min(found, search(search(logs, 0.0).x, cost_of(d)), key=lambda result: float(result.fun))
    return torch.from_numpy(np.exp(found.x[:d] / 2)).to(x)
