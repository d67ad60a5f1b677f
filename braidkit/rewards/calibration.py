"""Calibrate a lower bound by split-conformal prediction, and measure its coverage on held-out rows."""

from __future__ import annotations

import math
import sys
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from braidkit.data import check_lengths, read_measurements
from braidkit.exceptions import InvalidParameterError

# Quantiles of the distribution of an estimated scale; averages over them replace integrals.
_QUANTILES = 400


class PredictsLower(Protocol):
    """A fitted reward, or anything else with a mean and a lower bound."""

    def predict(self, X: Any) -> np.ndarray:
        """Means (n_samples,) in y's units."""

    def predict_lower(self, X: Any) -> np.ndarray:
        """Lower bounds (n_samples,) in y's units."""


def conformal_c(y: np.ndarray, mean: np.ndarray, std: np.ndarray, level: float) -> float:
    """Find the smallest c >= 0 whose bound ``mean - c std`` holds for a share of held-out rows.

    This is one-sided split conformal prediction with the score ``(mean - y) / std``. The bound holds on ceil((m + 1)
    level) of the m rows. So it holds for a further exchangeable row with probability at least `level`.

    Parameters
    ----------
    y, mean, std : ndarray of shape (m,)
        Measurements of rows that neither the mean nor the std has seen, and their predictions; std > 0.
    level : float
        In (0, 1).

    Returns
    -------
    c : float

    Raises
    ------
    InvalidParameterError
        If m is too small for the level: ceil((m + 1) level) > m.

    References
    ----------
    Lei et al., "Distribution-free predictive inference for regression", JASA 113:1094 (2018), section 2.2.

    Examples
    --------
    >>> conformal_c(np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0]), np.array([0.5, 0.5, 0.5]), level=0.75)
    2.0
    """
    check_enough_rows(len(y), level)
    scores = np.sort((mean - y) / std)
    return max(0.0, float(scores[_rank(len(y), level) - 1]))


def noise_free_c(y: np.ndarray, mean: np.ndarray, std: np.ndarray, level: float, noise: float) -> float:
    """Find the c whose bound ``mean - c std`` holds for the noiseless reward r, where the noise of y is known.

    With ``y = r + noise`` the squared errors of held-out rows average to ``s^2 = noise^2 + k^2 mean(std^2)``, if the
    errors of the mean are k posterior deviations. For normal errors m rows determine s^2 up to a factor chi2(m) / m.
    The value of c makes ``Phi(c / k)``, averaged over the k that are then possible, equal to `level`; with many rows
    ``c = k Phi^-1(level)``. Unlike `conformal_c` this is no distribution-free promise, but it does not charge the noise
    to the model.

    Parameters
    ----------
    y, mean, std, level
        As in `conformal_c`.
    noise : float
        Standard deviation of the noise, on the scale of y.

    Returns
    -------
    c : float
        0 if there are no errors, or `level` is at most 0.5.

    Examples
    --------
    >>> y, mean, std = np.tile([1.0, -1.0], 5000), np.zeros(10_000), np.full(10_000, 0.5)
    >>> round(noise_free_c(y, mean, std, level=0.95, noise=0.6), 1)  # k = 0.8 / 0.5, and many rows
    2.6
    """
    total, m = float(np.sum(np.square(mean - y))), len(y)
    if level <= 0.5 or total == 0:
        return 0.0
    # Quantiles of s^2 = total / chi2(m), given that it is not less than the noise's.
    share = chi2.cdf(total / noise**2, m)
    if share == 0:
        return 0.0
    scales = total / chi2.ppf(share * (np.arange(_QUANTILES) + 0.5) / _QUANTILES, m)
    k = np.sqrt(np.maximum(scales - noise**2, 0.0) / float(np.mean(np.square(std))))
    k = np.maximum(k, 1e-12 * k.max())
    if not np.isfinite(k).all() or k.max() == 0:
        return 0.0
    deviate = NormalDist().inv_cdf(level)
    # Between the bounds of the narrowest and the widest, which lie on either side of the level.
    return float(brentq(lambda c: norm.cdf(c / k).mean() - level, deviate * k.min(), deviate * k.max()))


def designs_to_calibrate(level: float, fraction: float) -> int:
    """Fewest designs of which a fraction, rounded down, is enough for the level: ceil((m + 1) level) <= m."""
    m = math.ceil(level / (1 - level) - 1e-9)
    n = math.ceil(m / fraction - 1e-9) if fraction else math.inf
    return int(n) if math.isfinite(n) else sys.maxsize


def check_enough_rows(m: int, level: float) -> None:
    """Raise unless `m` held-out rows are enough for the level: ceil((m + 1) level) <= m."""
    if _rank(m, level) > m:
        raise InvalidParameterError(
            f"level {level:g} needs at least {math.ceil(level / (1 - level) - 1e-9)} held-out rows, and there are {m}; "
            "pass more rows, or a lower level."
        )


def _rank(m: int, level: float) -> int:
    """ceil((m + 1) level), with the level's rounding taken off."""
    return math.ceil((m + 1) * level - 1e-9)


def lower_coverage(reward: PredictsLower, X: Any, y: Any) -> dict[str, float]:
    """Measure for how many rows a reward's lower bound holds.

    Parameters
    ----------
    reward : fitted reward
    X : designs
        Rows held out from the reward's fit; on rows of the fit the shares would be too high.
    y : array-like of shape (n_samples,)

    Returns
    -------
    coverage : dict
        ``"overall"``, the share of rows with ``y >= predict_lower(X)``, and ``"top_decile"``, the same among the tenth
        of the rows that the reward *predicts* highest: closest to designs, and chosen, as they are, with its errors.
    """
    if missing := [name for name in ("predict", "predict_lower") if not hasattr(reward, name)]:
        raise InvalidParameterError(f"reward must be a fitted reward; {reward!r:.60} has no {missing[0]}.")
    y = read_measurements(y)
    bound = reward.predict_lower(X)
    check_lengths(bound, y)
    holds = y >= bound
    mean = reward.predict(X)
    top = mean >= np.quantile(mean, 0.9)
    return {"overall": float(holds.mean()), "top_decile": float(holds[top].mean())}
