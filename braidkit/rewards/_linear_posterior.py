"""Gaussian-process posterior with a linear kernel, in weight space and streamed over batches.

With features phi(x) of width d, only A = Phi^T Phi + lam I (d x d) is kept of n rows. It costs O(n d^2) once and O(d^2)
per query. This is Example 1 of BRAID, written for the weights instead of the n x n Gram matrix.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from braidkit.exceptions import InvalidParameterError
from braidkit.kernels import has_kernels, posterior_variance


class LinearPosterior(nn.Module):
    """Mean and variance of a Gaussian process with kernel phi(x)^T phi(x') and noise variance `lam`.

    mean(x) = phi^T A^-1 Phi^T y, variance(x) = lam phi^T A^-1 phi: the posterior of the noiseless function, which
    is what Example 1 writes as Y (K + lam I)^-1 k(x) and k(x, x) - k(x)^T (K + lam I)^-1 k(x).

    Everything is in float64, but for the variance where a kernel computes it. Feed rows with `update`, then call
    `solve` once; both methods are differentiable in the features.

    Parameters
    ----------
    n_features : int
        Width d of the features.
    lam : float
        Noise variance, > 0, added to the *sum* Gram matrix.

    Attributes
    ----------
    gram : Tensor of shape (d, d)
        Phi^T Phi of the rows seen.
    moment : Tensor of shape (d,)
        Phi^T y of the rows seen.
    weights : Tensor of shape (d,)
        A^-1 Phi^T y, after `solve`.
    root : Tensor of shape (d, d)
        R with R R^T = lam A^-1, after `solve`.

    Examples
    --------
    >>> phi = torch.tensor([[1.0], [1.0]])
    >>> posterior = LinearPosterior.from_batches([(phi, torch.tensor([1.0, 3.0]))], n_features=1, lam=2.0)
    >>> posterior.mean(phi[:1]).item(), posterior.variance(phi[:1]).item()
    (1.0, 0.5)
    """

    gram: Tensor
    moment: Tensor
    weights: Tensor
    root: Tensor

    def __init__(self, n_features: int, lam: float) -> None:
        super().__init__()
        self.lam = float(lam)
        for name, shape in {
            "gram": (n_features, n_features),
            "moment": (n_features,),
            "weights": (n_features,),
            "root": (n_features, n_features),
        }.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[tuple[Tensor, Tensor]],
        *,
        n_features: int,
        lam: float,
        device: torch.device | str = "cpu",
    ) -> LinearPosterior:
        """Accumulate (features (n, d), targets (n,)) batches and solve."""
        posterior = cls(n_features, lam).to(device)
        for phi, y in batches:
            posterior.update(phi, y)
        posterior.solve()
        return posterior

    @torch.no_grad()
    def update(self, phi: Tensor, y: Tensor) -> None:
        """Add rows: features (n, d) and targets (n,) of any floating type."""
        phi, y = phi.to(self.gram), y.to(self.moment)
        self.gram.addmm_(phi.T, phi)
        self.moment.addmv_(phi.T, y)

    @torch.no_grad()
    def solve(self) -> None:
        """Factorise A once; afterwards a query costs one product with a d x d matrix."""
        identity = torch.eye(len(self.gram)).to(self.gram)
        lower, failed = torch.linalg.cholesky_ex(self.gram + self.lam * identity)
        if failed:
            raise InvalidParameterError(
                f"lam = {self.lam:g} is lost in rounding beside a Gram matrix with entries up to "
                f"{self.gram.abs().max().item():.3g}; pass a larger lam."
            )
        self.weights.copy_(torch.cholesky_solve(self.moment[:, None], lower)[:, 0])
        inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
        self.root.copy_(self.lam**0.5 * inverse.T)

    def mean(self, phi: Tensor) -> Tensor:
        """Posterior mean of features (n, d), shape (n,)."""
        return phi.to(self.weights.dtype) @ self.weights

    def variance(self, phi: Tensor) -> Tensor:
        """Posterior variance of features (n, d), shape (n,), without the noise; a kernel computes in float32."""
        # A sum of squares of products with a root of norm 1 at most: float32 costs digits, but never a sign.
        root = self.root.float() if has_kernels(phi.device) else self.root
        return posterior_variance(phi.to(root.dtype), root).double()
