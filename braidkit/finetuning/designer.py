"""Base of the estimators that turn measured designs into new ones: data, chain, reward and score."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted, has_fit_parameter
from torch import Tensor
from tqdm.auto import tqdm

from braidkit.data import TrainingData, check_space, read_new_designs, read_training_data
from braidkit.diffusion import DiffusionModel, GaussianDiffusion, MaskedDiffusion, PixelDiffusion, SimplexDiffusion
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.finetuning.checkpoint import CHAIN, has_chain, record_chain
from braidkit.finetuning.contracts import check_scale, standardised
from braidkit.finetuning.rescaled import in_space
from braidkit.finetuning.saved import SavedDesigner
from braidkit.parameters import check_count
from braidkit.rewards import BlackBoxReward, GPBonusReward, ObjectiveReward
from braidkit.spaces import Space, read_designs
from braidkit.torch_state import ordinary_torch

# Keys are the values of `Space.default_chain`.
DEFAULT_CHAINS: dict[str, Callable[[Any], DiffusionModel]] = {
    "simplex": SimplexDiffusion,
    "gaussian": GaussianDiffusion,
    "masked": MaskedDiffusion,
    "image": PixelDiffusion,
}

# The same number for every batch size, so that a grid search can compare candidates that differ in it.
SCORE_DESIGNS = 256


class Designer(SavedDesigner, BaseEstimator, abc.ABC):
    """Base of estimators with ``fit(X, y)``, ``sample(n)`` and ``score(X, y)``.

    A subclass has these parameters and maybe more, writes `fit`, which sets ``space_``, and `sample`.
    """

    _maximises: ClassVar[str] = "lower"  # which quantity is maximised: "lower" bound or "mean"

    pretrained: DiffusionModel | None
    reward: Any
    space: Space | None
    batch_size: int
    device: str
    random_state: int | np.random.RandomState | None
    verbose: int
    objective: str | None = None  # a parameter of the finetuner

    space_: Space
    reward_: Any

    @abc.abstractmethod
    def fit(self, X: Any, y: Any) -> Designer:
        """Learn from designs and their measurements."""

    @abc.abstractmethod
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """Give new designs, of the kind that `fit` saw."""

    @ordinary_torch()
    def score(self, X: Any, y: Any) -> float:
        """Judge the designs by measurements that `fit` did not see: larger is better.

        A fresh reward is fitted on `X` and `y`. Its lower bound with ``c=1`` is averaged over 256 designs sampled here.
        The estimator's own reward is not used, so a grid search over `alpha` or ``reward__c`` cannot prefer settings
        that only flatter their own reward. The bound penalises designs far from the measurements. The score does not
        see an error that both rewards share, such as an error of the assay.

        Parameters
        ----------
        X : designs
            Held-out rows.
        y : array-like of shape (n_samples,)

        Returns
        -------
        score : float
            In y's units.
        """
        check_is_fitted(self)
        read_new_designs(self, X)
        judge: Any = GPBonusReward(c=1, space=self.space_, random_state=0)
        judge = (judge if self.objective is None else ObjectiveReward(self.objective, judge)).fit(X, y)
        with torch.no_grad():
            mean, penalty = judge.standardised(self.space_.encode(self.sample(SCORE_DESIGNS, random_state=0)))
        return judge.y_mean_ + judge.y_std_ * float((mean - penalty).mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.string = True
        return tags

    def _check_shared_parameters(self) -> None:
        """Raise for parameters out of range, before any work."""
        check_count(self, "batch_size")
        check_count(self, "verbose", minimum=0)
        reward = getattr(self, "reward", None)
        if reward is not None and (isinstance(reward, type) or not hasattr(reward, "fit")):
            raise InvalidParameterError(
                f"reward must be a regressor of designs, such as GPBonusReward(), or None; got {reward!r}."
            )
        if self.pretrained is None:
            return
        if not isinstance(self.pretrained, DiffusionModel):
            raise InvalidParameterError(
                f"pretrained must be a DiffusionModel or None; got {self.pretrained!r}. Load one with "
                "DiffusionModel.from_pretrained(directory)."
            )
        self.pretrained.check_trained()
        check_space(self.space)
        if self.space is not None and not self.space.makes_same(self.pretrained.space):
            raise IncompatibleModelError(
                f"space is {self.space}, but pretrained has {self.pretrained.space}; leave out space."
            )

    def _read(self, X: Any, y: Any) -> TrainingData:
        """Designs and measurements, checked against each other and against `pretrained`; sets ``space_``.

        What is the same in all designs is held, unless a template says otherwise, or the chain holds nothing.
        """
        if self.pretrained is not None:
            self.pretrained.space.check_same_designs(read_designs(X))
        space = self.space
        if self.pretrained is not None:
            own = self.pretrained.space
            space = own if space is None else own.restricted_as(space)
        data = read_training_data(self, X, y, space=space)
        holds = self.pretrained is None or self.pretrained.holds_constants
        self.space_ = data.space.holding_constants(data.x) if holds else data.space
        if isinstance(getattr(self, "reward", None), FrozenEstimator):
            check_is_fitted(self.reward.estimator)
            if hasattr(self.reward, "space_"):  # a regressor of another package has none
                in_space(self.reward, self.space_)
        if self.verbose and self.space_ != data.space:
            tqdm.write(f"{self.space_.held} are the same in all rows: held")
        return data._replace(space=self.space_)

    def _chain(self, X: np.ndarray, seed: int, device: torch.device, checkpoint: Path | None = None) -> DiffusionModel:
        """The given chain, or one trained on X; a run with a directory trains it once."""
        if self.pretrained is not None:
            return self.pretrained.in_space(self.space_)
        if checkpoint is not None and has_chain(checkpoint):
            return DiffusionModel.from_pretrained(checkpoint / CHAIN).to(device)
        model = self._new_chain()
        if self.verbose:
            tqdm.write(f"pretrained: none given, training a {type(model).__name__} on the {self.space_.designs}")
        model.to(device).fit(X, random_state=seed, verbose=self.verbose)
        if checkpoint is not None:
            model.save_pretrained(checkpoint / CHAIN)
            record_chain(checkpoint)
        return model

    def _new_chain(self) -> DiffusionModel:
        """The chain to train where none is given."""
        return untrained_chain(self.space_)

    def _standardised_aim(self, x: Tensor) -> Tensor:
        """The quantity to maximise at points (n, ...): lower bound or mean, of standardised y."""
        mean, penalty = standardised(self.reward_, x)
        return (mean - penalty if self._maximises == "lower" else mean).to(x.dtype)

    def _fit_reward(
        self,
        reward: Any,
        X: np.ndarray,
        y: Any,
        seed: int,
        told: Mapping[str, np.ndarray] | None = None,
        *,
        quiet: bool = False,
    ) -> Any:
        """A fitted clone of a reward, or of the default one, on the chain's space; it gets what it takes of `told`."""
        fitted = GPBonusReward(device=self.device) if reward is None else clone(reward)
        if not hasattr(fitted, "lower"):
            fitted = BlackBoxReward(fitted)
        own = fitted.get_params(deep=False)
        defaults = {
            "space": (None, self.space_),
            "random_state": (None, seed),
            "verbose": (0, 0 if quiet else self.verbose),
        }
        fitted.set_params(
            **{name: value for name, (unset, value) in defaults.items() if name in own and own[name] is unset}
        )
        fitted = fitted if self.objective is None else ObjectiveReward(self.objective, fitted)
        fitted.fit(X, y, **{name: rows for name, rows in (told or {}).items() if has_fit_parameter(fitted, name)})
        check_scale(fitted)
        return in_space(fitted, self.space_)


def untrained_chain(space: Space) -> DiffusionModel:
    """The chain that is trained where none is given."""
    return DEFAULT_CHAINS[space.default_chain](space)
