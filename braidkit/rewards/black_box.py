"""BlackBoxReward: any regressor of designs, for solvers that need no gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from braidkit.data import read_training_data, read_weights
from braidkit.exceptions import BraidkitError, InvalidParameterError
from braidkit.parameters import check_random_state
from braidkit.rewards._base import Bounded, standardise
from braidkit.rewards.row_noise import check_takes_noise
from braidkit.spaces import Space, read_designs
from braidkit.torch_state import ordinary_torch

# Measured rows that a regressor predicts as soon as it is fitted.
CHECKED_ROWS = 8


class BlackBoxReward(Bounded):
    """Present a scikit-learn regressor of designs as a reward, without gradients.

    Fine-tuning wraps a regressor that has no ``lower(x)`` in one of these; only solvers that need no gradient work
    with it. The bound is the regressor's own ``predict_lower`` if it has one, else its prediction. In that case only
    the KL is conservative.

    Parameters
    ----------
    regressor : regressor
        A regressor of the user's designs, such as a pipeline of SequenceEncoder and RandomForestRegressor; a clone is
        fitted.
    space : Space, optional
    random_state : int, RandomState or None
        Seeds every ``random_state`` of the regressor that is None, so that a run that resumes has the same reward.

    Attributes
    ----------
    regressor_ : regressor
    space_ : Space
    kind_ : str
        Kind of designs that the regressor was fitted on.
    y_mean_, y_std_ : float
    """

    def __init__(
        self,
        regressor: Any,
        *,
        space: Space | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.regressor = regressor
        self.space = space
        self.random_state = random_state

    @ordinary_torch()
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> BlackBoxReward:
        """Fit a clone of the regressor to designs and measurements, with weights if there are any."""
        if isinstance(self.regressor, type) or not all(hasattr(self.regressor, name) for name in ("fit", "predict")):
            raise InvalidParameterError(f"regressor must be a regressor with fit and predict; got {self.regressor!r}.")
        check_takes_noise(self.regressor, [] if sample_weight is None else ["sample_weight"])
        self.space_, X, _, y = read_training_data(self, X, y, space=self.space)
        self.kind_ = self.space_.kind_of(X)
        _, self.y_mean_, self.y_std_ = standardise(y)
        regressor = clone(self.regressor)
        if not isinstance(regressor, FrozenEstimator):
            draw = check_random_state(self.random_state)
            unseeded = {
                name: int(draw.randint(2**31 - 1))
                for name, value in sorted(regressor.get_params().items())
                if name.split("__")[-1] == "random_state" and value is None
            }
            regressor.set_params(**unseeded)
        weights = {} if sample_weight is None else {"sample_weight": read_weights(sample_weight, len(y))}
        with self._its_errors_explained():
            self.regressor_ = regressor.fit(X, y, **weights)
        # What it cannot read is said here, not after a chain was trained.
        for predict in (self.predict, self.predict_lower):
            predict(X[:CHECKED_ROWS])
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The regressor's prediction, shape (n_samples,)."""
        check_is_fitted(self)
        return self._numbers(self.regressor_.predict, X)

    def predict_lower(self, X: Any) -> np.ndarray:
        """The regressor's bound if it has one, else its prediction; shape (n_samples,)."""
        check_is_fitted(self)
        lower = getattr(self.regressor_, "predict_lower", self.regressor_.predict)
        return self._numbers(lower, X)

    def mean_and_penalty(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and penalty (n,) of points (n, \\*space_.shape), in y's units, without gradient; float64."""
        self.space_.check_points(x)
        designs = self.space_.decode(x.detach(), self.kind_)
        mean = self.predict(designs)
        return torch.as_tensor(mean, device=x.device), torch.as_tensor(
            mean - self.predict_lower(designs), device=x.device
        )

    @contextlib.contextmanager
    def _its_errors_explained(self) -> Iterator[None]:
        """Say of an error in the user's regressor where it comes from, and what it often lacks."""
        try:
            yield
        except BraidkitError:
            raise
        except (TypeError, ValueError) as error:
            raise InvalidParameterError(
                f"the regressor, a {type(self.regressor).__name__}, cannot be used on designs of kind {self.kind_!r} "
                f"({error}); if it needs numbers, pass make_pipeline(SequenceEncoder(), ...)."
            ) from error

    def _numbers(self, predict: Callable[[Any], Any], X: Any) -> np.ndarray:
        """The regressor's predictions, one finite number per design."""
        X = read_designs(X)
        with self._its_errors_explained():
            values = np.asarray(predict(X), dtype=np.float64)
        if values.shape != (len(X),) or not np.isfinite(values).all():
            raise InvalidParameterError(
                f"the regressor must predict one finite number a design, shape ({len(X)},); got shape {values.shape} "
                f"with {np.count_nonzero(~np.isfinite(values))} that are not finite."
            )
        return values
