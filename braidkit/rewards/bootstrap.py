"""Networks fitted to resampled data: their mean is r_hat, their minimum the lower bound."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from braidkit.parameters import check_count
from braidkit.rewards._base import BaseReward
from braidkit.rewards.kmers import few_row_features
from braidkit.spaces import Space
from braidkit.torch_state import ordinary_torch


class BootstrapReward(BaseReward):
    """Reward with a bootstrap bonus: ``lower(x) = min_m r_m(x)`` over resampled networks (BRAID, Example 2).

    Each of the M networks has its own initial weights, and learns by least squares from n rows drawn with replacement.
    The mean prediction is their average. The penalty is the distance from this average down to their minimum. (The
    paper writes argmin for the minimum.)

    Parameters
    ----------
    features : nn.Module, optional
        From points (n, \\*space.shape) to features (n, d). Each network gets a copy with the same initial weights, and
        a head of its own. By default each has different initial weights, and a size as in `GPBonusReward`. With few
        rows of nucleotides (fewer than 750, or 20,000 of long sequences) counts of k-mers and letters by position
        replace the network, because a network would learn nothing.
    n_estimators : int, default=3
        Networks M, at least 2.
    max_iter : int or "auto", default="auto"
        Optimiser updates of all networks; "auto" grows with the number of rows, to at most 10,000.
    batch_size : int or "auto", default="auto"
        Rows per update, for each network; "auto" takes 128, or fewer for fewer than 2,500 rows.
    learning_rate : float or "auto", default="auto"
        Highest rate, after a short warm-up and before a cosine decay. "auto" takes 2e-3, and two to four times as much
        for fewer than 2,500 rows.
    validation_fraction : float, default=0.1
        Share of the rows that choose the best weights, and that no network learns from. It is used if it is 5 rows or
        more, and at most 2,000 of them are.
    space : Space, optional
        The design space; by default inferred from X: strings are sequences, 2-D numbers are vectors.
    device : str or torch.device, default="auto"
        "auto" is the GPU where there is one.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0
        Show a progress bar if not 0.

    Attributes
    ----------
    networks_ : nn.ModuleList
        The trained networks, frozen; each maps points to standardised predictions (n,).
    space_ : Space
    device_ : torch.device
    y_mean_, y_std_ : float
        Mean and standard deviation of all rows.
    n_iter_ : int
        Updates done.
    validation_curve_ : list of float
        Held-out mean squared error, averaged over the networks, in units of y's variance.
    n_features_in_ : int
        Columns of X; letters, if X is strings.

    See Also
    --------
    GPBonusReward : One network, and the deviation of a Gaussian process on its last layer.

    References
    ----------
    Uehara et al., "Bridging Model-Based Optimization and Generative Modeling via Conservative Fine-Tuning of Diffusion
    Models", NeurIPS 2024, Example 2.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit import BootstrapReward
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> reward = BootstrapReward(random_state=0).fit(X, X[:, 0])
    >>> bool((reward.predict_lower(X) <= reward.predict(X)).all())
    True
    """

    networks_: nn.ModuleList

    def __init__(
        self,
        features: nn.Module | None = None,
        *,
        n_estimators: int = 3,
        max_iter: int | Literal["auto"] = "auto",
        batch_size: int | Literal["auto"] = "auto",
        learning_rate: float | Literal["auto"] = "auto",
        validation_fraction: float = 0.1,
        space: Space | None = None,
        device: str | torch.device = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.features = features
        self.n_estimators = n_estimators
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.space = space
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @ordinary_torch()
    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None, y_error: Any = None
    ) -> BootstrapReward:
        """Draw the rows of each network, and train all networks together.

        Parameters
        ----------
        X : designs
            List, array or Series of strings; array of shape (n_samples, n_features); or what `space`
            encodes.
        y : array-like of shape (n_samples,)
            Measurements. Those of one design are averaged, and count as so many.
        groups : array-like of shape (n_samples,), optional
            Rows of one group, as rows of one design, are never on both sides of a split.
        sample_weight : array-like of shape (n_samples,), optional
            At least 0, such as counts of reads: of squared errors. A row of weight 0 does not count.
        y_error : array-like of shape (n_samples,), optional
            Standard errors of the measurements, above 0, in y's units.

        Returns
        -------
        self : BootstrapReward

        Raises
        ------
        InvalidDesignError, InvalidTargetError, InvalidParameterError, IncompatibleModelError
            Before any training, naming the row or parameter and the remedy.
        """
        check_count(self, "n_estimators", minimum=2)
        x, y, noise, groups, random_state = self._start_fit(X, y, groups, sample_weight, y_error)
        _, validation, training = self._split_rows(groups, 0, random_state)
        target, noise = self._standardise(y, np.arange(len(y)), noise)
        draws = random_state.randint(len(training), size=(self.n_estimators, len(training)))
        features = few_row_features(self.features, self.space_, len(training))
        weights = noise.least_squares_weights()
        self.networks_ = self._train(features, x, target, list(training[draws]), validation, weights, random_state)
        return self

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        predictions = torch.stack([network(x).double() for network in self.networks_])  # (M, n)
        mean = predictions.mean(dim=0)
        return mean, predictions.std(dim=0), mean - predictions.amin(dim=0)
