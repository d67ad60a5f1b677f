"""A Gaussian process on the last hidden layer of a network: with a linear kernel, or any of gpytorch."""

from __future__ import annotations

import copy

import gpytorch
import torch
from torch import Tensor, nn

from braidkit.exceptions import IncompatibleModelError
from braidkit.rewards._inducing import MARGINAL_LIKELIHOOD_ROWS, InducingFeatures, fit_kernel
from braidkit.rewards._linear_posterior import LinearPosterior
from braidkit.rewards.evidence import fit_scale_and_noise, fit_variances
from braidkit.rewards.features import PREDICT_BATCH, mean_norm
from braidkit.rewards.row_noise import RowNoise
from braidkit.spaces import Points

# Rows that set the features' scale, and that inducing points are chosen from.
SUBSAMPLE = 10_000


class RowSpace(nn.Module):
    """Features in the directions that some rows span, and what lies outside; exact, and fast if rows are few.

    The rows say nothing of weights in other directions: their mean is 0 and their variance the prior's, 1.

    Parameters
    ----------
    f : Tensor of shape (n, d), float64
        The rows.
    """

    basis: Tensor

    def __init__(self, f: Tensor) -> None:
        super().__init__()
        s, vectors = torch.linalg.eigh(f @ f.T)
        kept = s > 1e-12 * s[-1]
        self.register_buffer("basis", f.T @ (vectors[:, kept] / s[kept].sqrt()))  # (d, r)

    @property
    def width(self) -> int:
        return self.basis.shape[1] + 1

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """The r coordinates and a constant (n, r + 1), and the square (n,) of what lies outside."""
        inside = f @ self.basis
        outside = f.square().sum(dim=1) - inside.square().sum(dim=1)
        return torch.cat([inside, torch.ones_like(f[:, :1])], dim=1), outside.clamp_min(0.0)


