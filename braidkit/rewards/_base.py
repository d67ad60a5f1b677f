"""Base of the conservative rewards, and the steps of `fit` that they share."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from braidkit.data import read_new_designs, read_training_data
from braidkit.exceptions import InvalidParameterError, InvalidTargetError
from braidkit.parameters import check_count, check_fraction, check_positive, check_random_state, resolve_device
from braidkit.rewards.features import (
    PREDICT_BATCH,
    auto_batch_size,
    auto_learning_rate,
    auto_max_iter,
    make_networks,
    train_networks,
)
from braidkit.rewards.row_noise import RowNoise, merge_rows
from braidkit.spaces import Points, Space, join_groups
from braidkit.torch_state import ordinary_torch

# On fewer rows than this the best of several weights would be chosen by chance.
MIN_VALIDATION_ROWS = 5


class Bounded(RegressorMixin, BaseEstimator, abc.ABC):
    """A reward with a mean and a penalty in y's units; a subclass sets ``y_mean_`` and ``y_std_`` in `fit`."""

    y_mean_: float
    y_std_: float

    @abc.abstractmethod
    def mean_and_penalty(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and penalty (n,) of points (n, \\*space_.shape), in y's units, float64."""

    def standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and penalty (n,) of points (n, \\*space_.shape), for a y of mean 0 and deviation 1."""
        mean, penalty = self.mean_and_penalty(x)
        return (mean - self.y_mean_) / self.y_std_, penalty / self.y_std_

    def lower(self, x: Tensor) -> Tensor:
        """The conservative bound ``mean - penalty`` (n,) of points (n, \\*space_.shape); see `mean_and_penalty`."""
        mean, penalty = self.mean_and_penalty(x)
        return mean - penalty


class BaseReward(Bounded):
    """A regressor with a lower bound: r_hat, and r_hat - g_hat (BRAID, section 4.2).

    A subclass writes `fit`, which sets ``space_``, ``device_``, ``y_mean_`` and ``y_std_``, and `_standardised`.
    Arrays are in the units of y. Inside, y has mean 0 and standard deviation 1. Whatever compares or
    optimises uses `standardised`, so that a shift and a scale of y change nothing.
    """

    keeps_heads: ClassVar[bool] = True  # the networks' linear heads are part of the reward

    features: nn.Module | None
    max_iter: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate: float | Literal["auto"]
    validation_fraction: float
    space: Space | None
    device: str | torch.device
    random_state: int | np.random.RandomState | None
    verbose: int

    space_: Space
    device_: torch.device

    @abc.abstractmethod
    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None, y_error: Any = None) -> BaseReward:
        """Learn from designs and their measurements."""

    @abc.abstractmethod
    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, standard deviation and penalty (n,) of points on the device, float64, on standardised y's scale."""

    def predict(self, X: Any, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predict measurements.

        Parameters
        ----------
        X : designs
            Any kind that `fit` takes.
        return_std : bool, default=False
            Also give the uncertainty of the prediction, without the noise of a measurement.

        Returns
        -------
        mean : ndarray of shape (n_samples,)
            In y's units.
        std : ndarray of shape (n_samples,)
            In y's units; only if `return_std`.
        """
        mean, std, _ = self._predict_arrays(X)
        return (mean, std) if return_std else mean

    def predict_lower(self, X: Any) -> np.ndarray:
        """Predict the conservative bound ``mean - penalty``, shape (n_samples,), in y's units."""
        mean, _, penalty = self._predict_arrays(X)
        return mean - penalty

    def standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and penalty of points, with gradients, on the scale of standardised y.

        Parameters
        ----------
        x : Tensor of shape (n, \\*space_.shape)
            Points of the design space, relaxed ones too.

        Returns
        -------
        mean, penalty : Tensor of shape (n,)
            ``(mean - y_mean_) / y_std_`` and ``penalty / y_std_`` of the values of `predict`, float64, on the device of
            `x`.
        """
        check_is_fitted(self)
        self.space_.check_points(x)
        # Under autocast the network would run in half precision, and differ from `predict`.
        with torch.autocast(self.device_.type, enabled=False):
            mean, _, penalty = self._standardised(x.to(self.device_, torch.float32))
        return mean.to(x.device), penalty.to(x.device)

    def mean_and_penalty(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and penalty (n,) of points, with gradients, in y's units, float64; see `standardised`."""
        mean, penalty = self.standardised(x)
        return mean * self.y_std_ + self.y_mean_, penalty * self.y_std_

    @ordinary_torch()
    def _predict_arrays(self, X: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, standard deviation and penalty of designs, in y's units."""
        check_is_fitted(self)
        x = read_new_designs(self, X)
        with torch.no_grad():
            parts = [self._standardised(part.to(self.device_)) for part in x.split(PREDICT_BATCH)]
        mean, std, penalty = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        return mean * self.y_std_ + self.y_mean_, std * self.y_std_, penalty * self.y_std_

    def _start_fit(
        self, X: Any, y: Any, groups: Any, sample_weight: Any, y_error: Any
    ) -> tuple[Points, np.ndarray, RowNoise, np.ndarray, np.random.RandomState]:
        """Check the shared parameters and the data, and merge replicates; sets ``space_``, ``device_``.

        Gives the different designs, their measurements, what is known of their noise, and numbers of their groups.
        """
        check_count(self, "verbose", minimum=0)
        check_positive(self, "learning_rate", or_word="auto")
        check_count(self, "batch_size", "max_iter", or_word="auto")
        check_fraction(self, "validation_fraction", allow_zero=True)
        self.device_ = resolve_device(self.device)
        self.space_, _, x, y = read_training_data(self, X, y, space=self.space)
        noise = RowNoise.read(len(y), sample_weight, y_error)
        return *merge_rows(x, y, noise, join_groups(x, groups)), check_random_state(self.random_state)

    def _split_rows(
        self, groups: np.ndarray, n_calibration: int, random_state: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row numbers to calibrate on, to pick the best weights with, and to train on, in random order.

        A group stays together; `n_calibration` groups are calibrated on.
        """
        n_groups = int(groups.max()) + 1
        n_validation = int(self.validation_fraction * n_groups)
        n_validation = n_validation if n_validation >= MIN_VALIDATION_ROWS else 0
        if n_groups - n_calibration - n_validation < 2 <= n_groups:
            raise InvalidParameterError(
                f"validation_fraction = {self.validation_fraction:g} leaves fewer than 2 of {n_groups} different "
                "designs to train on; pass a smaller one."
            )
        place = np.argsort(random_state.permutation(n_groups))[groups]
        order = np.argsort(place, kind="stable")
        ends = np.searchsorted(place[order], [n_calibration, n_calibration + n_validation])
        calibration, validation, training = np.split(order, ends)
        return calibration, validation, training

    def _standardise(self, y: np.ndarray, rows: np.ndarray, noise: RowNoise) -> tuple[Tensor, RowNoise]:
        """Subtract the mean and divide by the deviation of some rows (``y_mean_``, ``y_std_``); float64."""
        some = noise.take(rows)
        weights = None if some.is_plain else some.weights
        target, self.y_mean_, self.y_std_ = standardise(y, rows, weights, some.within.sum() / some.weights.sum())
        if self.y_std_ == 0:
            raise InvalidTargetError(
                f"y is constant ({self.y_mean_:g}) on the {len(rows):,} rows that are not held out; pass more rows."
            )
        return torch.from_numpy(target), noise.over(self.y_std_)

    def _train(
        self,
        features: nn.Module | None,
        x: Points,
        target: Tensor,
        rows: Sequence[np.ndarray],
        validation: np.ndarray,
        weights: np.ndarray | None,
        random_state: np.random.RandomState,
    ) -> nn.ModuleList:
        """Networks on copies of `features`, or of default ones, one for each set of rows, trained and frozen.

        Sets ``n_iter_`` and ``validation_curve_``.
        """
        seed, order_seed = (int(random_state.randint(2**31)) for _ in range(2))
        n_rows = len(rows[0])
        networks = make_networks(features, self.space_, n_rows, x[:2], seed=seed, n_networks=len(rows))
        learnt = networks[0] if self.keeps_heads else networks[0].get_submodule("features")
        if not any(parameter.requires_grad for parameter in learnt.parameters()):
            self.n_iter_ = 0
            self.validation_curve_: list[float] = []
            return networks.to(self.device_).requires_grad_(False).eval()
        self.n_iter_, self.validation_curve_ = train_networks(
            networks.to(self.device_),
            x,
            target.float(),
            [torch.from_numpy(own) for own in rows],
            torch.from_numpy(validation),
            weights=None if weights is None else torch.from_numpy(weights),
            max_iter=auto_max_iter(n_rows) if self.max_iter == "auto" else self.max_iter,
            batch_size=auto_batch_size(n_rows) if self.batch_size == "auto" else self.batch_size,
            learning_rate=auto_learning_rate(n_rows) if self.learning_rate == "auto" else self.learning_rate,
            generator=torch.Generator().manual_seed(order_seed),
            verbose=self.verbose,
        )
        return networks.requires_grad_(False).eval()


def standardise(
    y: np.ndarray, rows: np.ndarray | slice = slice(None), weights: np.ndarray | None = None, within: float = 0.0
) -> tuple[np.ndarray, float, float]:
    """Measurements (n,) less the mean of some of them over their deviation; that mean and deviation.

    `within` is the variance of replicates about the measurement that stands for them.
    """
    # Differences are exact where a large number was added to y; the mean and the squares of such numbers are not.
    origin = float(y[rows][0])
    centred = y - origin
    mean = float(np.average(centred[rows], weights=weights))
    std = float(np.average(np.square(centred[rows] - mean), weights=weights) + within) ** 0.5
    return (centred - mean) / (std or 1.0), origin + mean, std
