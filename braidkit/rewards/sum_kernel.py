"""A Gaussian process whose kernel is a sum of parts, each as large as the evidence says."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

from braidkit.rewards.cross_fitting import CrossFittedNetworks
from braidkit.rewards.evidence import (
    CONSTANT,
    LEAST_GAIN,
    Variances,
    better_left_out,
    fit_variances,
    select_groups,
)
from braidkit.rewards.parts import NETWORK, Parts, Views
from braidkit.rewards.row_noise import RowNoise
from braidkit.spaces import Points

# Rows that groups of parts are chosen on, and that the variances of the chosen parts are then fitted on: the cost grows
# with the cube of their number.
SELECTION_ROWS = 800
EVIDENCE_ROWS = 2000
REFITS = 15  # iterations of the latter, which begins near its end
# Rows that the kernel is centred on. Up to this many the process is exact; beyond, a random choice of them stands for
# all (Nystrom), and every row still counts: as many as keep the work of 3,000 rows with 1,500 points, and at least 500.
MAX_POINTS = 3000
SOME_POINTS = 500
POINTS_TIMES_ROWS = 3000 * 1500
# Parts below this share of the function's variance are left out: they cost time and change nothing.
SMALLEST_SHARE = 0.01
# With fewer rows evidence can choose no groups: all parts are used, as any may be true, and the mean is shrunk where
# evidence is weak. With more rows a shrunk mean would leave only the deviation to rank designs by.
FEW_ROWS = 250
# Nats that variances of parts gain, about, where y is noise: below, the mean is rather that of noise alone.
GAIN_ON_NOISE = 2.0
# Numbers in a matrix of one batch: what bounds the memory.
BATCH_NUMBERS = 2**19


class SumKernelProcess(nn.Module):
    """Posterior mean and variance of a Gaussian process with a sum of kernels, of the function without noise.

    With points Z and their kernel matrix K_ZZ, the features ``phi(x) = W^T k(Z, x)`` represent the kernel, where
    ``W W^T`` is the pseudo-inverse of K_ZZ. Up to 3,000 rows Z is all of them, and the process is exact. Beyond, Z is
    some of the rows, and the part of the kernel that Z does not explain stays in the variance.

    Parameters
    ----------
    parts : Parts
    networks : CrossFittedNetworks, optional
        The mean of each kind is one more feature, and the networks' disagreement is added to the variance.

    Attributes
    ----------
    variances : dict of str to float
        Variance of each part that is kept, in units of y's variance.
    noise : float
        Variance of the noise, in the same units.
    """

    weights: Tensor
    root: Tensor
    whitening: Tensor
    coefficients: Tensor
    _constant: Tensor

    def __init__(self, parts: Parts, networks: CrossFittedNetworks | None = None) -> None:
        super().__init__()
        self.parts = parts
        self.networks = networks
        self.variances: dict[str, float] = {}
        self.noise = 0.0
        self.register_buffer("_constant", torch.tensor(CONSTANT, dtype=torch.float64))

    @torch.no_grad()
    def fit(
        self,
        x: Points | Tensor,
        y: Tensor,
        held_out: Tensor | None,
        *,
        row_noise: RowNoise | None = None,
        random_state: np.random.RandomState,
    ) -> SumKernelProcess:
        """Weigh the parts by evidence, and solve for the posterior.

        Parameters
        ----------
        x : Points or Tensor of shape (n, \\*space.shape)
        y : Tensor of shape (n,), float64
            Standardised.
        held_out : Tensor of shape (n, n_kinds) or None
            Predictions by networks that have not seen the row (`cross_fit`).
        row_noise : RowNoise, optional
            On the scale of y.
        random_state : RandomState
        """
        order = torch.from_numpy(random_state.permutation(len(x)))
        y = y.to(self.parts.get_buffer("mean").device)
        held_out = None if held_out is None else held_out.to(y.device)
        row_noise = RowNoise.read(len(x)) if row_noise is None else row_noise
        found = self._fit_parts(x, y, held_out, order, row_noise)
        # Multiply each row by the root of its precision, so that all rows have the same noise variance.
        roots = row_noise.root_precision(self.noise).to(y)
        n_points = len(x) if len(x) <= MAX_POINTS else max(SOME_POINTS, min(POINTS_TIMES_ROWS // len(x), len(x) // 2))
        rows = order[:n_points]
        points = self._views(x[rows].double(), None if held_out is None else held_out[rows])
        for name, view in points.items():
            self.register_buffer(f"points_{name}", view.to(self.parts.dtype))
        self._point_names = list(points)
        exact, q = n_points == len(x), roots[rows]
        kernel = self._kernel(points, points)
        # One eigendecomposition, V diag(s) V^T, gives the posterior: (K + noise I)^-1 = V diag(1 / (s + noise)) V^T.
        s, vectors = torch.linalg.eigh(q[:, None] * kernel * q if exact else kernel)
        if exact:
            s = s.clamp_min(1e-15 * float(s[-1]))
            W, moment = q[:, None] * vectors / s.sqrt(), s.sqrt() * (vectors.T @ (q * y[rows]))
        else:
            kept = s > 1e-10 * s[-1]
            W = vectors[:, kept] / s[kept].sqrt()
            s, W, moment = self._see_rows(x, y, held_out, order, points, W, roots)
        # Rasmussen and Williams, equation (2.25): the mean is k(x, Z) weights.
        weights = W @ (moment / (s + self.noise))
        # Shrink the mean towards 0 if the parts gain so little evidence that y may be noise alone.
        share = 1.0
        if len(x) < FEW_ROWS:
            share /= 1 + math.exp(min(GAIN_ON_NOISE - found.gain, 700.0))
            share *= left_out_share(q * y[rows], weights / q, vectors.square() @ (1 / (s + self.noise)))
        self.register_buffer("whitening", W)
        self.register_buffer("coefficients", share * moment / (s + self.noise))
        self.register_buffer("weights", share * weights)
        self.register_buffer("root", W * (s / (s + self.noise)).sqrt())
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (n,) of points (n, \\*space.shape), float64, with gradients."""
        views, predictions = self._seen(x)
        kernel = self._kernel(views, self._points())
        # Equation (2.26): the prior variance minus the part that the rows explain.
        known = (kernel @ self.root).square().sum(dim=1)
        variance = (self._diagonal(views) - known).clamp_min(0.0)
        if predictions is not None:
            variance = variance + self._spread(predictions)
        return kernel @ self.weights, variance

    def linear_features(self, x: Tensor) -> Tensor:
        """Features phi (n, d) whose products are the kernel, by its points: the mean is phi coefficients."""
        views, _ = self._seen(x)
        return self._kernel(views, self._points()) @ self.whitening

    def difference(
        self, x: Tensor, other: Tensor, shares: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Means (n,) of x less those of other points, and the variance of their average, with what both share.

        Means are times `shares`, (n,) of either side, if given.
        """
        (one, predicted), (two, predicted_other) = self._seen(x), self._seen(other)
        a, b = (torch.ones(len(x)).to(self.weights),) * 2 if shares is None else shares
        kernel = a[:, None] * self._kernel(one, self._points()) - b[:, None] * self._kernel(two, self._points())
        own = a @ self._kernel(one, one) @ a - 2 * a @ self._kernel(one, two) @ b + b @ self._kernel(two, two) @ b
        variance = (own / len(x) ** 2 - (kernel.mean(dim=0) @ self.root).square().sum()).clamp_min(0.0)
        if predicted is not None and predicted_other is not None:
            apart = a[:, None] * predicted - b[:, None] * predicted_other
            variance = variance + self._spread(apart.mean(dim=1, keepdim=True))[0]
        return kernel @ self.weights, variance

    def _points(self) -> Views:
        """The views of the points that the kernel is centred on."""
        return {name: self.get_buffer(f"points_{name}") for name in self._point_names}

    def _spread(self, predictions: Tensor) -> Tensor:
        """Variance (n,) that networks (n_folds, n, n_kinds) which disagree give to the mean."""
        weights = self.variances[NETWORK] * (self.get_buffer(f"points_{NETWORK}").double().mT @ self.weights)
        return (predictions @ weights).var(dim=0)

    def _see_rows(
        self,
        x: Points | Tensor,
        y: Tensor,
        held_out: Tensor | None,
        rows: Tensor,
        points: Views,
        root: Tensor,
        roots: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues of Phi^T Phi of all rows, the features' root W turned to its eigenvectors, and Phi^T y.

        Rows of Phi and y are times the roots (n,) of their precision.
        """
        gram, moment = root.new_zeros(root.shape[1], root.shape[1]), root.new_zeros(root.shape[1])
        for part in rows.split(max(BATCH_NUMBERS // len(root), 1)):
            views = self._views(x[part].double(), None if held_out is None else held_out[part])
            phi = roots[part, None] * (self._kernel(views, points) @ root)
            gram.addmm_(phi.T, phi)
            moment.addmv_(phi.T, roots[part] * y[part])
        s, vectors = torch.linalg.eigh(gram)
        return s.clamp_min(0), root @ vectors, vectors.T @ moment

    def _fit_parts(
        self, x: Points | Tensor, y: Tensor, held_out: Tensor | None, rows: Tensor, row_noise: RowNoise
    ) -> Variances:
        """Choose groups of parts, fit the parts' variances, and keep those that matter; rows in random order."""
        some = rows[:SELECTION_ROWS]
        noise = row_noise.take(some.numpy())
        self.parts.learn(x[some].double(), y[some], noise)
        self.variances = dict.fromkeys([*self.parts.names, *([] if held_out is None else [NETWORK])], 1.0)

        def grams(seen: Tensor) -> dict[str, Tensor]:
            views = self._views(x[seen].double(), None if held_out is None else held_out[seen])
            return self.parts.matrices(views, views, self.variances)

        matrices = grams(some)
        names, found = select_groups(
            matrices,
            self.parts.groups if len(x) >= FEW_ROWS else [],
            y[some],
            row_noise=noise,
            # Of all rows the evidence would grow about in proportion to their number.
            least_gain=LEAST_GAIN * len(some) / len(x),
        )
        if NETWORK in names and self.parts.doubts_networks:
            names, found = better_left_out({name: matrices[name] for name in names}, NETWORK, found, y[some], noise)
        if len(x) > len(some):
            self.variances = dict.fromkeys(names, 1.0)
            more = rows[:EVIDENCE_ROWS]
            found = fit_variances(
                torch.stack([*grams(more).values()]),
                y[more],
                row_noise=row_noise.take(more.numpy()),
                start=torch.tensor([*found.parts, found.noise]),
                max_iter=REFITS,
            )
        least = SMALLEST_SHARE * float(found.parts.sum())
        self.variances = {n: v for n, v in zip(names, found.parts.tolist(), strict=True) if v >= least}
        if NETWORK not in self.variances:
            self.networks = None
        self.noise = found.noise
        return found

    def _seen(self, x: Tensor) -> tuple[Views, Tensor | None]:
        """Features of the parts for new points, and the networks' predictions (n_folds, n, n_kinds), or None."""
        predictions = None if self.networks is None else self.networks(x)
        views = self._views(x.to(self.parts.dtype), None if predictions is None else predictions.mean(dim=0))
        return views, predictions

    def _views(self, x: Tensor, prediction: Tensor | None) -> Views:
        """Features of the parts for points, in their type, and the networks' predictions (n, n_kinds) if used."""
        views = self.parts.views(x.to(self.parts.get_buffer("mean").device), self.variances)
        if prediction is not None and NETWORK in self.variances:
            views[NETWORK] = prediction.to(x.dtype)
        return views

    def _kernel(self, a: Views, b: Views) -> Tensor:
        """The sum of the parts (n, m), float64."""
        matrices = self.parts.matrices(a, b, self.variances)
        total = functools.reduce(torch.add, (self.variances[name] * matrix for name, matrix in matrices.items()))
        return total.double() + self._constant

    def _diagonal(self, a: Views) -> Tensor:
        """The kernel of each point with itself (n,)."""
        diagonals = self.parts.diagonals(a, self.variances)
        total = functools.reduce(torch.add, (self.variances[name] * part for name, part in diagonals.items()))
        return total.double() + self._constant


def left_out_share(y: Tensor, weights: Tensor, precision: Tensor) -> float:
    """What the mean is to be multiplied by, from 0 to 1, as predictions of each row from the others tell.

    Evidence is optimistic about few rows, most of all where there is nothing to learn. With A = K + noise I the
    prediction without row i is ``y_i - (A^-1 y)_i / (A^-1)_ii`` (Rasmussen and Williams, 2006, equation 5.12). Of y on
    these predictions the slope b, at most 1, is taken times ``b^2 / (b^2 + its variance)``, as one shrinks an estimate.

    Parameters
    ----------
    y : Tensor of shape (n,)
    weights : Tensor of shape (n,)
        A^-1 y.
    precision : Tensor of shape (n,)
        Diagonal of A^-1.
    """
    left_out = y - weights / precision
    square = left_out.square().sum().clamp_min(1e-12)
    slope = left_out @ y / square
    variance = (y - slope * left_out).square().sum() / square / max(len(y) - 1, 1)
    return float(slope.clamp(0.0, 1.0) * slope.square() / (slope.square() + variance).clamp_min(1e-12))
