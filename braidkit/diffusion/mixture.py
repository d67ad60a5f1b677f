"""MixtureLaw: a mixture of normal laws of vectors, whose denoiser is exact."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.covariance import LedoitWolf
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from braidkit.exceptions import InvalidDesignError
from braidkit.parameters import check_number
from braidkit.spaces.vectors import FAR

# Numbers of components that are compared, and rows that each must have on average.
_COMPONENTS, _ROWS_EACH = (1, 2, 4, 8, 16, 32), 8
# Rows that the number is chosen on, and that the law is fitted on.
_MAX_CHOICE_ROWS, _MAX_ROWS = 5_000, 20_000
# Most numbers of a law's means, and of its covariances where columns are correlated: what a prediction costs.
_MAX_MEANS, _MAX_COVARIANCES = 2**12, 2**20
# Variance, in units of the columns', below which no component is narrower in any direction.
_LEAST_VARIANCE = 1e-4
_HELD_OUT = 0.2
# Iterations of expectation maximisation, and of a law that is moved a little.
_MAX_ITER, _MAX_ITER_AGAIN = 100, 20
# Draws that the moments of the log-density are taken of.
_MOMENT_DRAWS = 4096


class MixtureLaw(nn.Module):
    """A mixture of normal laws of vectors.

    Given ``x_t = cos x + sin noise`` the law of x is a mixture again, so the expected x is exact.

    Parameters
    ----------
    n_components, n_features : int
    correlated : bool, default=True
        Whether the columns of a component are correlated.

    Attributes
    ----------
    weights : Tensor of shape (n_components,), float64
    means : Tensor of shape (n_components, n_features), float64
    variances : Tensor of shape (n_components, n_features), float64
        Along the axes of each component.
    axes : Tensor of shape (n_components, n_features, n_features), float64
        Orthonormal columns; of no component where columns are not correlated.

    References
    ----------
    Bishop (2006), "Pattern recognition and machine learning", sections 2.3.3 and 9.2.

    Examples
    --------
    >>> law = MixtureLaw(1, 2)  # a standard normal law
    >>> law.prediction(torch.tensor([[1.0, 2.0]]), 0.6, 0.8)
    tensor([[0.6000, 1.2000]])
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    axes: Tensor

    def __init__(self, n_components: int, n_features: int, correlated: bool = True) -> None:
        super().__init__()
        check_number("n_components", n_components, low=1, whole=True)
        check_number("n_features", n_features, low=1, whole=True)
        shape = (n_components, n_features)
        self.register_buffer("weights", torch.full((n_components,), 1 / n_components, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("variances", torch.ones(shape, dtype=torch.float64))
        axes = torch.eye(n_features, dtype=torch.float64).repeat(n_components if correlated else 0, 1, 1)
        self.register_buffer("axes", axes)

    @classmethod
    def fit(cls, x: Tensor | NDArray[np.float64], random_state: int = 0) -> tuple[MixtureLaw, dict[int, float]]:
        """Estimate the law of vectors by expectation maximisation, its number of components by held-out rows.

        Parameters
        ----------
        x : array of shape (n, n_features)
            With columns of a variance of about one.
        random_state : int, default=0

        Returns
        -------
        law : MixtureLaw
        by_number : dict of int to float
            Held-out negative log-likelihood, nats a row, by number of components; empty where there are too few rows
            to compare.

        Raises
        ------
        InvalidDesignError
            If `x` is no matrix of finite numbers.
        """
        rows = np.asarray(x)
        rows = rows.astype(np.float64) if rows.dtype.kind in "biuf" else np.zeros(0)
        if rows.ndim != 2 or rows.size == 0 or not (np.abs(rows) <= FAR).all():
            raise InvalidDesignError(
                f"x must be finite numbers of shape (n, n_features), at most {FAR:g}; got {x!r:.60}."
            )
        rows = rows[np.random.RandomState(random_state).permutation(len(rows))[:_MAX_ROWS]]
        # Rows that repeat would be on both sides, and make narrow components look good.
        different = np.unique(rows, axis=0)
        different = different[np.random.RandomState(random_state).permutation(len(different))[:_MAX_CHOICE_ROWS]]
        held_out, training = np.split(different, [math.ceil(_HELD_OUT * len(different))])
        width, most = rows.shape[1], max(1, len(training) // _ROWS_EACH)
        kinds = [(n, False) for n in _COMPONENTS if n == 1 or n <= most and n * width <= _MAX_MEANS]
        kinds += [(n, True) for n, _ in kinds if n * width**2 <= _MAX_COVARIANCES]
        given = torch.from_numpy(held_out)
        nats = {
            kind: -float(cls._estimated(training, *kind, random_state).log_prob(given).mean())
            for kind in kinds
            if len(training) >= 2
        }
        law = cls._estimated(rows, *min(nats, key=lambda kind: nats[kind], default=(1, False)), random_state)
        return law, {n: min(value for (other, _), value in nats.items() if other == n) for n, _ in nats}

    @classmethod
    def _estimated(
        cls, rows: NDArray[np.float64], n_components: int, correlated: bool, random_state: int
    ) -> MixtureLaw:
        """The law of vectors with given components."""
        law = cls(n_components, rows.shape[1], correlated)
        if correlated and n_components == 1:
            # Shrunk, as there may be more columns than rows.
            shrunk = LedoitWolf().fit(rows)
            law.set(np.ones(1), shrunk.location_[None], shrunk.covariance_[None])
        else:
            found = _mixture(rows, n_components, "full" if correlated else "diag", random_state)
            law.set(found.weights_, found.means_, found.covariances_)
        return law

    def fitted_again(self, x: Tensor) -> None:
        """Move the components to fit other vectors (n, n_features), as many of the same kind."""
        kind = "full" if len(self.axes) else "diag"
        # Components that are alike would stay alike.
        generator, which = torch.Generator().manual_seed(0), torch.arange(len(self.weights), device=self.weights.device)
        luck = torch.randn(self.means.shape, generator=generator, dtype=torch.float64).to(self.means.device)
        self.means.add_(0.5 * self.scattered(which, luck))
        found = _mixture(x.cpu().numpy().astype(np.float64), len(self.weights), kind, 0, start=self)
        self.set(found.weights_, found.means_, found.covariances_)

    def set(self, weights: NDArray[np.float64], means: NDArray[np.float64], covariances: NDArray[np.float64]) -> None:
        """Take on weights, means, and covariances (n_components, n_features, n_features) or variances."""
        if len(self.axes):
            variances, axes = np.linalg.eigh(covariances)
            self.axes.copy_(torch.from_numpy(axes))
        else:
            variances = covariances
        self.weights.copy_(torch.from_numpy(weights / weights.sum()))
        self.means.copy_(torch.from_numpy(means))
        self.variances.copy_(torch.from_numpy(np.maximum(variances, _LEAST_VARIANCE)))

    def widened(self, n_components: int) -> MixtureLaw:
        """The same law with at least so many components: the heaviest are there several times.

        With fewer where there are so many columns that predictions would take long.
        """
        width = self.means.shape[1]
        n_components = min(n_components, _MAX_COVARIANCES // width**2 if len(self.axes) else _MAX_MEANS // width)
        copies = torch.ones(len(self.weights), dtype=torch.long)
        while int(copies.sum()) < n_components:
            copies[(self.weights.cpu() / copies).argmax()] += 1
        which = torch.arange(len(copies)).repeat_interleave(copies).to(self.weights.device)
        law = MixtureLaw(len(which), self.means.shape[1], len(self.axes) > 0).to(self.weights.device)
        law.weights.copy_((self.weights / copies.to(self.weights))[which])
        for name in ("means", "variances", "axes") if len(self.axes) else ("means", "variances"):
            law.get_buffer(name).copy_(self.get_buffer(name)[which])
        return law

    def prediction(self, x_t: Tensor, cos: float | Tensor, sin: float | Tensor) -> Tensor:
        """Expected vectors (n, n_features) given ``x_t = cos x + sin noise``; numbers, or one a row (n, 1).

        Differentiable in `x_t`.
        """
        cos, sin = (torch.as_tensor(part, dtype=torch.float64, device=x_t.device) for part in (cos, sin))
        cos, sin = cos.reshape(-1, 1, 1), sin.reshape(-1, 1, 1)
        along, log_density = self._seen(x_t.double(), cos, sin)
        shrunk = cos * self.variances / (cos.square() * self.variances + sin.square()) * along
        expected = self.means + self._back(shrunk)
        return (log_density.softmax(dim=1)[..., None] * expected).sum(dim=1).to(x_t.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the density at vectors: (n,), float64."""
        return self._seen(x.double(), *self._clean())[1].logsumexp(dim=1)

    def log_shares(self, x: Tensor) -> Tensor:
        """Log-probabilities (n, n_components), float64, that vectors come from each component."""
        return self._seen(x.double(), *self._clean())[1].log_softmax(dim=1)

    def sample(self, uniform: Tensor, normal: Tensor) -> Tensor:
        """Vectors (n, n_features) of uniform numbers (n,), which choose components, and standard normal ones."""
        ends = self.weights.cumsum(dim=0)
        which = torch.searchsorted(ends, uniform.to(ends)).clamp(max=len(ends) - 1)
        return self.means[which] + self.scattered(which, normal)

    def scattered(self, which: Tensor, normal: Tensor) -> Tensor:
        """Standard normal vectors (n, n_features) with the covariances of components (n,) instead."""
        scaled = self.variances[which].sqrt() * normal.double()
        return torch.einsum("ndk,nk->nd", self.axes[which], scaled) if len(self.axes) else scaled

    def log_prob_moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the log-density of the law's own draws, estimated from 4,096 of them."""
        generator = torch.Generator().manual_seed(0)
        uniform = torch.rand(_MOMENT_DRAWS, generator=generator, dtype=torch.float64)
        normal = torch.randn(_MOMENT_DRAWS, self.means.shape[1], generator=generator, dtype=torch.float64)
        logs = self.log_prob(self.sample(uniform.to(self.means.device), normal.to(self.means.device)))
        return float(logs.mean()), float(logs.std())

    def _clean(self) -> tuple[Tensor, Tensor]:
        """The cosine and sine of no noise."""
        return self.weights.new_ones(1, 1, 1), self.weights.new_zeros(1, 1, 1)

    def _seen(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Along each component's axes, the distance of noisy vectors from its mean; and log-densities times weights.

        Of shapes (n, n_components, n_features) and (n, n_components).
        """
        difference = x[:, None] - cos * self.means
        along = torch.einsum("nkd,kde->nke", difference, self.axes) if len(self.axes) else difference
        variances = cos.square() * self.variances + sin.square()
        logs = -0.5 * (along.square() / variances + variances.log() + math.log(2 * math.pi)).sum(dim=2)
        return along, logs + self.weights.clamp(min=1e-300).log()

    def _back(self, along: Tensor) -> Tensor:
        """From the axes of each component to columns."""
        return torch.einsum("nke,kde->nkd", along, self.axes) if len(self.axes) else along


def _mixture(
    rows: NDArray[np.float64], number: int, kind: str, random_state: int, start: MixtureLaw | None = None
) -> GaussianMixture:
    """A fitted mixture; with a start, one that begins where another law is."""
    rows = rows if len(rows) > 1 else rows.repeat(2, axis=0)
    at: dict[str, Any] = {}
    if start is not None:
        axes, precisions = start.axes.cpu().numpy(), 1 / start.variances.cpu().numpy()
        full = np.einsum("kde,ke,kfe->kdf", axes, precisions, axes) if len(axes) else precisions
        at = {
            "weights_init": start.weights.cpu().numpy(),
            "means_init": start.means.cpu().numpy(),
            "precisions_init": (full + full.swapaxes(1, 2)) / 2 if len(axes) else full,
        }
    at |= {"random_state": random_state, "max_iter": _MAX_ITER if start is None else _MAX_ITER_AGAIN}
    model = GaussianMixture(number, covariance_type=kind, reg_covar=_LEAST_VARIANCE, **at)
    # Within scikit-learn's dispatch to other array libraries the start by k-means is refused.
    with warnings.catch_warnings(), config_context(array_api_dispatch=False):
        warnings.simplefilter("ignore", ConvergenceWarning)  # a law that could still be a little likelier will do
        return model.fit(rows)
