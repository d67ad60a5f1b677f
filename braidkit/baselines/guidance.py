"""ClassifierGuidance: steer the pretrained chain by a model that foretells measurements from noised designs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.nn import functional as F

from braidkit.baselines.baseline import Baseline
from braidkit.diffusion import DiffusionModel, GuidedDiffusion, MeasurementGuide
from braidkit.diffusion._strata import strata
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_count, check_fraction, check_positive, check_random_state, is_number, is_word
from braidkit.rewards.features import auto_max_iter
from braidkit.spaces import Points, Space
from braidkit.torch_state import ordinary_torch, seeded
from braidkit.training import fit_supervised


class ClassifierGuidance(Baseline):
    """Steer the pretrained chain toward designs whose noised states foretell that they are among the best.

    The measured designs are noised by the chain's own forward process, to its levels t. A small network, which also
    gets the level, learns the mean mu(x_t) of the standardised measurement. While sampling, each policy moves along the
    gradient of the log-probability that a draw from N(mu, 1) is what is asked for, times `strength`. The chain itself
    is not changed.

    Parameters
    ----------
    pretrained : DiffusionModel, optional
        By default a small one is trained on `X`.
    target : "top" or float, default="top"
        "top": a measurement at least as large as the smallest of the best `top_fraction`, q, which has the probability
        ``Phi(mu(x_t) - q)``. A number, in y's units: that measurement, of log-density ``-(target - mu(x_t))^2 / 2``.
    strength : float, default=10.0
        Multiplies the gradient; 10 is the paper's guidance level.
    top_fraction : float, default=0.05
    space : Space, optional
    max_iter : int or "auto", default="auto"
        Optimiser updates of the network; "auto" grows with the number of rows.
    batch_size : int, default=128
        Rows of an update, and trajectories at a time when sampling, which does not change designs.
    learning_rate : float, default=3e-3
        Of Adam, with a short warm-up and a cosine down to zero.
    validation_fraction : float, default=0.1
        Share of the rows whose loss decides which weights are kept.
    device : str, default="auto"
    random_state : int, RandomState or None
    verbose : int, default=0

    Attributes
    ----------
    model_ : GuidedDiffusion
        The guided chain, itself a pretrained model for others; ``model_.guide.network`` foretells standardised
        measurements from noised designs.
    pretrained_ : DiffusionModel
    n_iter_ : int
        Updates done.
    space_ : Space
    kind_ : str
        Kind of designs that `fit` saw.
    n_features_in_ : int

    Notes
    -----
    Some public codes average the energy over the designs of a batch before they take its gradient, so that their
    guidance weakens as the batch grows. Here gradients are summed: a design is the same in a batch of any size.

    A network that separates the best 5 % from the rest would see only 100 of them in 2,000 rows, and noise leaves less
    to learn. The classifier is therefore derived from a regression on all measurements. The unit deviation is that of
    all measurements. At little noise the network is certain. The deviation of its own errors would then make the
    gradient so steep that a step of strength 10 overshoots.

    References
    ----------
    Dhariwal and Nichol (2021), "Diffusion models beat GANs on image synthesis". Uehara et al. (2024), BRAID, section 7,
    "Guidance". Yuan et al. (2023), "Reward-directed conditional diffusion", for the regressor.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit.baselines import ClassifierGuidance
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> designs = ClassifierGuidance(strength=1, random_state=0).fit(X, X.sum(axis=1)).sample(100, random_state=0)
    >>> bool(designs.sum(axis=1).mean() > X.sum(axis=1).mean() + 1)
    True
    """

    def __init__(
        self,
        pretrained: DiffusionModel | None = None,
        *,
        target: str | float = "top",
        strength: float = 10.0,
        top_fraction: float = 0.05,
        space: Space | None = None,
        max_iter: int | str = "auto",
        batch_size: int = 128,
        learning_rate: float = 3e-3,
        validation_fraction: float = 0.1,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.pretrained = pretrained
        self.target = target
        self.strength = strength
        self.top_fraction = top_fraction
        self.space = space
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @ordinary_torch()
    def fit(self, X: Any, y: Any) -> ClassifierGuidance:
        """Learn to foretell measurements from noised designs, and a chain where none was given.

        Parameters
        ----------
        X : list of str, or array-like
        y : array-like of shape (n_samples,)
            Larger is better.

        Returns
        -------
        self : ClassifierGuidance

        Raises
        ------
        InvalidDesignError, InvalidTargetError, InvalidParameterError
            Naming the row, the value and the remedy.
        IncompatibleModelError
            If `pretrained` makes other designs than `X`.
        """
        self._check_parameters()
        data = self._start(X, y)
        chain_seed, seed = check_random_state(self.random_state).randint(2**31 - 1, size=2).tolist()
        self.pretrained_ = self._chain(data.X, chain_seed, data.device)
        goal = np.quantile(data.y, 1 - self.top_fraction) if self.target == "top" else float(self.target)
        goal = float((goal - data.y.mean()) / data.y.std())
        device = self.pretrained_.device
        with seeded(seed):
            guide = MeasurementGuide(self.space_, goal=goal, tail=self.target == "top").to(device)
        standardised = torch.tensor((data.y - data.y.mean()) / data.y.std(), dtype=torch.float32, device=device)
        self._train(guide, data.x.to(device), standardised, seed)
        self.model_ = GuidedDiffusion(self.pretrained_, guide.requires_grad_(False), strength=self.strength)
        self.model_.kind = self.kind_
        return self

    def _train(self, guide: MeasurementGuide, x: Points, y: Tensor, seed: int) -> None:
        """Fit the guide's network to noised designs; sets ``n_iter_``."""
        chain, network = self.pretrained_, guide.network
        order, generator = torch.Generator().manual_seed(seed), torch.Generator(x.device).manual_seed(seed)
        permutation = torch.randperm(len(x), generator=order).to(x.device)
        n_held_out = int(self.validation_fraction * len(x))
        validate = n_held_out >= 16
        held_out, rows = permutation[:n_held_out][:4096], permutation[n_held_out if validate else 0 :]
        # Level t as often as 1 / (t + 1): next to nothing can be learned where all is noise.
        levels = (1 / torch.arange(1, chain.n_steps + 2, device=x.device)).cumsum(dim=0)
        levels /= levels[-1].clone()

        def loss(chosen: Tensor, noise: torch.Generator) -> Tensor:
            """Mean squared error on rows at levels drawn from n equal parts of their law."""
            n = len(chosen)
            t = torch.searchsorted(levels, strata(n, noise) / n).clamp(max=chain.n_steps)
            point = chain.as_points(chain.noised(x[chosen], t, noise), t)
            return F.mse_loss(network(point, t / chain.n_steps), y[chosen])

        def validation_loss() -> float:
            """The same noise at every evaluation."""
            noise = torch.Generator(x.device).manual_seed(seed + 1)
            return math.fsum(len(part) * float(loss(part, noise)) for part in held_out.split(1024)) / len(held_out)

        self.n_iter_, _ = fit_supervised(
            network,
            lambda batch: loss(rows[batch.to(x.device)], generator),
            len(rows),
            max_iter=3 * auto_max_iter(len(rows)) if self.max_iter == "auto" else int(self.max_iter),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            generator=order,
            validation_loss=validation_loss if validate else None,
            patience=20,
            verbose=self.verbose,
            description="guidance",
        )

    @ordinary_torch()
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """Draw designs along guided trajectories.

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
        if not is_word(self.target, "top") and not is_number(self.target):
            raise InvalidParameterError(f'target must be "top" or a number in y\'s units; got {self.target!r:.60}.')
        check_positive(self, "strength", allow_zero=True)
        check_fraction(self, "validation_fraction", allow_zero=True)
        check_fraction(self, "top_fraction")
        check_positive(self, "learning_rate")
        check_count(self, "max_iter", or_word="auto")
