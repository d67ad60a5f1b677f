"""DDOM: a diffusion model of designs given their measurements, asked for the best."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from braidkit.baselines.baseline import Baseline
from braidkit.data import read_measurements
from braidkit.diffusion import DiffusionModel, TabularDiffusion, fit_guided
from braidkit.exceptions import IncompatibleModelError, InvalidTargetError
from braidkit.finetuning.designer import untrained_chain
from braidkit.parameters import (
    check_choice,
    check_count,
    check_fraction,
    check_number,
    check_positive,
    check_random_state,
)
from braidkit.spaces import Space
from braidkit.torch_state import ordinary_torch

# Strength of the guidance, as in f(null) + s (f(c) - f(null)), and share of withheld conditions, in the two sources.
_RECIPES = {"continuous": (3.0, 0.15), "class": (10.0, 0.3)}
# Below the first a design is poor, from the second on it is one of the 5 % that are asked for.
_CLASS_QUANTILES = (0.4, 0.95)


class DDOM(Baseline):
    """Learn designs given their measurements from scratch, and sample given the best (denoising diffusion models).

    A chain of its own is trained on `X`, each design with its measurement as a condition, which is withheld from some.
    Designs are then sampled under the condition of the best, by classifier-free guidance: the difference that the
    condition makes, times a strength. No reward is learned and nothing is fine-tuned; a larger model that was trained
    on more designs is of no use to it.

    Parameters
    ----------
    pretrained : DiffusionModel, optional
        A trained chain, whose kind and settings are taken over; its weights are not used. By default a
        SimplexDiffusion for sequences, a GaussianDiffusion for vectors, a PixelDiffusion for images.
    conditioning : {"continuous", "class"}, default="continuous"
        "continuous": the condition is the standardised measurement, that asked for the largest of `y`, and rows are
        drawn by `bin_weights` (the method's own paper). "class": the condition is which of three classes of
        measurements a row belongs to, those below the 40 % quantile, those up to the 95 % quantile and the rest, which
        are asked for, and rows are drawn alike (BRAID's comparison).
    strength : float or "auto", default="auto"
        Weight s of the guidance ``f(null) + s (f(c) - f(null))``. "auto" is 3 with "continuous" (the paper's gamma = 2
        is s - 1) and 10 with "class".
    dropout : float or "auto", default="auto"
        Share of the rows whose condition is withheld; "auto" is 0.15 with "continuous", 0.3 with "class".
    n_bins, smoothing, temperature_quantile, max_weight
        Parameters of `bin_weights`; without effect with "class".
    space : Space, optional
    max_iter : int or "auto", default="auto"
        Optimiser updates; "auto" grows with the number of rows.
    batch_size : int, default=256
    learning_rate : float, default=3e-3
        Of Adam, with a short warm-up and a cosine down to zero.
    validation_fraction : float, default=0.1
        Share of the rows whose loss decides which weights are kept.
    device : str, default="auto"
    random_state : int, RandomState or None
    verbose : int, default=0

    Attributes
    ----------
    model_ : DiffusionModel
        The chain under the condition of the best, frozen.
    n_iter_ : int
        Updates done.
    space_ : Space
    kind_ : str
        Kind of designs that `fit` saw.
    n_features_in_ : int

    Notes
    -----
    The loss of a row is not multiplied by its weight. Instead each mini-batch draws rows in proportion to their
    weights. The expected loss is the same, and rare rows with large weights appear often.

    Four defects of the public code are not repeated here: (a) its shuffle has no effect, so that rows come in the order
    of the data and the last ones are those held out; (b) its forward process ends at 0.605 of the design, yet sampling
    starts from pure noise: here the chain starts from the law that its own noising ends in; (c) its "no condition" is
    the value 0, which is also the mean measurement: here it is a token of its own, learned; (d) its learning rate warms
    up over 500 passes over the data, of 1,000: here over a twentieth of the updates, at most 100.

    References
    ----------
    Krishnamoorthy, Mashkaria and Grover (2023), "Diffusion models for black-box optimization", ICML. Uehara et al.
    (2024), BRAID, section 7, for the classes and their guidance.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit.baselines import DDOM
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> designs = DDOM(random_state=0).fit(X, X.sum(axis=1)).sample(100, random_state=0)
    >>> bool(designs.sum(axis=1).mean() > X.sum(axis=1).mean() + 1)
    True
    """

    def __init__(
        self,
        pretrained: DiffusionModel | None = None,
        *,
        conditioning: str = "continuous",
        strength: float | str = "auto",
        dropout: float | str = "auto",
        n_bins: int = 20,
        smoothing: float = 1e-3,
        temperature_quantile: float = 0.9,
        max_weight: float = 5.0,
        space: Space | None = None,
        max_iter: int | str = "auto",
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        validation_fraction: float = 0.1,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.pretrained = pretrained
        self.conditioning = conditioning
        self.strength = strength
        self.dropout = dropout
        self.n_bins = n_bins
        self.smoothing = smoothing
        self.temperature_quantile = temperature_quantile
        self.max_weight = max_weight
        self.space = space
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @ordinary_torch()
    def fit(self, X: Any, y: Any) -> DDOM:
        """Train a conditional chain on designs and their measurements.

        Parameters
        ----------
        X : list of str, or array-like
        y : array-like of shape (n_samples,)
            Larger is better.

        Returns
        -------
        self : DDOM

        Raises
        ------
        InvalidDesignError, InvalidTargetError, InvalidParameterError
            Naming the row, the value and the remedy.
        IncompatibleModelError
            If `pretrained` makes other designs than `X`, or is of a kind that takes no condition.
        """
        self._check_parameters()
        data = self._start(X, y)
        weights = None
        if self.conditioning == "continuous":
            standardised = (data.y - data.y.mean()) / data.y.std()
            conditions = torch.tensor(standardised, dtype=torch.float32)[:, None]
            target = conditions.max(dim=0).values
            weights = torch.from_numpy(
                bin_weights(
                    data.y,
                    n_bins=self.n_bins,
                    smoothing=self.smoothing,
                    temperature_quantile=self.temperature_quantile,
                    max_weight=self.max_weight,
                )
            )
        else:
            conditions = quantile_classes(data.y)
            target = torch.eye(conditions.shape[1])[-1]
        strength, dropout = _RECIPES[self.conditioning]
        if self.pretrained is None:
            chain = untrained_chain(self.space_)
        else:
            chain = self.pretrained.untrained_copy().in_space(self.space_)
        self.n_iter_ = fit_guided(
            chain.to(data.device),
            data.x.to(data.device),
            conditions.to(data.device),
            target.to(data.device),
            strength=strength if self.strength == "auto" else float(self.strength),
            dropout=dropout if self.dropout == "auto" else float(self.dropout),
            weights=weights,
            max_iter=self.max_iter,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            validation_fraction=self.validation_fraction,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            verbose=self.verbose,
        )
        chain.kind = self.kind_
        self.model_ = chain
        return self

    @ordinary_torch()
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """Draw designs under the condition of the best.

        Parameters
        ----------
        n_samples : int, default=1
        random_state : int, RandomState or None

        Returns
        -------
        designs : list of str, or ndarray
            The kind of designs that `fit` saw.
        """
        check_is_fitted(self, "model_")
        return self.model_.sample(n_samples, random_state, batch_size=self.batch_size)

    def _check_parameters(self) -> None:
        """Raise for parameters out of range, before any work."""
        check_choice("conditioning", self.conditioning, _RECIPES)
        check_positive(self, "strength", or_word="auto")
        check_fraction(self, "dropout", or_word="auto")
        check_fraction(self, "temperature_quantile")
        check_fraction(self, "validation_fraction", allow_zero=True)
        check_positive(self, "smoothing", "max_weight", "learning_rate")
        check_count(self, "n_bins", minimum=2)
        check_count(self, "max_iter", or_word="auto")
        if isinstance(self.pretrained, TabularDiffusion):
            raise IncompatibleModelError(
                "pretrained is a TabularDiffusion, whose tables take no condition; pass a MaskedDiffusion."
            )


def bin_weights(
    y: np.ndarray,
    *,
    n_bins: int = 20,
    smoothing: float = 1e-3,
    temperature_quantile: float = 0.9,
    max_weight: float = 5.0,
) -> np.ndarray:
    """Weigh rows so that better measurements come more often, and not only those that are rare.

    On standardised measurements, cut into bins of equal width that hold shares h_b of the rows and end at e_b, with
    the temperature ``tau = max(max y - quantile of y, 1e-3)``, a bin has the probability ``p_b`` proportional to
    ``exp(e_b / tau) h_b / (h_b + smoothing)`` and its rows have the weight ``min(p_b / h_b, max_weight)``.

    Parameters
    ----------
    y : ndarray of shape (n,)
        Not constant.
    n_bins : int, default=20
    smoothing : float, default=1e-3
        Share of the rows below which a bin counts for less.
    temperature_quantile : float, default=0.9
        Larger makes the weights steeper.
    max_weight : float, default=5.0

    Returns
    -------
    weights : ndarray of shape (n,)

    References
    ----------
    Krishnamoorthy, Mashkaria and Grover (2023), section 3.2, with the clipping of the public code.

    Examples
    --------
    >>> import numpy as np
    >>> bin_weights(np.array([0.0, 0.0, 0.0, 1.0]), n_bins=2, temperature_quantile=0.5).round(3)
    array([0.504, 0.504, 0.504, 2.487])
    """
    check_number("n_bins", n_bins, low=1, whole=True)
    check_number("smoothing", smoothing, low=0)
    check_number("temperature_quantile", temperature_quantile, low=0, high=1)
    if max_weight != math.inf:
        check_number("max_weight", max_weight, low=0, above=True)
    y = read_measurements(y)
    if len(y) < 2 or np.ptp(y) == 0:
        raise InvalidTargetError("y must hold measurements that differ; otherwise there is nothing to weigh.")
    standardised = (y - y.mean()) / y.std()
    top = standardised.max()
    temperature = max(top - np.quantile(standardised, temperature_quantile), 1e-3)
    edges = np.linspace(standardised.min(), top, n_bins + 1)
    # By y itself: on an edge, the rounding of standardised values would choose the bin.
    bins = np.minimum((n_bins * ((y - y.min()) / np.ptp(y))).astype(int), n_bins - 1)
    share = np.bincount(bins, minlength=n_bins) / len(y)
    probability = np.exp((edges[1:] - top) / temperature) * share / (share + smoothing)
    probability /= probability.sum()
    return np.minimum(probability[bins] / share[bins], max_weight)


def quantile_classes(y: np.ndarray) -> Tensor:
    """One-hot classes (n, 3) of measurements by the 40 % and 95 % quantiles; the last one, the top, is never empty."""
    number = np.digitize(y, np.quantile(y, _CLASS_QUANTILES))
    return torch.nn.functional.one_hot(torch.from_numpy(number), len(_CLASS_QUANTILES) + 1).float()