class LayerProcess(nn.Module):
    """Posterior mean and variance of a Gaussian process on frozen features (BRAID, Example 1).

    Parameters
    ----------
    features : nn.Module
        From points (n, \\*space.shape) to (n, d), frozen.

    Attributes
    ----------
    scale : float
        Divisor of the features. Their mean square norm on the rows is then 1, or the value fitted by evidence.
    noise : float
        Variance of the noise, lam.
    inducing : InducingFeatures, RowSpace or None
        The kernel and its inducing points. For the linear kernel None, or the space that the rows span, if there are
        more features than rows.
    posterior : LinearPosterior
        Over weights of the scaled features and a constant, or of the inducing points' features.
    """

    posterior: LinearPosterior
    inducing: InducingFeatures | RowSpace | None

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.scale = 1.0

    @torch.no_grad()
    def fit(
        self,
        x: Points | Tensor,
        y: Tensor,
        rows: Tensor,
        *,
        kernel: gpytorch.kernels.Kernel | None,
        noise: float | None,
        row_noise: RowNoise | None = None,
        unseen: Tensor,
        n_inducing: int,
        device: torch.device,
    ) -> LayerProcess:
        """Scale the features, choose inducing points for a kernel, and solve.

        Parameters
        ----------
        x : Points or Tensor of shape (n, \\*space.shape)
        y : Tensor of shape (n,), float64
            Standardised.
        rows : LongTensor
            Of the posterior, in random order.
        kernel : gpytorch.kernels.Kernel or None
            On the scaled features; a copy is fitted. None for the linear one.
        noise : float or None
            Variance of the noise; None for what the evidence says.
        row_noise : RowNoise, optional
            On the scale of y.
        unseen : LongTensor
            Rows that the features have not been trained on, for evidence.
        n_inducing : int
        device : torch.device
        """
        sample = rows[:SUBSAMPLE]
        f = torch.cat([self._scaled(x[part].to(device)) for part in sample.split(PREDICT_BATCH)])
        self.scale = mean_norm(f)
        f /= self.scale
        self.inducing, self.noise = None, noise or 0.0
        row_noise = RowNoise.read(len(x)) if row_noise is None else row_noise
        if kernel is not None:
            few = unseen[:MARGINAL_LIKELIHOOD_ROWS]
            self.inducing, self.noise = self._fit_inducing(
                kernel,
                f,
                self._scaled(x[few].to(device)),
                y[few].to(device),
                noise,
                row_noise.take(few.numpy()),
                n_inducing,
            )
        elif f.shape[1] > len(rows) and len(rows) <= SUBSAMPLE:
            self.inducing = RowSpace(f)
        if kernel is None and noise is None:
            self.noise = self._fit_linear(x, y, unseen, row_noise, device)
        # Rows times these have noise of one variance.
        roots = row_noise.root_precision(self.noise)
        self.posterior = LinearPosterior.from_batches(
            (
                (self._phi(x[part].to(device))[0] * roots[part, None].to(device), y[part] * roots[part])
                for part in rows.split(PREDICT_BATCH)
            ),
            n_features=f.shape[1] + 1 if self.inducing is None else self.inducing.width,
            lam=self.noise,
            device=device,
        )
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (n,) of points (n, \\*space.shape), float64, with gradients."""
        phi, residual = self._phi(x)
        return self.posterior.mean(phi), self.posterior.variance(phi) + residual

    @property
    def coefficients(self) -> Tensor:
        """Weights (d,) of the mean on `linear_features`."""
        return self.posterior.weights

    def linear_features(self, x: Tensor) -> Tensor:
        """Features phi (n, d) whose products are the kernel: the mean is phi coefficients."""
        return self._phi(x)[0]

    def difference(
        self, x: Tensor, other: Tensor, shares: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Means (n,) of x less those of other points, and the variance of their average, with what both share.

        Means are times `shares`, (n,) of either side, if given.
        """
        (phi, residual), (other_phi, other_residual) = self._phi(x), self._phi(other)
        a, b = (torch.ones(len(x)).to(phi),) * 2 if shares is None else shares
        phi = a[:, None] * phi - b[:, None] * other_phi
        variance = self.posterior.variance(phi.mean(dim=0, keepdim=True))[0]
        # What inducing points leave out is taken as independent between points.
        left_out = (a.square() * residual + b.square() * other_residual).mean() / len(x)
        return self.posterior.mean(phi), variance + left_out

    def _fit_linear(
        self, x: Points | Tensor, y: Tensor, rows: Tensor, row_noise: RowNoise, device: torch.device
    ) -> float:
        """Scale the features, and find the noise, by the evidence of some rows."""
        if row_noise.known.any():
            few = rows[:MARGINAL_LIKELIHOOD_ROWS]
            f = self._scaled(x[few].to(device))
            found = fit_variances((f @ f.T)[None], y[few].to(f), row_noise=row_noise.take(few.numpy()))
            self.scale /= float(found.parts[0]) ** 0.5
            return found.noise
        roots = row_noise.root_precision(1.0)
        parts = rows.split(PREDICT_BATCH)
        gram = LinearPosterior.from_batches(
            (
                (self._phi(x[part].to(device))[0] * roots[part, None].to(device), y[part] * roots[part])
                for part in parts
            ),
            n_features=self._phi(x[rows[:1]].to(device))[0].shape[1],
            lam=1.0,
            device=device,
        )
        s, vectors = torch.linalg.eigh(gram.gram)
        n_repeats, within = row_noise.take(rows.numpy()).repeats()
        y_square = float((roots[rows] * y[rows]).square().sum()) + within
        scale, noise = fit_scale_and_noise(s, vectors.T @ gram.moment, y_square, len(rows) + n_repeats)
        self.scale /= scale**0.5
        return noise

    @staticmethod
    def _fit_inducing(
        kernel: gpytorch.kernels.Kernel,
        f: Tensor,
        few: Tensor,
        y: Tensor,
        noise: float | None,
        row_noise: RowNoise,
        n_inducing: int,
    ) -> tuple[InducingFeatures, float]:
        """Fit a copy of a kernel on few scaled features (n, d), and choose inducing points among others."""
        kernel = copy.deepcopy(kernel).double().to(f.device)
        try:
            with torch.enable_grad():
                noise = fit_kernel(kernel, few, y, noise, row_noise)
            return InducingFeatures(kernel.requires_grad_(False).eval(), f, n_inducing), noise
        except RuntimeError as error:
            raise IncompatibleModelError(f"kernel cannot be applied to {f.shape[1]} features: {error}") from error

    def _scaled(self, x: Tensor) -> Tensor:
        """The features (n, d) over their scale, float64."""
        return self.features(x).double() / self.scale

    def _phi(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        """Features of the posterior (n, d), and the variance that they leave out."""
        f = self._scaled(x)
        if self.inducing is None:
            return torch.cat([f, torch.ones_like(f[:, :1])], dim=1), 0.0
        return self.inducing(f)
