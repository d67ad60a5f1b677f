"""A Gaussian process whose kernel is a sum of parts, each as large as the evidence says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from braidkit.rewards.cross_fitting import CrossFittedNetworks
from braidkit.rewards.evidence import CONSTANT, fit_scale_and_noise, fit_variances
from braidkit.rewards.parts import Parts, Views

# Rows that the parts' variances are fitted on: their precision grows slowly with more, and the cost with the cube.
EVIDENCE_ROWS = 800
# Rows that the kernel is centred on. Up to this many the process is exact; beyond, a random choice of them stands for
# all (Nystrom), and every row still counts.
MAX_POINTS = 2000
SOME_POINTS = 1000
# Parts below this share of the function's variance are left out: they cost time and change nothing.
SMALLEST_SHARE = 0.01
NETWORK = "network"
# Numbers in a matrix of one batch: what bounds the memory.
BATCH_NUMBERS = 2**19


class SumKernelProcess(nn.Module):
    """Posterior mean and variance of a Gaussian process with a sum of kernels, of the function without noise.

    Fitted by `fit`. With points Z and their kernel matrix K_ZZ the features ``phi(x) = W^T k(Z, x)``, ``W W^T`` the
    pseudo-inverse of K_ZZ, stand for the kernel. Up to 2,000 rows Z is all of them, and nothing is left out; beyond,
    the part of the kernel that Z does not explain stays in the variance.

    Parameters
    ----------
    parts : Parts
    networks : CrossFittedNetworks, optional
        Their mean is one more feature, and what they disagree on is added to the variance.

    Attributes
    ----------
    variances : dict of str to float
        Of each part that is kept, in units of y's variance.
    noise : float
        Variance of the noise, in the same units.
    scale : float
        By which the evidence of all rows multiplies the variances that some rows gave.
    """

    weights: Tensor
    root: Tensor

    def __init__(self, parts: Parts, networks: CrossFittedNetworks | None = None) -> None:
        super().__init__()
        self.parts = parts
        self.networks = networks
        self.variances: dict[str, float] = {}
        self.noise = 0.0
        self.scale = 1.0

    @torch.no_grad()
    def fit(
        self, x: Tensor, y: Tensor, held_out: Tensor | None, *, random_state: np.random.RandomState
    ) -> SumKernelProcess:
        """Weigh the parts by evidence, and solve for the posterior.

        Parameters
        ----------
        x : Tensor of shape (n, \\*space.shape)
        y : Tensor of shape (n,), float64
            Standardised.
        held_out : Tensor of shape (n,) or None
            Predictions by networks that have not seen the row (`cross_fit`).
        random_state : RandomState
        """
        order = torch.from_numpy(random_state.permutation(len(x)))
        self._fit_parts(x, y, held_out, order[:EVIDENCE_ROWS])
        n_points = len(x) if len(x) <= MAX_POINTS else SOME_POINTS
        rows = order[:n_points]
        points = self._views(x[rows], None if held_out is None else held_out[rows])
        for name, view in points.items():
            self.register_buffer(f"points_{name}", view)
        self._point_names = list(points)
        s, vectors = torch.linalg.eigh(self._kernel(points, points))
        if n_points == len(x):
            s = s.clamp_min(1e-15 * float(s[-1]))
            W, moment = vectors / s.sqrt(), s.sqrt() * (vectors.T @ y[rows])
        else:
            kept = s > 1e-10 * s[-1]
            W = vectors[:, kept] / s[kept].sqrt()
            s, W, moment = self._see_rows(x, y, held_out, order, points, W)
        if len(x) > EVIDENCE_ROWS:
            self.scale, self.noise = fit_scale_and_noise(s, moment, float(y @ y), len(x))
            self.variances = {name: self.scale * variance for name, variance in self._unscaled.items()}
        ratio = self.noise / self.scale
        weights = W @ (moment / (s + ratio))
        if n_points == len(x):
            weights *= leave_one_out_slope(y[rows], weights, vectors.square() @ (1 / (s + ratio)))
        self.register_buffer("weights", weights)
        self.register_buffer("root", W * (s / (s + ratio)).sqrt())
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (n,) of points (n, \\*space.shape), float64, with gradients."""
        prediction, spread = (None, 0.0) if self.networks is None else self.networks(x)
        views = self._views(x, prediction)
        points = {name: self.get_buffer(f"points_{name}") for name in self._point_names}
        kernel = self._kernel(views, points)
        mean = kernel @ self.weights
        # Of the kernel's own diagonal, less what the rows tell.
        variance = self.scale * (self._diagonal(views) - (kernel @ self.root).square().sum(dim=1)).clamp_min(0.0)
        if NETWORK in self.variances:
            weight = self._unscaled[NETWORK] * (points[NETWORK][:, 0] @ self.weights)
            variance = variance + weight.square() * spread
        return mean, variance

    def _see_rows(
        self, x: Tensor, y: Tensor, held_out: Tensor | None, rows: Tensor, points: Views, root: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues of Phi^T Phi of all rows, the features' root W turned to its eigenvectors, and Phi^T y."""
        gram, moment = root.new_zeros(root.shape[1], root.shape[1]), root.new_zeros(root.shape[1])
        for part in rows.split(max(BATCH_NUMBERS // len(root), 1)):
            views = self._views(x[part], None if held_out is None else held_out[part])
            phi = self._kernel(views, points) @ root
            gram.addmm_(phi.T, phi)
            moment.addmv_(phi.T, y[part])
        s, vectors = torch.linalg.eigh(gram)
        return s.clamp_min(0), root @ vectors, vectors.T @ moment

    def _fit_parts(self, x: Tensor, y: Tensor, held_out: Tensor | None, rows: Tensor) -> None:
        """Fit the variance of each part on some rows, and keep those that matter."""
        views = self._views(x[rows], None if held_out is None else held_out[rows], self.parts.names)
        names = [*self.parts.names, *([NETWORK] if NETWORK in views else [])]
        matrices = self.parts.matrices(views, views, names)
        found = fit_variances(torch.stack(list(matrices.values())), y[rows])
        least = SMALLEST_SHARE * float(found.parts.sum())
        self._unscaled = {n: v for n, v in zip(matrices, found.parts.tolist(), strict=True) if v >= least}
        if NETWORK not in self._unscaled:
            self.networks = None
        self.variances, self.noise = dict(self._unscaled), found.noise

    def _views(self, x: Tensor, prediction: Tensor | None, wanted: object = None) -> Views:
        """What the parts need of points, and the networks' prediction (n, 1) where it counts."""
        views = self.parts.views(x)
        if prediction is not None and (wanted is not None or NETWORK in self._unscaled):
            views[NETWORK] = prediction[:, None]
        return views

    def _kernel(self, a: Views, b: Views) -> Tensor:
        """The sum of the parts (n, m), before the common scale."""
        matrices = self.parts.matrices(a, b, self._unscaled)
        return CONSTANT + sum(self._unscaled[name] * matrix for name, matrix in matrices.items())

    def _diagonal(self, a: Views) -> Tensor:
        """The kernel of each point with itself (n,), before the common scale."""
        diagonals = self.parts.diagonals(a, self._unscaled)
        return CONSTANT + sum(self._unscaled[name] * diagonal for name, diagonal in diagonals.items())


def leave_one_out_slope(y: Tensor, weights: Tensor, precision: Tensor) -> float:
    """What predictions of each row from the others must be multiplied by, at most 1 and at least 0.

    Evidence is optimistic about few rows, most of all where there is nothing to learn: the mean of rows left out tells.
    With A = K + noise I the prediction without row i is ``y_i - (A^-1 y)_i / (A^-1)_ii`` (Rasmussen and Williams, 2006,
    equation 5.12).

    Parameters
    ----------
    y : Tensor of shape (n,)
    weights : Tensor of shape (n,)
        A^-1 y.
    precision : Tensor of shape (n,)
        Diagonal of A^-1.
    """
    left_out = y - weights / precision
    return float((left_out @ y / left_out.square().sum().clamp_min(1e-12)).clamp(0.0, 1.0))
