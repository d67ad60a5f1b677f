"""Exact answers for chains of angles with normal steps: what the best policies of fixed deviations can reach.

A state is a row of d angles. Only ``sin(theta)^2`` is read, so every value is an even function of each angle with
period pi: a sum of cosines ``cos(2 m theta)``. A normal step damps them by ``exp(-2 m^2 std^2)``, so a soft value is a
sum of cosines again, read at the means of the policies. With letters as broken sticks this is one position of a
sequence; where positions are independent, values add up over them.

References
----------
BRAID (Uehara, Zhao et al., NeurIPS 2024), equations (6) to (8), for Gaussian policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from braidkit.theory._checks import check_number, check_tensor

Means = Callable[[Tensor, int], Tensor]  # angles (n, d) at time t -> mean angles (n, d) at time t - 1
Reward = Callable[[Tensor], Tensor]  # angles (n, d) -> rewards (n,)

FINE = 4  # points for each mode and angle at which a reward is read, which may jump


class LettersOptimum(NamedTuple):
    """The optimum for a reward of single letters, if letters are independent.

    Attributes
    ----------
    log_tilted : Tensor of shape (..., K)
        Log-probabilities of the letters under the optimum, ``p exp(reward / alpha)`` normalised.
    log_c : Tensor of shape (...)
        Largest value of (6) over alpha, nats; add up over positions.
    gain : Tensor of shape (...)
        What it has above the pretrained chain's value, ``log_c - E[reward] / alpha``, nats.
    """

    log_tilted: Tensor
    log_c: Tensor
    gain: Tensor


def letters_optimum(probabilities: Tensor, reward: Tensor, alpha: float) -> LettersOptimum:
    """Optimum of ``reward(x) = sum_i reward_i(x_i)`` over independent letters, position by position.

    Parameters
    ----------
    probabilities, reward : Tensor of shape (..., K)
        Of every letter; the leading dimensions are positions.
    alpha : float
        In units of the reward, > 0.

    Returns
    -------
    optimum : LettersOptimum

    References
    ----------
    BRAID, equation (5): a product of laws tilted by a sum is the product of the tilted laws.

    Examples
    --------
    >>> p, reward = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.0, 0.0, 2.0, 0.0])
    >>> optimum = letters_optimum(p, reward, alpha=1.0)
    >>> optimum.log_tilted.exp()
    tensor([0.1756, 0.1317, 0.6488, 0.0439], dtype=torch.float64)
    >>> round(optimum.gain.item(), 3)
    0.423
    """
    check_number("alpha", alpha)
    reward = check_tensor("reward", reward)
    probabilities = check_tensor("probabilities", probabilities, *reward.shape)
    if (probabilities < 0).any() or not torch.allclose(probabilities.sum(dim=-1), probabilities.new_ones(())):
        raise ValueError("probabilities must be at least 0 and sum to 1 at each position.")
    logits = probabilities.log() + reward / alpha
    log_c = logits.logsumexp(dim=-1)
    return LettersOptimum(logits.log_softmax(dim=-1), log_c, log_c - (probabilities * reward).sum(dim=-1) / alpha)


class AngleChain:
    """A chain of d angles with steps ``N(means(theta, t), std_t^2)``, t = T, ..., 1, by sums of cosines.

    Parameters
    ----------
    means : callable
        ``means(theta, t)``: mean angles (n, d) of step t from angles (n, d); a function of ``sin(theta)^2``.
    std : Tensor of shape (T, d)
        Deviations of the steps t = 1, ..., T, the same for all states.
    start, weights : Tensor of shape (n, d) and (n,)
        Points and weights of a quadrature over the law of the initial angles; weights sum to 1.
    n_modes : int, default=20
        Cosines of an angle. The smallest deviation needs ``exp(-2 n_modes^2 std^2)`` to be small.

    Notes
    -----
    The initial law is left alone: policies of x_{T-1}, ..., x_0 are what is optimised. With ``n_modes ** d`` states a
    step costs ``n_modes ** (2 d)`` multiplications.

    Examples
    --------
    One step from anywhere to N(pi / 4, 0.3^2), and the reward 1 where sin(theta)^2 > 1/2.

    >>> chain = AngleChain(lambda x, t: 0 * x + torch.pi / 4, torch.tensor([[0.3]]), torch.zeros(1, 1), torch.ones(1))
    >>> reward = lambda theta: (theta.sin() ** 2 > 0.5).double()
    >>> value = chain.value(reward, 1.0), chain.best_fixed_std(reward, 1.0), chain.soft_value(reward, 1.0)
    >>> [round(v.item(), 3) for v in value]
    [0.5, 0.576, 0.62]
    """

    def __init__(self, means: Means, std: Tensor, start: Tensor, weights: Tensor, *, n_modes: int = 20) -> None:
        self.means, self.std = means, check_tensor("std", std)
        self.start, self.weights = check_tensor("start", start), check_tensor("weights", weights)
        self.n_modes = n_modes
        if self.std.ndim != 2 or self.start.ndim != 2 or self.std.shape[1] != self.start.shape[1]:
            raise ValueError(
                f"std must have shape (T, d) and start (n, d); got {tuple(std.shape)} and {tuple(start.shape)}."
            )
        if not (self.std > 0).all():
            raise ValueError(f"std must be > 0; got {float(self.std.min())}.")
        if self.weights.shape != self.start.shape[:1] or not abs(float(self.weights.sum()) - 1) < 1e-5:
            raise ValueError("weights must have shape (n,), one for each point of start, and sum to 1.")

    @property
    def n_steps(self) -> int:
        """Number T of policies."""
        return len(self.std)

    def value(self, reward: Reward, alpha: float, means: Means | None = None) -> Tensor:
        """Objective (6) of a chain of the same deviations with other means; by default the mean reward of this one.

        Parameters
        ----------
        reward : callable
            Of angles (n, d) of x_0; it may jump.
        alpha : float
            In units of the reward, > 0.
        means : callable, optional
            Gradients flow to what it is made of.

        Returns
        -------
        value : Tensor of shape ()
        """

        def policy(read: _Cosines, theta: Tensor, t: int) -> Tensor:
            mean = self._means(theta, t)
            if means is None:
                return read(mean)
            moved = means(theta, t).double()
            return read(moved) - alpha * self._kl(moved, mean, t)

        return self._backwards(self._project(reward), policy)

    def soft_value(self, reward: Reward, alpha: float) -> Tensor:
        """Value of the best policies of any kind, by (8); (6) at its largest but for the initial law.

        Parameters
        ----------
        reward, alpha
            As in `value`.

        Returns
        -------
        value : Tensor of shape ()
        """

        # Powers of the cosines' sums, not logarithms, are damped exactly; the first is of a reward that may jump.
        def policy(read: _Cosines, theta: Tensor, t: int) -> Tensor:
            return read(self._means(theta, t))

        largest = reward(self._nodes(FINE * self.n_modes)).max().double()
        first = self._project(lambda theta: ((reward(theta).double() - largest) / alpha).exp())
        values = self._backwards(first, policy, reduce=False).clamp(min=torch.finfo(torch.float64).tiny)
        return largest + alpha * (self.weights * values.log()).sum()

    def best_fixed_std(self, reward: Reward, alpha: float, n_iter: int = 30) -> Tensor:
        """Value of the best policies that keep the deviations: what fine-tuning of the means can reach at most.

        From each state the mean solves ``mu = mu_pre + std^2 grad E[v(mu + std z)] / alpha``, by damped iteration.

        Parameters
        ----------
        reward, alpha
            As in `value`.
        n_iter : int, default=30
            Iterations a step.

        Returns
        -------
        value : Tensor of shape ()
        """

        def policy(read: _Cosines, theta: Tensor, t: int) -> Tensor:
            moved = mean = self._means(theta, t)
            for _ in range(n_iter):
                moved = moved + 0.7 * (mean + self.std[t - 1].square() / alpha * read.gradient(moved) - moved)
            return torch.maximum(read(mean), read(moved) - alpha * self._kl(moved, mean, t))

        with torch.no_grad():
            return self._backwards(self._project(reward), policy)

    def _backwards(
        self, cosines: Tensor, policy: Callable[[_Cosines, Tensor, int], Tensor], reduce: bool = True
    ) -> Tensor:
        """Carry values back from x_0 to x_T; their mean over the initial law, or the values at its points."""
        nodes = self._nodes(self.n_modes)
        for t in range(1, self.n_steps):
            cosines = self._transform(policy(_Cosines(cosines, self.std[t - 1]), nodes, t), self.n_modes)
        values = policy(_Cosines(cosines, self.std[-1]), self.start, self.n_steps)
        return (self.weights * values).sum() if reduce else values

    def _means(self, theta: Tensor, t: int) -> Tensor:
        """Pretrained means in float64, without gradient."""
        with torch.no_grad():
            return self.means(theta, t).double()

    def _kl(self, moved: Tensor, mean: Tensor, t: int) -> Tensor:
        """KL (n,) of policies with moved means, nats."""
        return ((moved - mean).square() / (2 * self.std[t - 1].square())).sum(dim=1)

    def _nodes(self, n: int) -> Tensor:
        """Midpoints of n equal parts of (0, pi / 2) in every angle, (n ** d, d)."""
        line = (torch.arange(n, dtype=torch.float64) + 0.5) * (math.pi / 2 / n)
        return torch.cartesian_prod(*[line] * self.std.shape[1]).reshape(-1, self.std.shape[1])

    def _project(self, reward: Reward) -> Tensor:
        """Cosines of a reward, by a finer grid."""
        n = FINE * self.n_modes
        return self._transform(reward(self._nodes(n)).double(), n)

    def _transform(self, values: Tensor, n: int) -> Tensor:
        """Cosine coefficients (n_modes, ..., n_modes) of values (n ** d,) at the midpoints."""
        line = (torch.arange(n, dtype=torch.float64) + 0.5) * (math.pi / 2 / n)
        matrix = (2 * torch.arange(self.n_modes, dtype=torch.float64)[:, None] * line).cos() * (2 / n)
        matrix[0] /= 2
        d = self.std.shape[1]
        values = values.reshape([n] * d)
        for _ in range(d):  # each turn transforms the first angle and moves it to the end
            values = torch.tensordot(values, matrix, dims=([0], [1]))
        return values


class _Cosines:
    """``E[f(mu + std z)]`` for a sum of cosines f, as a function of means mu (n, d)."""

    def __init__(self, coefficients: Tensor, std: Tensor) -> None:
        self.d, self.orders = coefficients.ndim, 2 * torch.arange(len(coefficients), dtype=torch.float64)
        for i in range(self.d):
            damping = (-0.5 * (self.orders * std[i]).square()).exp()
            coefficients = coefficients * damping.reshape([-1] + [1] * (self.d - 1 - i))
        self.coefficients = coefficients

    def __call__(self, mean: Tensor) -> Tensor:
        """Values (n,)."""
        cosines = self._angles(mean).cos()
        return self._contract(self._first(cosines[0]), cosines[1:])

    def gradient(self, mean: Tensor) -> Tensor:
        """Gradient (n, d)."""
        angles = self._angles(mean)
        cosines, slopes = angles.cos(), -self.orders * angles.sin()
        first = self._first(cosines[0])  # the largest product, which all parts but one share
        parts = [self._contract(self._first(slopes[0]), cosines[1:])]
        for i in range(1, self.d):
            parts.append(self._contract(first, torch.cat([cosines[1:i], slopes[i : i + 1], cosines[i + 1 :]])))
        return torch.stack(parts, dim=1)

    def _angles(self, mean: Tensor) -> Tensor:
        """2 m mu for every angle, point and order, (d, n, n_modes)."""
        return mean.T[:, :, None] * self.orders

    def _first(self, factor: Tensor) -> Tensor:
        """The sum over orders of the first angle, (n, n_modes ** (d - 1))."""
        return factor @ self.coefficients.reshape(len(self.orders), -1)

    def _contract(self, total: Tensor, factors: Tensor) -> Tensor:
        """The sums over orders of the other angles, (n,), by factors (d - 1, n, n_modes)."""
        for factor in factors:
            total = torch.einsum("nm,nmr->nr", factor, total.reshape(*factor.shape, -1))
        return total[:, 0]
