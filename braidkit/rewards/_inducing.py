"""Any gpytorch kernel as finite features: inducing points (Nystrom), and what they leave out.

With inducing points Z the features phi(x) = L^-1 k(Z, x), L L^T = k(Z, Z), give q(x, x') = phi(x)^T phi(x'), the part
of the kernel that Z explains. The residual k(x, x) - q(x, x) >= 0 is what it does not.
"""

from __future__ import annotations

import gpytorch
import torch
from torch import Tensor, nn

from braidkit.rewards.evidence import SMALLEST
from braidkit.rewards.row_noise import RowNoise

MARGINAL_LIKELIHOOD_ROWS = 500
MARGINAL_LIKELIHOOD_STEPS = 50


class InducingFeatures(nn.Module):
    """Features of a kernel at inducing points, float64.

    Parameters
    ----------
    kernel : gpytorch.kernels.Kernel
        In float64; used as it is, so pass a copy of a user's kernel.
    candidates : Tensor of shape (n, d)
        Points to choose from.
    n_inducing : int
        Most points to choose; fewer are taken once they explain the kernel on all candidates.

    Attributes
    ----------
    points : Tensor of shape (m, d)
        The inducing points Z.
    factor : Tensor of shape (m, m)
        L, lower triangular.
    """

    points: Tensor
    factor: Tensor

    def __init__(self, kernel: gpytorch.kernels.Kernel, candidates: Tensor, n_inducing: int) -> None:
        super().__init__()
        self.kernel = kernel
        chosen, factor = greedy_cholesky(kernel, candidates, n_inducing)
        self.register_buffer("points", candidates[chosen])
        self.register_buffer("factor", factor)

    @property
    def width(self) -> int:
        return len(self.points)

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, m) and residuals (n,) of points (n, d)."""
        cross = self.kernel(self.points, f).to_dense()  # (m, n)
        phi = torch.linalg.solve_triangular(self.factor, cross, upper=False).T
        residual = self.kernel(f, diag=True) - phi.square().sum(dim=1)
        return phi, residual.clamp_min(0.0)


@torch.no_grad()
def greedy_cholesky(kernel: gpytorch.kernels.Kernel, candidates: Tensor, n_inducing: int) -> tuple[Tensor, Tensor]:
    """Choose inducing points one by one where the kernel is explained worst: pivoted Cholesky.

    Points that the chosen ones explain to 1e-10 of the kernel's scale are never chosen, so the factor needs no jitter.

    Returns
    -------
    chosen : LongTensor of shape (m,)
        Rows of the candidates.
    factor : Tensor of shape (m, m)
        Lower triangular; factor factor^T is the kernel matrix of the chosen points.
    """
    residual = kernel(candidates, diag=True).clone()
    limit = 1e-10 * residual.max()
    columns = candidates.new_zeros(len(candidates), min(n_inducing, len(candidates)))
    chosen: list[int] = []
    for j in range(columns.shape[1]):
        pivot = int(residual.argmax())
        if residual[pivot] <= limit:
            break
        column = kernel(candidates, candidates[pivot : pivot + 1]).to_dense()[:, 0]
        column = (column - columns[:, :j] @ columns[pivot, :j]) / residual[pivot].sqrt()
        columns[:, j] = column
        residual = (residual - column.square()).clamp_min(0.0)
        residual[pivot] = 0.0  # exactly, not up to rounding: no point is chosen twice
        chosen.append(pivot)
    index = torch.tensor(chosen, device=candidates.device)
    return index, columns[index, : len(chosen)].tril()


def fit_kernel(
    kernel: gpytorch.kernels.Kernel, f: Tensor, y: Tensor, noise: float | None, row_noise: RowNoise | None = None
) -> float:
    """Maximise the marginal likelihood over the kernel's parameters that require gradients, in place, and the noise.

    Points (n, d) and standardised targets (n,) in float64; the cost is cubic in n. A noise variance that is given
    stays; the one used is returned.
    """
    log_noise = torch.full((), 0.5 if noise is None else noise).to(f).log().requires_grad_(noise is None)
    parameters = [parameter for parameter in (*kernel.parameters(), log_noise) if parameter.requires_grad]
    if not parameters:
        return float(log_noise.exp())
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    row_noise = RowNoise.read(len(f)) if row_noise is None else row_noise
    share, known = row_noise.tensors(f)
    n_repeats, within = row_noise.repeats()
    for _ in range(MARGINAL_LIKELIHOOD_STEPS):
        own = log_noise.exp().clamp_min(SMALLEST)
        covariance = kernel(f).to_dense() + (own * share + known).diag()
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed:
            break
        whitened = torch.linalg.solve_triangular(factor, y[:, None], upper=False)
        loss = 0.5 * whitened.square().sum() + factor.diagonal().log().sum()
        loss = loss + 0.5 * (n_repeats * own.log() + within / own)
        optimizer.zero_grad()
        (loss / len(f)).backward()
        optimizer.step()
    return float(log_noise.detach().exp().clamp_min(SMALLEST)) if noise is None else noise
