"""Exact answers for linear-Gaussian chains with linear and quadratic rewards.

The entries of a vector are independent chains ``x_{t-1} ~ N(slope_t x_t + offset_t, std_t^2)``. A quadratic reward has
quadratic soft values, and its optimum is a linear-Gaussian chain again, of smaller variances. Policies that keep the
pretrained variances cannot reach it; `variance_floor` says by how much.

A decoder ``x_0 = a x + b`` after the last policy belongs into the reward: linear ``a (w - k b)``, curvature ``a^2 k``.

References
----------
BRAID (Uehara, Zhao et al., NeurIPS 2024), equations (6) to (8), for Gaussian policies.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from braidkit.theory._checks import check_number


class Quadratic(NamedTuple):
    """The function ``sum_i (linear_i x_i - curvature_i x_i^2 / 2) + constant``: a reward, or a soft value.

    Parameters
    ----------
    linear, curvature : Tensor of shape (d,) or float, default=0
        A number stands for all entries.
    constant : Tensor of shape () or float, default=0

    Examples
    --------
    >>> Quadratic(linear=1.0, curvature=2.0)(torch.tensor([[3.0]]))
    tensor([-6.])
    """

    linear: Tensor | float = 0.0
    curvature: Tensor | float = 0.0
    constant: Tensor | float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Values (n,) at points (n, d)."""
        return (self.linear * x - self.curvature * x.square() / 2).sum(dim=-1) + self.constant


