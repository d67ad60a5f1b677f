"""Fit the variance that each part of a kernel explains, by marginal likelihood.

With Gram matrices K_b of some parts, each of mean diagonal 1, measurements are taken as normal with covariance
``sum_b v_b K_b + 1 + noise I``; the 1 is a constant. The evidence log N(y | 0, that) is maximised over all v_b
and the noise. Parts that the data do not ask for get next to nothing, so adding one costs little.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from braidkit.rewards.row_noise import RowNoise

# A priori log-variances are normal around 0.05 of y's variance, within a factor of exp(3): so weak that 20 rows
# outweigh it, and enough to keep the optimum finite.
PRIOR_MEAN, PRIOR_STD = -3.0, 3.0
MAX_ITER = 50
SCALE_STD = 0.5
SMALLEST = 1e-4  # of y's variance: the least noise, which keeps Gram matrices well conditioned
NEW_SHARE = 0.1  # of y's variance: where the search for the variances of a new group begins
LEAST_GAIN = 3.0  # nats that a group of parts must add to the evidence of all rows
N_FOLDS = 5  # parts of the rows that are left out in turn
CONSTANT = 1.0  # prior variance of the constant, in units of y's variance


class Variances(NamedTuple):
    """Result of `fit_variances`, in units of standardised y's variance."""

    parts: Tensor  # (n_parts,)
    noise: float
    log_evidence: float  # with the log-density of the variances' prior, which has its largest value at 0
    gain: float  # log-evidence without that prior, above that of noise of variance 1 alone


