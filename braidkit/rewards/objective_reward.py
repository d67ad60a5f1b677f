"""ObjectiveReward: a reward of several measurements, each with a reward and a bound of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from torch import Tensor

from braidkit.data import check_enough_rows, check_lengths, read_target_errors, read_targets
from braidkit.exceptions import InvalidParameterError, InvalidTargetError
from braidkit.rewards._base import BaseReward, Bounded, standardise
from braidkit.rewards.black_box import BlackBoxReward
from braidkit.rewards.gp_bonus import GPBonusReward
from braidkit.rewards.objective import Bounds, Objective
from braidkit.rewards.row_noise import check_takes_noise
from braidkit.spaces import Space, read_designs


class ObjectiveReward(Bounded):
    """A reward whose value is an expression of several measured quantities.

    Each quantity gets a clone of `reward`. The lower bound of the expression follows from their bounds by interval
    arithmetic. For "hepg2 - k562" it is the lower bound of the first, minus the upper bound, mean + penalty, of the
    second.

    Parameters
    ----------
    objective : str
        Larger is better: "hepg2 - k562", "0.7*a + 0.3*b", "min(a, b)", "-kd", or with conditions
        "affinity if expression >= 0.8 and length <= 12". A condition is met if its pessimistic bound meets it. A
        shortfall costs 5 deviations of the value for each deviation of the condition's quantity.
    reward : regressor, default=GPBonusReward()
        The reward of each quantity; clones are fitted.

    Attributes
    ----------
    objective_ : Objective
    scales_ : tuple of float
        Standard deviations over the measured rows: of the value, and of the quantity of each condition.
    rewards_ : dict of str to regressor
        The fitted rewards, by quantity.
    y_mean_, y_std_ : float
        Mean and standard deviation of the value, without conditions.
    space_ : Space
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from braidkit.rewards import ObjectiveReward
    >>> X = np.random.default_rng(0).normal(size=(80, 2))
    >>> y = pd.DataFrame({"gain": X[:, 0], "cost": X[:, 1]})
    >>> reward = ObjectiveReward("gain - 0.5*cost").fit(X, y)
    >>> bool(np.corrcoef(reward.predict(X), X @ [1, -0.5])[0, 1] > 0.9)
    True
    """

    space_: Space

    def __init__(self, objective: str, reward: Any = None) -> None:
        self.objective = objective
        self.reward = reward

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None, y_error: Any = None
    ) -> ObjectiveReward:
        """Fit a reward to each quantity.

        Parameters
        ----------
        X : designs
        y : DataFrame, or array-like of shape (n_samples, n_quantities) or (n_samples,)
            Columns of an array are called y0, y1, ..., and a single one y.
        groups, sample_weight : array-like of shape (n_samples,), optional
            As for `reward`.
        y_error : array-like of the shape of y, optional
            Standard errors; a column of NaN where none are known.

        Returns
        -------
        self : ObjectiveReward

        Raises
        ------
        InvalidParameterError, InvalidTargetError, InvalidDesignError
            Naming what of the objective, or which column and row, cannot be used.
        """
        if self.reward is not None and (isinstance(self.reward, type) or not hasattr(self.reward, "fit")):
            raise InvalidParameterError(f"reward must be a regressor of designs, or None; got {self.reward!r:.60}.")
        noise = {"sample_weight": sample_weight, "y_error": y_error}
        check_takes_noise(self.reward, [name for name, value in noise.items() if value is not None])
        names, columns = read_targets(y)
        designs = read_designs(X)
        check_lengths(designs, columns)
        check_enough_rows(designs)
        self.objective_ = Objective.parse(self.objective, names)
        self.scales_ = self.objective_.scales(columns)
        _, self.y_mean_, self.y_std_ = standardise(self.objective_.measured_value(columns))
        errors = read_target_errors(y_error, names, len(columns))
        self.rewards_ = {}
        for name, column, error in zip(names, columns.T, errors, strict=True):
            reward = GPBonusReward() if self.reward is None else clone(self.reward)
            told = {"groups": groups, "sample_weight": sample_weight, "y_error": error}
            told = {key: value for key, value in told.items() if value is not None and has_fit_parameter(reward, key)}
            reward = reward if hasattr(reward, "lower") else BlackBoxReward(reward)
            try:
                self.rewards_[name] = reward.fit(X, column, **told)
            except InvalidTargetError as error_of_column:
                raise InvalidTargetError(f"target {name!r}: {error_of_column}") from error_of_column
        first = next(iter(self.rewards_.values()))
        self.space_, self.n_features_in_ = first.space_, first.n_features_in_
        return self

    def combine(self, y: Any) -> np.ndarray:
        """The objective of measurements of the quantities, shape (n_samples,); conditions that fail are charged."""
        check_is_fitted(self)
        names, columns = read_targets(y)
        if names != list(self.objective_.names):
            raise InvalidTargetError(
                f"y has the columns {', '.join(names)}, but the objective is of {', '.join(self.objective_.names)}."
            )
        return self.objective_.measured(columns, self.scales_)

    def predict(self, X: Any) -> np.ndarray:
        """The objective of the predicted means, shape (n_samples,)."""
        parts = self.predict_parts(X)
        return self.objective_.bounds(parts, self.scales_).mean.numpy()

    def predict_lower(self, X: Any) -> np.ndarray:
        """The lower bound of the objective, shape (n_samples,)."""
        parts = self.predict_parts(X)
        return self.objective_.bounds(parts, self.scales_).low.numpy()

    def predict_parts(self, X: Any) -> dict[str, Bounds]:
        """Mean, lower and upper bound of each quantity, (n_samples,), float64."""
        check_is_fitted(self)
        found = {}
        for name, reward in self.rewards_.items():
            if isinstance(reward, BaseReward):  # both at once
                mean, _, penalty = reward._predict_arrays(X)
            else:
                mean = reward.predict(X)
                penalty = mean - reward.predict_lower(X)
            found[name] = Bounds(*(torch.from_numpy(np.array(part)) for part in (mean, mean - penalty, mean + penalty)))
        return found

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2 of the objective of predicted means against that of measurements."""
        measured = self.combine(y)
        check_lengths(read_designs(X), measured)
        return float(r2_score(measured, self.predict(X), sample_weight=sample_weight))

    def mean_and_penalty(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The objective's mean and penalty (n,) of points (n, \\*space_.shape), with gradients."""
        check_is_fitted(self)
        parts = {name: reward.mean_and_penalty(x) for name, reward in self.rewards_.items()}
        quantities = {name: Bounds(mean, mean - penalty, mean + penalty) for name, (mean, penalty) in parts.items()}
        found = self.objective_.bounds(quantities, self.scales_)
        return found.mean, found.mean - found.low

    def mean_difference(self, x: Tensor, other: Tensor) -> tuple[float, float]:
        """Mean difference between points and others, and its deviation, as `GPBonusReward.mean_difference`.

        The objective is taken as linear within the errors of its quantities, which are independent.

        Parameters
        ----------
        x, other : Tensor of shape (n, \\*space_.shape)

        Returns
        -------
        difference, std : float
            In deviations of the value.
        """
        sides = [self._means_and_slopes(points) for points in (x, other)]
        pairs = sides[0][0] - sides[1][0]
        variance = pairs.var(correction=0) / len(x)
        for name, reward in self.rewards_.items():
            slopes = (sides[0][1][name], sides[1][1][name])
            with torch.no_grad(), torch.autocast(reward.device_.type, enabled=False):
                points = [part.to(reward.device_, torch.float32) for part in (x, other)]
                shares = (slopes[0].to(reward.device_), slopes[1].to(reward.device_))
                own = reward.process_.difference(points[0], points[1], shares)[1]
            variance = variance + own.to(variance) * reward.y_std_**2
        return pairs.mean().item() / self.y_std_, variance.clamp_min(0.0).sqrt().item() / self.y_std_

    def _means_and_slopes(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective's mean (n,), and its derivatives (n,) by the mean of each quantity."""
        with torch.no_grad():
            means = {name: reward.mean_and_penalty(x)[0] for name, reward in self.rewards_.items()}
        with torch.enable_grad():
            means = {name: mean.detach().requires_grad_() for name, mean in means.items()}
            total = self.objective_.bounds({n: Bounds(m, m, m) for n, m in means.items()}, self.scales_).mean
            slopes = torch.autograd.grad(total.sum(), list(means.values()), materialize_grads=True)
        return total.detach(), dict(zip(means, slopes, strict=True))
