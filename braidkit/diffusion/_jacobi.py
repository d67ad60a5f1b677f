r"""Exact laws of the Jacobi diffusions on sticks, by their lineages.

A point of the simplex over K letters is broken into K - 1 sticks, ``x_k = v_k prod_{j<k} (1 - v_j)``. Stick i (from 0)
runs ``dv = (s/2) [1 - v - b v] dt + sqrt(s v (1 - v)) dB`` with b = K - 1 - i and s = 2 / (1 + b); its stationary law
is Beta(1, b), and that of the point is uniform on the simplex.

At time t, ``tau = s t``, a random number m of *lineages* still reaches back to the start. It comes down from infinity,
from m to m - 1 at rate ``m (m + b) / 2``, whatever the path does. Given m, a stick that started at 0 has the law
Beta(1, b + m), and one that started at 1 the law Beta(1 + m, b). A one-hot start on letter k puts sticks i < k at 0 and
stick k at 1; the sticks after it have nothing to break, and are stationary.

The score of a conditional law is therefore a posterior mean of m, and where the letter has probabilities q_k

``v_i (1 - v_i) score_i = (1 - v_i) q_i E1[m | v_i] - v_i (sum_{k>i} q_k) E0[m | v_i] - (b_i - 1) v_i``.

References
----------
P. Avdeyev et al., "Dirichlet diffusion score model for biological sequence generation", ICML 2023.
R. C. Griffiths, "Lines of descent in the diffusion approximation of neutral Wright-Fisher models", 1980.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import betaln, gammaln, loggamma
from torch import Tensor, nn

# Cells of the tables in the angle asin(sqrt(v)); linear interpolation of E0 and E1 is then off by at most 1e-3 of
# 2 / tau, and by 1e-4 of it where the conditional density is above e^-40.
N_CELLS = 512


def log_lineage_law(b: float, tau: float) -> np.ndarray:
    r"""Log-probabilities of m = 0, 1, ... lineages at time tau, to where they are below 1e-20 of the largest.

    The Laplace transform of ``tau -> q_m(tau)`` is ``prod_{k>m} (r_k / (r_k + p)) / (r_m + p)``, r_m = m (m + b) / 2.
    With ``c = m + b/2``, ``x^2 = b^2/4 - 2 p`` it is ``2 Gamma(c - x) Gamma(c + x) / (m! Gamma(m + b + 1))``. It is
    inverted along a parabola through the saddle point that follows the path of steepest descent. There the trapezoidal
    rule converges geometrically. Relative errors stay below 1e-9 in both tails, in which the alternating series for q_m
    loses all digits.

    Parameters
    ----------
    b : float
        Number of letters after this one, >= 1.
    tau : float
        Time of the diffusion with s = 1, > 0.

    Returns
    -------
    log_q : ndarray of shape (n_lineages,)
    """
    # Mean and variance of m are close to 2 / tau and 2 / (3 tau) while many are left.
    m = np.arange(math.ceil(2 / tau + 10 * math.sqrt(2 / (3 * tau)) + 10), dtype=float)
    c = m + b / 2

    def slope(p: np.ndarray) -> np.ndarray:
        """Derivative of the log transform, -sum_{k>=m} 1 / (r_k + p): the first term, and the rest as an integral."""
        x = np.sqrt(b**2 / 4 - 2 * p + 0j)
        return -1 / (p - pole) - (np.log((c + 0.5 + x) / (c + 0.5 - x)) / x).real

    def exponent(p: np.ndarray) -> np.ndarray:
        x = np.sqrt(b**2 / 4 - 2 * p)
        return loggamma(c - x) + loggamma(c + x) - gammaln(m + 1) - gammaln(m + b + 1) + math.log(2) + tau * p

    # The saddle point, to a few per cent, by bisection on log(p + r_m); the slope rises from minus infinity to 0.
    pole = -m * (m + b) / 2
    low, high = np.full_like(m, -30.0), np.full_like(m, 30.0)
    for _ in range(14):
        middle = (low + high) / 2
        before = slope(pole + np.exp(middle)) < -tau
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    distance = np.exp(low)
    saddle, h = pole + distance, 1e-3 * distance
    below, at, above = slope(saddle - h), slope(saddle), slope(saddle + h)
    second, third = (above - below) / (2 * h), (above - 2 * at + below) / h**2

    step = 0.4
    u = step * np.arange(22)[:, None]
    scale, bend = 1 / np.sqrt(second), -third / (6 * second**2)
    path = saddle + 1j * scale * u - bend * u**2
    top = exponent(saddle + 0j).real
    integrand = (np.exp(exponent(path) - top) * (scale + 2j * bend * u)).real
    integrand[0] /= 2  # trapezoidal rule; the other half of the path is the complex conjugate
    return top + np.log(step / math.pi * integrand.sum(axis=0))


def tabulate_stick(b: float, tau: float, log_q: np.ndarray, n_cells: int = N_CELLS) -> np.ndarray:
    r"""Tabulate the two conditional laws of one stick on a grid of angles asin(sqrt(v)).

    Parameters
    ----------
    b, tau : float
        As in `log_lineage_law`.
    log_q : ndarray of shape (n_lineages,)
        Log-probabilities from `log_lineage_law`.
    n_cells : int

    Returns
    -------
    table : ndarray of shape (n_cells + 1, 4)
        Columns: mean of m given v and a start at 0, the same for a start at 1, and the log-densities of v for these two
        starts, less that of the stationary Beta(1, b).
    """
    angle = np.linspace(0, math.pi / 2, n_cells + 1)
    lines = np.arange(len(log_q))
    columns = []
    for distance, log_constant in (
        (angle, np.log1p(lines / b)),
        (math.pi / 2 - angle, betaln(1, b) - betaln(1 + lines, b)),
    ):
        # At small times there are many lineages. Only counts near the likeliest one matter, which is
        # 2 / tau times distance / tan(distance).
        width = min(len(lines), math.ceil(14 * math.sqrt(2 / (3 * tau)) + 4 * b + 40))
        centre = 2 / tau * distance / np.maximum(np.tan(distance), 1e-300)
        centre[distance == 0] = 2 / tau
        first = np.clip(np.round(centre - width / 2).astype(int), 0, len(lines) - width)
        m = first[:, None] + np.arange(width)
        log_factor = 2 * np.log(np.maximum(np.cos(distance), 1e-30))[:, None]
        log_weight = (log_q + log_constant)[m] + m * log_factor
        largest = log_weight.max(axis=1)
        weight = np.exp(log_weight - largest[:, None])
        total = weight.sum(axis=1)
        columns += [(weight * m).sum(axis=1) / total, largest + np.log(total)]
    return np.stack([columns[0], columns[2], columns[1], columns[3]], axis=1)


@functools.lru_cache(maxsize=8)
def _tabulate(n_letters: int, times: tuple[float, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tables of all sticks at all times; the distribution functions of m end to end, their offsets; the means of m."""
    tables: list[np.ndarray] = []
    steps: list[np.ndarray] = []
    means: list[float] = []
    for t in times:
        for b in range(n_letters - 1, 0, -1):
            tau = 2 * t / (1 + b)
            log_q = log_lineage_law(b, tau)
            tables.append(tabulate_stick(b, tau, log_q))
            q = np.exp(log_q)
            cdf = np.cumsum(q)
            means.append(float(q @ np.arange(len(q))))
            steps.append(len(steps) + cdf / cdf[-1])
    nodes = torch.from_numpy(np.stack(tables))  # (times * sticks, N_CELLS + 1, 4)
    cells = torch.cat([nodes[:, :-1], nodes.diff(dim=1)], dim=2).flatten(0, 1).float()
    offsets = torch.tensor(np.cumsum([0, *(len(cdf) for cdf in steps[:-1])]))
    mean_lineages = torch.tensor(means, dtype=torch.float32).reshape(len(times), n_letters - 1)
    return cells, torch.from_numpy(np.concatenate(steps)), offsets, mean_lineages