def fit_variances(
    grams: Tensor,
    y: Tensor,
    *,
    row_noise: RowNoise | None = None,
    start: Tensor | None = None,
    max_iter: int = MAX_ITER,
) -> Variances:
    """Maximise the evidence over the variance of each part of a kernel and of the noise.

    The gradient is exact, ``d(-2 log ev) / d v_b = tr((A^-1 - A^-1 y y^T A^-1) K_b)``; L-BFGS on log-variances.

    Parameters
    ----------
    grams : Tensor of shape (n_parts, n, n), float64
        Positive semi-definite, each with a mean diagonal of about 1.
    y : Tensor of shape (n,), float64
        Standardised.
    row_noise : RowNoise, optional
        Noise of each row, on the scale of y; it replaces the noise times I.
    start : Tensor of shape (n_parts + 1,), optional
        Variances of the parts and of the noise to begin with; half of y's variance for either by default.
    max_iter : int, default=50

    Returns
    -------
    Variances

    References
    ----------
    Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), equations (5.8) and (5.9).

    Examples
    --------
    >>> x = torch.linspace(-1.7, 1.7, 50, dtype=torch.float64)
    >>> linear, parity = torch.outer(x, x), torch.outer((-1.0) ** torch.arange(50), (-1.0) ** torch.arange(50))
    >>> found = fit_variances(torch.stack([linear, parity.double()]), x)
    >>> bool(found.parts[0] > 10 * found.parts[1]), found.noise < 0.01
    (True, True)
    """
    n_parts, n, _ = grams.shape
    flat = grams.reshape(n_parts, -1)
    row_noise = RowNoise.read(n) if row_noise is None else row_noise
    share, known = row_noise.tensors(y)
    n_repeats, within = row_noise.repeats()

    def covariance(variances: Tensor) -> Tensor:
        return (variances[:-1] @ flat).view(n, n) + CONSTANT + (variances[-1] * share + known).diag()

    def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
        variances = torch.from_numpy(np.exp(logs)).to(grams)
        factor, failed = torch.linalg.cholesky_ex(covariance(variances))
        if failed:
            return 1e10, np.zeros_like(logs)
        solved = torch.cholesky_solve(y[:, None], factor)[:, 0]
        # Equation (5.8). The factor's diagonal gives half of the log-determinant.
        minus_log_evidence = 0.5 * (y @ solved) + factor.diagonal().log().sum() + 0.5 * n * math.log(2 * math.pi)
        noise = float(variances[-1])
        # Replicates that were averaged: their squared deviations from the average have a likelihood of their own.
        minus_log_evidence += 0.5 * (n_repeats * math.log(noise) + within / noise)
        # Equation (5.9), times the variances, because the search is over their logarithms.
        sensitivity = torch.cholesky_inverse(factor) - torch.outer(solved, solved)
        of_noise = sensitivity.diagonal() @ share + n_repeats / noise - within / noise**2
        gradient = torch.cat([flat @ sensitivity.flatten(), of_noise[None]]) * variances / 2
        z = (logs - PRIOR_MEAN) / PRIOR_STD  # a log-normal prior on each variance
        return minus_log_evidence.item() + 0.5 * float(z @ z), gradient.cpu().numpy() + z / PRIOR_STD

    first = np.append(np.full(n_parts, 0.5 / n_parts), 0.5) if start is None else start.cpu().numpy()
    bounds = [(-14.0, 4.0)] * n_parts + [(math.log(SMALLEST), 1.0)]
    found = minimize(loss, np.log(first), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": max_iter})
    variances = torch.from_numpy(np.exp(found.x)).to(grams)
    z = (found.x - PRIOR_MEAN) / PRIOR_STD
    log_evidence = -float(found.fun)
    gain = log_evidence + 0.5 * float(z @ z) - _of_noise_alone(y, row_noise)
    return Variances(variances[:-1], float(variances[-1]), log_evidence, gain)


def select_groups(
    grams: dict[str, Tensor],
    groups: Sequence[Collection[str]],
    y: Tensor,
    *,
    row_noise: RowNoise | None = None,
    least_gain: float = LEAST_GAIN,
) -> tuple[list[str], Variances]:
    """Choose groups of parts by forward selection: each must raise the log-evidence.

    The parts of no group are always in. As long as some group raises the evidence enough, the one that raises it most
    is added. Parts that fit the rows about as well as others may extrapolate worse, and each costs time; so a group
    needs evidence that is called strong (Kass and Raftery, 1995): a factor of 20, or 3 nats.

    Parameters
    ----------
    grams : dict of str to Tensor of shape (n, n)
        By the name of the part.
    groups : sequence of collections of str
        Names; those that `grams` lacks are passed over.
    y, row_noise
        As for `fit_variances`.
    least_gain : float, default=3.0
        Nats that a group must add.

    Returns
    -------
    names : list of str
        The parts that are in, in the order of `grams`.
    found : Variances
        Of these parts.

    Examples
    --------
    >>> x = torch.linspace(-1.7, 1.7, 50, dtype=torch.float64)
    >>> grams = {"linear": torch.outer(x, x), "square": torch.outer(x**2, x**2), "sine": torch.outer(x.sin(), x.sin())}
    >>> select_groups(grams, [["square"], ["sine"]], x**2 - 1)[0]
    ['linear', 'square']
    """

    def fitted(chosen: list[set[str]], before: tuple[list[str], Variances] | None) -> tuple[list[str], Variances]:
        out = optional.difference(*chosen)
        names = [name for name in grams if name not in out]
        start = None
        if before is not None:  # most of the way is done
            known = dict(zip(before[0], before[1].parts.tolist(), strict=True))
            new = NEW_SHARE / (len(names) - len(known))
            start = torch.tensor([*(known.get(name, new) for name in names), before[1].noise])
        return names, fit_variances(torch.stack([grams[name] for name in names]), y, row_noise=row_noise, start=start)

    left = [own for group in groups if (own := set(group) & grams.keys())]
    optional = set[str]().union(*left)
    chosen = [left.pop(0)] if len(optional) == len(grams) else []  # a kernel has at least one part
    best = fitted(chosen, None)
    while left:
        tries = [fitted([*chosen, group], best) for group in left]
        i = max(range(len(left)), key=lambda j: tries[j][1].log_evidence)
        if tries[i][1].log_evidence - best[1].log_evidence < least_gain:
            break
        chosen, best = [*chosen, left.pop(i)], tries[i]
    return best


def better_left_out(
    grams: dict[str, Tensor], doubted: str, found: Variances, y: Tensor, row_noise: RowNoise
) -> tuple[list[str], Variances]:
    """The parts with or without one of them, whichever predicts left-out fifths of the rows better.

    The evidence is a sum of predictions of each row from those before it. So it blames other parts for what they do not
    know from a few rows, but not a part that has learned from four fifths of them elsewhere.

    Parameters
    ----------
    grams : dict of str to Tensor of shape (n, n)
        By the name of the part.
    doubted : str
        Its name.
    found : Variances
        Of all these parts.
    y, row_noise
        As for `fit_variances`.

    Returns
    -------
    names : list of str
    found : Variances
        Of these parts.
    """
    others = [name for name in grams if name != doubted]
    if not others:
        return list(grams), found
    stacked = torch.stack([grams[name] for name in others])
    without = fit_variances(stacked, y, row_noise=row_noise)
    of_all = left_out_score(torch.stack(list(grams.values())), found, y, row_noise)
    if left_out_score(stacked, without, y, row_noise) < of_all:
        return list(grams), found
    return others, without


def left_out_score(grams: Tensor, found: Variances, y: Tensor, row_noise: RowNoise) -> float:
    """Sum of the log-densities of rows, predicted from the other four fifths, with the variances of all.

    With A the covariance, rows I have given the others the mean ``y_I - C (A^-1 y)_I`` and the covariance
    ``C = ((A^-1)_II)^-1``, as the formulas of a partitioned inverse say.
    """
    share, known = row_noise.tensors(y)
    covariance = torch.einsum("b,bnm->nm", found.parts, grams) + CONSTANT + (found.noise * share + known).diag()
    precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    weights, score = precision @ y, 0.0
    for fold in range(N_FOLDS):
        rows = torch.arange(fold, len(y), N_FOLDS, device=y.device)
        own = torch.linalg.inv(precision[rows][:, rows])
        variance = own.diagonal()
        score -= 0.5 * float(((own @ weights[rows]).square() / variance + (2 * math.pi * variance).log()).sum())
    return score


def _of_noise_alone(y: Tensor, row_noise: RowNoise) -> float:
    """Log-evidence of noise whose variance is 1 on average, and a constant."""
    share, known = row_noise.tensors(y)
    noise = max(1 - float(known.mean()), SMALLEST) / float(share.mean())
    precision = 1 / (noise * share + known)
    # The matrix determinant lemma, and Sherman and Morrison.
    total = 1 + CONSTANT * float(precision.sum())
    quadratic = float(precision @ y.square() - CONSTANT * (precision @ y) ** 2 / total)
    n_repeats, within = row_noise.repeats()
    log_determinant = math.log(total) - float(precision.log().sum()) + n_repeats * math.log(noise)
    return -0.5 * (quadratic + within / noise + log_determinant + len(y) * math.log(2 * math.pi))


def fit_scale_and_noise(eigenvalues: Tensor, moments: Tensor, y_square: float, n_rows: float) -> tuple[float, float]:
    """Maximise the evidence over one scale of a kernel and the noise, once its features are decomposed.

    With ``Phi^T Phi = U diag(s) U^T`` and ``z = U^T Phi^T y`` an evaluation is O(d):
    ``-2 log ev = n log noise + sum log(1 + s_i / r) + (y^T y - sum z_i^2 / (s_i + r)) / noise``, r = noise / scale. The
    best noise for a ratio r is in closed form, so that one number is searched for. A priori the scale is within a
    factor of e^0.5 of 1, as the fit on some of the rows has left it.

    Parameters
    ----------
    eigenvalues, moments : Tensor of shape (d,)
        s and z.
    y_square : float
        y^T y.
    n_rows : float
        Of weighted rows, the sum of their weights, which are in the other sums as well.

    Returns
    -------
    scale, noise : float
    """
    s, z2 = eigenvalues.clamp_min(0).cpu().numpy(), moments.square().cpu().numpy()

    def noise_at(ratio: float) -> float:
        return max((y_square - float((z2 / (s + ratio)).sum())) / n_rows, SMALLEST * y_square / n_rows)

    def loss(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        noise = noise_at(ratio)
        prior = ((math.log(noise) - log_ratio) / SCALE_STD) ** 2
        return n_rows * math.log(noise) + float(np.log1p(s / ratio).sum()) + prior

    found = minimize_scalar(loss, bounds=(math.log(1e-4), math.log(1e4)), method="bounded", options={"xatol": 1e-3})
    ratio = math.exp(found.x)
    return noise_at(ratio) / ratio, noise_at(ratio)