class LinearGaussianChain:
    """A chain of d independent entries, ``x_T ~ N(initial_mean, initial_std^2)``, then T linear-Gaussian policies.

    Parameters
    ----------
    slope : Tensor of shape (T,) or (T, d)
        Entry t - 1 belongs to the policy t = 1, ..., T. It sets the shape of the chain: with (T,) there is one entry.
    std : Tensor of shape (T,) or (T, d), or float
        > 0. A step without noise is a decoder; put it into the reward.
    initial_std : Tensor of shape (d,) or float, default=1
    offset : Tensor of shape (T,) or (T, d), or float, default=0
    initial_mean : Tensor of shape (d,) or float, default=0

    Attributes
    ----------
    slope, std, offset : Tensor of shape (T, d)
        In float64, as all that follows from them.
    initial_std, initial_mean : Tensor of shape (d,)

    Raises
    ------
    ValueError
        If a standard deviation is not positive.

    Examples
    --------
    >>> chain = LinearGaussianChain(slope=torch.zeros(1), std=2.0)
    >>> values, value = chain.soft_values(Quadratic(linear=1.0), alpha=1.0)
    >>> value.item()
    2.0
    """

    def __init__(
        self,
        slope: Tensor,
        std: Tensor | float,
        initial_std: Tensor | float = 1.0,
        offset: Tensor | float = 0.0,
        initial_mean: Tensor | float = 0.0,
    ) -> None:
        self.slope = _rows("slope", slope)
        if self.slope.ndim != 2 or not len(self.slope):
            raise ValueError(f"slope must have shape (T,) or (T, d), one row a step; got {tuple(self.slope.shape)}.")
        self.std = _expanded("std", _rows("std", std), *self.slope.shape)
        self.offset = _expanded("offset", _rows("offset", offset), *self.slope.shape)
        self.initial_std = _expanded("initial_std", _finite("initial_std", initial_std), self.slope.shape[1])
        self.initial_mean = _expanded("initial_mean", _finite("initial_mean", initial_mean), self.slope.shape[1])
        smallest = min(float(self.std.min()), float(self.initial_std.min()))
        if not smallest > 0:
            raise ValueError(
                f"standard deviations must be > 0; got {smallest:g}. Put a step without noise into the reward."
            )

    @property
    def n_steps(self) -> int:
        """Number T of policies, the initial draw not counted."""
        return len(self.slope)

    def policy(self, t: int, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of x_{t-1}.

        Parameters
        ----------
        t : int
            1, ..., T; T + 1 is the initial draw, which takes from `x_t` its shape alone.
        x_t : Tensor of shape (n, d)

        Returns
        -------
        mean : Tensor of shape (n, d)
        std : Tensor of shape (d,)
        """
        if not 1 <= t <= self.n_steps + 1:
            raise ValueError(f"t must be in 1, ..., {self.n_steps + 1}; got {t}.")
        if t > self.n_steps:
            return self.initial_mean.expand(x_t.shape), self.initial_std
        return self.slope[t - 1] * x_t.double() + self.offset[t - 1], self.std[t - 1]

    def step_kl(self, t: int, x_t: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
        """KL of another chain's policy at given states against this chain's.

        Averaged over states that the other chain visits and summed over t = T + 1, ..., 1, it is the path KL. Against
        the optimum that is the other chain's gap in nats; less `variance_floor`, it is what a chain of pretrained
        variances falls short of the best such chain.

        Parameters
        ----------
        t, x_t
            As in `policy`.
        mean : Tensor of shape (n, d)
            Of the other chain's policy at `x_t`.
        std : Tensor broadcastable to (n, d), or float
            Of the same.

        Returns
        -------
        kl : Tensor of shape (n,)
            Nats, summed over entries.
        """
        own_mean, own_std = self.policy(t, x_t)
        return _normal_kl(mean.double(), torch.as_tensor(std, dtype=torch.float64), own_mean, own_std).sum(dim=-1)

    def marginals(self) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of x_t.

        Returns
        -------
        means, stds : Tensor of shape (T + 1, d)
            Row t belongs to x_t.
        """
        means, variances = [self.initial_mean], [self.initial_std.square()]
        for t in range(self.n_steps, 0, -1):
            means.append(self.slope[t - 1] * means[-1] + self.offset[t - 1])
            variances.append(self.slope[t - 1].square() * variances[-1] + self.std[t - 1].square())
        return torch.stack(means[::-1]), torch.stack(variances[::-1]).sqrt()

    def soft_values(self, reward: Quadratic, alpha: float) -> tuple[list[Quadratic], Tensor]:
        """Soft values (8) of this chain, which are quadratic.

        With ``s = 1 + std^2 curvature / alpha`` and m the pretrained mean, ``v_t`` is
        ``(linear m - curvature m^2 / 2 + std^2 linear^2 / (2 alpha)) / s - (alpha / 2) log s + constant``, summed over
        entries, of the linear, curvature and constant of ``v_{t-1}``.

        Parameters
        ----------
        reward : Quadratic
            r_hat - g_hat.
        alpha : float
            In units of the reward, > 0.

        Returns
        -------
        values : list of Quadratic
            v_0, ..., v_T.
        value : Tensor of shape ()
            v_{T+1} = alpha log C, the largest value of the objective (6).

        Raises
        ------
        ValueError
            If alpha is not positive, or the reward grows so fast that C is infinite.

        References
        ----------
        BRAID, equation (8).
        """
        linear, curvature, constant = self._coefficients(reward, alpha)
        values = [Quadratic(*parts) for parts in zip(linear, curvature, constant[:-1], strict=True)]
        return values, constant[-1]

    def optimum(self, reward: Quadratic, alpha: float, *, tilt_initial: bool = True) -> LinearGaussianChain:
        """The optimal policies (7): means moved along the gradient of the soft value, variances narrowed.

        Parameters
        ----------
        reward, alpha
            As in `soft_values`.
        tilt_initial : bool, default=True
            False keeps the initial draw.

        Returns
        -------
        optimum : LinearGaussianChain
        """
        linear, curvature, _ = self._coefficients(reward, alpha)
        u = self.std.square() * curvature[:-1] / alpha
        mean, std = self.initial_mean, self.initial_std
        if tilt_initial:
            u_initial = std.square() * curvature[-1] / alpha
            mean = (mean + std.square() * linear[-1] / alpha) / (1 + u_initial)
            std = std / (1 + u_initial).sqrt()
        return LinearGaussianChain(
            self.slope / (1 + u),
            self.std / (1 + u).sqrt(),
            std,
            (self.offset + self.std.square() * linear[:-1] / alpha) / (1 + u),
            mean,
        )

    def best_fixed_std(self, reward: Quadratic, alpha: float, *, tilt_initial: bool = True) -> LinearGaussianChain:
        """The chain of largest objective (6) among those with this chain's standard deviations.

        Its means are those of the optimum: with a fixed variance only the constants of the values change.

        Parameters
        ----------
        reward, alpha
            As in `soft_values`.
        tilt_initial : bool, default=True
            False keeps the initial draw; otherwise its mean alone moves.

        Returns
        -------
        chain : LinearGaussianChain
        """
        best = self.optimum(reward, alpha, tilt_initial=tilt_initial)
        return LinearGaussianChain(best.slope, self.std, self.initial_std, best.offset, best.initial_mean)

    def variance_floor(self, reward: Quadratic, alpha: float) -> Tensor:
        """Gap of the best chain with this chain's standard deviations: ``sum (u - log(1 + u)) / 2`` nats.

        The sum runs over entries and t = T + 1, ..., 1, with ``u = std_t^2 curvature_{t-1} / alpha``. It is 0 for a
        linear reward and falls as 1/T where the steps are made finer.

        Parameters
        ----------
        reward, alpha
            As in `soft_values`.

        Returns
        -------
        floor : Tensor of shape ()
            Nats.
        """
        _, curvature, _ = self._coefficients(reward, alpha)
        u = torch.cat([self.std, self.initial_std[None]]).square() * curvature / alpha
        return (u - u.log1p()).sum() / 2

    def path_kl(self, other: LinearGaussianChain) -> Tensor:
        """KL between the laws of whole paths: expected KLs of the policies, summed over t = T + 1, ..., 1.

        Returns
        -------
        kl : Tensor of shape ()
            Nats, summed over entries.
        """
        means, stds = self.marginals()
        initial = _normal_kl(self.initial_mean, self.initial_std, other.initial_mean, other.initial_std)
        difference = self.slope - other.slope
        at_mean = _normal_kl(difference * means[1:] + self.offset, self.std, other.offset, other.std)
        spread = (difference * stds[1:] / other.std).square() / 2
        return initial.sum() + (at_mean + spread).sum()

    def objective(self, pretrained: LinearGaussianChain, reward: Quadratic, alpha: float) -> Tensor:
        """Objective (6) of this chain: mean reward less alpha times the path KL to the pretrained one.

        Returns
        -------
        value : Tensor of shape ()
            In units of the reward.
        """
        means, stds = self.marginals()
        spread = (reward.curvature * stds[0].square()).sum() / 2
        return reward(means[0]) - spread - alpha * self.path_kl(pretrained)

    def gap(self, pretrained: LinearGaussianChain, reward: Quadratic, alpha: float) -> Tensor:
        """Distance of this chain to the optimum: path KL to it, which is ``log C - objective / alpha``.

        Returns
        -------
        gap : Tensor of shape ()
            Nats, >= 0.
        """
        return self.path_kl(pretrained.optimum(reward, alpha))

    def _coefficients(self, reward: Quadratic, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
        """Linear (T + 1, d) and curvature (T + 1, d) of v_0, ..., v_T; constants (T + 2,) of these and v_{T+1}."""
        check_number("alpha", alpha)
        if not isinstance(reward, Quadratic):
            raise ValueError(f"reward must be a Quadratic; got {reward!r:.60}.")
        first = [_finite(name, part) for name, part in zip(Quadratic._fields, reward, strict=True)]
        linear, curvature = [first[0].expand_as(self.initial_mean)], [first[1].expand_as(self.initial_mean)]
        constants = [first[2]]
        # The initial draw is a policy as well, of slope 0.
        slopes = torch.cat([self.slope, torch.zeros_like(self.slope[:1])])
        offsets = torch.cat([self.offset, self.initial_mean[None]])
        variances = torch.cat([self.std, self.initial_std[None]]).square()
        for slope, offset, variance in zip(slopes, offsets, variances, strict=True):
            w, k = linear[-1], curvature[-1]
            s = 1 + variance * k / alpha
            if not (s > 0).all():
                raise ValueError(
                    f"the reward curves up so much that E[exp(reward / alpha)] is infinite at alpha = {alpha:g}; "
                    "raise alpha or use a bounded reward."
                )
            at_offset = w * offset - k * offset.square() / 2 + variance * w.square() / (2 * alpha)
            constants.append(constants[-1] + (at_offset / s - alpha / 2 * s.log()).sum())
            linear.append(slope * (w - k * offset) / s)
            curvature.append(slope.square() * k / s)
        return torch.stack(linear[:-1]), torch.stack(curvature[:-1]), torch.stack(constants)


def _normal_kl(mean: Tensor, std: Tensor, other_mean: Tensor, other_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(other_mean, other_std^2)) by entries."""
    u = (std / other_std).square() - 1
    return (u - u.log1p() + ((mean - other_mean) / other_std).square()) / 2


def _finite(name: str, x: Tensor | float) -> Tensor:
    """Finite numbers in float64."""
    try:
        x = torch.as_tensor(x, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be numbers; got {x!r:.60}.") from error
    if not x.isfinite().all():
        raise ValueError(f"{name} must be finite; got {x[~x.isfinite()][0]:g}.")
    return x


def _expanded(name: str, x: Tensor, *shape: int) -> Tensor:
    """The tensor in a shape; raises unless it has that, or one that is repeated to it."""
    try:
        return x.expand(shape)
    except RuntimeError as error:
        raise ValueError(f"{name} must have shape {shape}, or be one number; got {tuple(x.shape)}.") from error


def _rows(name: str, x: Tensor | float) -> Tensor:
    """A number, or rows (T, d) from (T,) or (T, d), in float64."""
    x = _finite(name, x)
    return x[:, None] if x.ndim == 1 else x