class Evidence(NamedTuple):
    """Likelihoods of the clean letter given sticks of shape (..., K - 1).

    Attributes
    ----------
    lineages_zero, lineages_one : Tensor
        Means of m given v, for starts at 0 and 1.
    log_ratio_zero, log_ratio_one : Tensor
        Log-densities of v for these starts, less the stationary one.
    """

    lineages_zero: Tensor
    lineages_one: Tensor
    log_ratio_zero: Tensor
    log_ratio_one: Tensor

    def log_likelihoods(self) -> Tensor:
        """Log-densities (..., K) of the sticks given each letter, less the stationary one."""
        before = nn.functional.pad(self.log_ratio_zero.cumsum(dim=-1), (1, 0))
        return before + nn.functional.pad(self.log_ratio_one, (0, 1))


class StickLaw(nn.Module):
    """Exact noising of one-hot sequences at a list of times, and the likelihood of letters given noised sticks.

    Parameters
    ----------
    n_letters : int
        K >= 2.
    times : sequence of float
        Increasing, > 0.

    Attributes
    ----------
    b : Tensor of shape (K - 1,)
    mean_lineages : Tensor of shape (n_times, K - 1)
        Unconditional means of m.
    """

    cells: Tensor
    cdf: Tensor
    offsets: Tensor
    mean_lineages: Tensor
    b: Tensor

    def __init__(self, n_letters: int, times: Sequence[float]) -> None:
        super().__init__()
        cells, cdf, offsets, mean_lineages = _tabulate(n_letters, tuple(times))
        self.register_buffer("cells", cells, persistent=False)
        self.register_buffer("cdf", cdf, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("mean_lineages", mean_lineages, persistent=False)
        self.register_buffer("b", torch.arange(n_letters - 1, 0, -1.0), persistent=False)

    def noise(self, x: Tensor, times: Tensor, generator: torch.Generator) -> Tensor:
        """Draw noised sticks.

        Parameters
        ----------
        x : Tensor of shape (n, L, K)
            One-hot.
        times : LongTensor of shape (n,)
            Number of the time of each row.
        generator : torch.Generator

        Returns
        -------
        v : Tensor of shape (n, L, K - 1)
        """
        letter = x.argmax(dim=-1, keepdim=True)
        stick = torch.arange(len(self.b), device=x.device)
        shape = (*x.shape[:-1], len(stick))
        law = times[:, None, None] * len(stick) + stick
        u = torch.rand(shape, generator=generator, dtype=torch.float64, device=x.device)
        m = torch.searchsorted(self.cdf, law + u, right=True) - self.offsets[law]
        # Beta(1, b + m) by its inverse; m = 0 is the stationary law of sticks that are broken off already.
        power = self.b + m * (stick < letter)
        v = -torch.expm1(torch.rand(shape, generator=generator, device=x.device).log() / power)
        # Beta(1 + m, b) for the letter's own stick; the last letter has none.
        own = letter.clamp(max=len(stick) - 1)
        ahead = torch._standard_gamma(1 + m.gather(-1, own).to(v.dtype), generator=generator)
        behind = torch._standard_gamma(self.b[own], generator=generator)
        v_own = torch.where(letter == own, ahead / (ahead + behind), v.gather(-1, own))
        return v.scatter(-1, own, v_own)

    def evidence(self, v: Tensor, times: Tensor | int) -> Evidence:
        """Read the tables at sticks (n, L, K - 1) in (0, 1) and time numbers (n,), or one; differentiable in sticks."""
        n_sticks = v.shape[-1]
        position = v.sqrt().asin() * (N_CELLS / (math.pi / 2))
        cell = position.detach().long().clamp(max=N_CELLS - 1)
        fraction = position - cell
        if isinstance(times, Tensor):
            times = times[:, None, None]
        law = times * n_sticks + torch.arange(n_sticks, device=v.device)
        rows = self.cells.index_select(0, (law * N_CELLS + cell).flatten()).reshape(*v.shape, 8)
        return Evidence(*torch.addcmul(rows[..., :4], fraction[..., None], rows[..., 4:]).unbind(dim=-1))


def break_sticks(v: Tensor) -> Tensor:
    """Points (..., K) of the simplex for sticks (..., K - 1): x_k = v_k prod_{j<k} (1 - v_j)."""
    left = (1 - v).cumprod(dim=-1)
    return nn.functional.pad(v, (0, 1), value=1.0) * nn.functional.pad(left, (1, 0), value=1.0)
