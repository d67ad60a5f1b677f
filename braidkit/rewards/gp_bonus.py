"""A Gaussian process of designs: mean r_hat, and penalty g_hat = c times its deviation."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import gpytorch
import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.parameters import check_count, check_fraction, check_positive
from braidkit.rewards._base import MIN_VALIDATION_ROWS, BaseReward
from braidkit.rewards.calibration import conformal_c, designs_to_calibrate, noise_free_c
from braidkit.rewards.cross_fitting import MIN_ROWS, cross_fit
from braidkit.rewards.features import PREDICT_BATCH
from braidkit.rewards.layer import LayerProcess
from braidkit.rewards.parts import TYPICAL_ROWS, parts_for
from braidkit.rewards.row_noise import RowNoise
from braidkit.rewards.sum_kernel import SumKernelProcess
from braidkit.spaces import Points, Space
from braidkit.torch_state import ordinary_torch


class GPBonusReward(BaseReward):
    """Reward with a Gaussian-process bonus: ``lower(x) = mean(x) - c std(x)`` (BRAID, Example 1).

    By default the kernel is a sum of parts. For sequences the parts are letters by position, pairs, runs of three and
    four, counts of k-mers, and a decay with the number of changes. For vectors and images they are linear, by column
    and radial. Vectors also have squares and products, and a smooth and a rough part with a scale for each column, so
    that columns which do nothing are passed over. The prediction of networks is one more part. The weights of the
    parts, the scales of columns and the noise maximise the marginal likelihood, so the data decide how much is linear,
    how much is interaction and how much a network knows. From 250 sequences on, letters and pairs are always in, and
    other groups only where the evidence for them is strong. On vectors networks are in only if left-out rows are
    predicted better with them. Networks are cross-fitted: a row's prediction comes from a network that has not seen it,
    because the marginal likelihood would otherwise reward memorising. Their disagreement is added to the variance. From
    1,000 sequences on there are networks of a second kind, a smooth function of a sum of effects by position. Up to
    3,000 rows the process is exact; beyond, it is approximated with 500 to 1,500 of the rows.

    With `features`, a `kernel` or a fixed `lam` it is the paper's reward instead. A network is trained by least squares
    on standardised y and frozen. Its last hidden layer and a constant, phi, are the features of a Gaussian process::

        mean(x) = phi^T A^-1 Phi^T y,   std(x) = sqrt(lam phi^T A^-1 phi),   A = Phi^T Phi + lam I.

    A is the *sum* over the rows. y, `lam` and `c` are on the scale of standardised y. The layer is divided by a number
    that makes its mean square norm 1 on the training rows. So the prior variance of a typical design is 1 from the
    layer and 1 from the constant, and `lam` is the variance of the noise on the same scale.
    ``GPBonusReward(c=0.1, lam=1)`` is the paper's configuration.

    Parameters
    ----------
    features : nn.Module, optional
        From points (n, \\*space.shape) to features (n, d). It is copied, and its parameters that require gradients are
        trained with a linear head. The default, with a fixed `lam` or a `kernel`, is convolutions and a dense layer for
        sequences and two hidden layers for anything else, sized by the space and the number of rows.
    kernel : gpytorch.kernels.Kernel, optional
        Kernel on the layer's d outputs; linear by default. A given kernel is copied. Its parameters that require
        gradients maximise the marginal likelihood of 500 rows, and it is approximated by inducing points. The part of
        the kernel that these do not explain is added to the variance, so that the penalty does not vanish far from the
        data. This is not an upper bound on the exact variance.
    c : float or "calibrated", default=0.5
        Penalty per standard deviation, >= 0. A larger c keeps designs closer to the measured ones. With 500 rows, and
        the best 100 of 12,000 designs by their bound (``benchmarks/reward_evidence.py``, one draw), the share whose
        true value is above the bound was

        - c = 0.1: 0.86 (GB1) and 0.63 (Ehrlich function); mean fitness of the designs on GB1 0.225
        - c = 0.5: 0.87 and 0.76; 0.218
        - c = 1: 0.86 and 0.77; 0.198

        "calibrated" finds the smallest c whose bound holds for a share `level` of rows held out from everything else
        (split conformal). It is a bound on the *measurement*, noise included; other values bound the noiseless reward.
        It is therefore cautious. It promises nothing for designs unlike the data.
    noise : float, default=0.0
        Standard deviation of the noise of one measurement, in y's units, known from replicates. If it is given,
        ``c="calibrated"`` is for the noiseless reward: the part of the held-out errors that the noise explains is not
        attributed to the model (`braidkit.rewards.calibration.noise_free_c`).
    lam : float or "auto", default="auto"
        Variance of the noise, > 0, of standardised y. "auto" fits it by marginal likelihood. With `features` or a
        `kernel`, only rows that the features were not trained on count.
    level : float, default=0.95
        Share of held-out rows for which the bound must hold with ``c="calibrated"``, in (0, 1).
    n_inducing : int, default=512
        Largest number of inducing points of a `kernel`. They are chosen among 10,000 rows, where the kernel is
        explained worst.
    max_iter : int or "auto", default="auto"
        Optimiser updates of a network; "auto" grows with the number of rows, to at most 10,000.
    batch_size : int or "auto", default="auto"
        Rows per update; "auto" takes 128, or fewer for fewer than 2,500 rows.
    learning_rate : float or "auto", default="auto"
        Highest rate, after a short warm-up and before a cosine decay. "auto" takes 2e-3, and two to four times as much
        for fewer than 2,500 rows.
    validation_fraction : float, default=0.1
        Share of the rows that choose the best weights, if they are 5 rows or more; at most 2,000 are used. With
        ``c="calibrated"`` as many again are held out to calibrate.
    space : Space, optional
        The design space; by default inferred from X: strings are sequences, 2-D numbers are vectors.
    device : str or torch.device, default="auto"
        "auto" is the GPU where there is one.
    random_state : int, RandomState or None, default=None
    verbose : int, default=0
        Show a progress bar if not 0.

    Attributes
    ----------
    c_ : float
        `c`, or the value that calibration found.
    noise_ : float
        Standard deviation of the noise, in y's units: the square root of `lam`, scaled.
    process_ : SumKernelProcess or LayerProcess
        From points to the posterior's mean and variance, of standardised y. ``process_.variances`` of a sum of kernels
        has the variance that each part explains.
    space_ : Space
    device_ : torch.device
    y_mean_, y_std_ : float
        Mean and standard deviation of the rows that the posterior has seen.
    n_iter_ : int
        Largest number of updates of a network; 0 if none was trained.
    validation_curve_ : list of float
        Held-out mean squared error during the training of networks, in units of y's variance; empty if none was
        trained.
    n_features_in_ : int
        Columns of X; letters, if X is strings.

    See Also
    --------
    BootstrapReward : The minimum of networks fitted to resampled data.

    Notes
    -----
    The parts and their weights are compared with simple methods in ``benchmarks/reward_evidence.py``.

    After calibration the posterior is not refitted on the calibration rows: they would no longer be exchangeable with
    designs it has not seen.

    References
    ----------
    Uehara et al., "Bridging Model-Based Optimization and Generative Modeling via Conservative Fine-Tuning of Diffusion
    Models", NeurIPS 2024, Example 1.

    Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, chapter 5.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit import GPBonusReward
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> reward = GPBonusReward(random_state=0).fit(X, X[:, 0])
    >>> bool((reward.predict_lower(X) <= reward.predict(X)).all())
    True
    """

    keeps_heads: ClassVar[bool] = False

    process_: SumKernelProcess | LayerProcess

    def __init__(
        self,
        features: nn.Module | None = None,
        *,
        kernel: gpytorch.kernels.Kernel | None = None,
        c: float | Literal["calibrated"] = 0.5,
        noise: float = 0.0,
        lam: float | Literal["auto"] = "auto",
        level: float = 0.95,
        n_inducing: int = 512,
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
        self.kernel = kernel
        self.c = c
        self.noise = noise
        self.lam = lam
        self.level = level
        self.n_inducing = n_inducing
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.space = space
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @ordinary_torch()
    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None, y_error: Any = None) -> GPBonusReward:
        """Train networks, weigh the kernel's parts, solve for the posterior, and calibrate if asked to.

        Parameters
        ----------
        X : designs
            List, array or Series of strings; array of shape (n_samples, n_features); or what `space`
            encodes.
        y : array-like of shape (n_samples,)
            Measurements. Those of one design are averaged, which changes no posterior, and what they differ by tells
            the noise.
        groups : array-like of shape (n_samples,), optional
            Rows of one group, as rows of one design, are never on both sides of a split.
        sample_weight : array-like of shape (n_samples,), optional
            At least 0, such as counts of reads: the variance of the noise of a row is divided by its weight. A row of
            weight 2 is one that stands there twice, a row of weight 0 does not count. With ``lam="auto"`` only ratios
            of weights matter.
        y_error : array-like of shape (n_samples,), optional
            Standard errors of the measurements, above 0, in y's units.
            The noise that evidence finds, or `lam`, is then what comes beside them, and ``c="calibrated"`` is for the
            noiseless reward, as with `noise`.

        Returns
        -------
        self : GPBonusReward

        Raises
        ------
        InvalidDesignError, InvalidTargetError, InvalidParameterError, IncompatibleModelError
            Before any training, naming the row or parameter and the remedy.
        """
        self._check_parameters()
        x, y, row_noise, groups, random_state = self._start_fit(X, y, groups, sample_weight, y_error)
        n_calibration = int(self.validation_fraction * (groups.max() + 1)) if self.c == "calibrated" else 0
        self._check_designs(int(groups.max()) + 1)
        calibration, validation, training = self._split_rows(groups, n_calibration, random_state)
        seen = np.concatenate([training, validation])
        target, row_noise = self._standardise(y, seen, row_noise if self.lam != "auto" else row_noise.of_mean_weight())
        if self.features is None and self.kernel is None and self.lam == "auto":
            own = np.unique(groups[seen], return_inverse=True)[1]
            self._fit_sum(x.take(seen), target[seen], row_noise.take(seen), own, random_state)
        else:
            self._fit_layer(x, target, row_noise, training, validation, random_state)
        self.noise_ = self.process_.noise**0.5 * self.y_std_
        # Of each group one row: relatives are not exchangeable with a new design.
        calibration = calibration[np.unique(groups[calibration], return_index=True)[1]]
        calibrated = self.c == "calibrated"
        of_rows = row_noise.take(calibration)
        self.c_ = self._calibrate(x[calibration], target[calibration], of_rows) if calibrated else float(self.c)
        return self

    @torch.no_grad()
    def mean_difference(self, x: Tensor, other: Tensor) -> tuple[float, float]:
        """Mean difference between points and others, with the standard deviation of paired draws.

        Parameters
        ----------
        x, other : Tensor of shape (n, \\*space_.shape)
            Points of the design space; the first of one and the first of the other are a pair, and so on.

        Returns
        -------
        difference, std : float
            In standard deviations of y. The deviation is that of the posterior, which knows what the two averages have
            in common, with that of a mean over n pairs.
        """
        check_is_fitted(self)
        for points in (x, other):
            self.space_.check_points(points)
        if len(x) != len(other):
            raise InvalidDesignError(f"x has {len(x):,} points and other {len(other):,}; pass pairs.")
        with torch.autocast(self.device_.type, enabled=False):
            points, others = (part.to(self.device_, torch.float32) for part in (x, other))
            pairs, variance = self.process_.difference(points, others)
        variance = variance + pairs.var(correction=0) / len(x)
        return pairs.mean().item(), variance.clamp_min(0.0).sqrt().item()

    def _check_parameters(self) -> None:
        """Check what only this reward has."""
        check_positive(self, "lam", or_word="auto")
        check_positive(self, "noise", allow_zero=True)
        check_fraction(self, "level")
        check_count(self, "n_inducing")
        check_positive(self, "c", allow_zero=True, or_word="calibrated")
        if self.kernel is not None and not isinstance(self.kernel, gpytorch.kernels.Kernel):
            raise InvalidParameterError(f"kernel must be a gpytorch kernel or None; got {self.kernel!r}.")

    def _check_designs(self, n_designs: int) -> None:
        """Raise unless so many different designs are enough to calibrate on, if that was asked for."""
        needed = designs_to_calibrate(self.level, self.validation_fraction) if self.c == "calibrated" else 0
        if n_designs < needed:
            raise InvalidParameterError(
                f'c="calibrated" at level {self.level:g} needs {needed:,} different designs, of which '
                f"{self.validation_fraction:g} are held out, and there are {n_designs:,}; pass c as a number, a lower "
                "level, a larger validation_fraction, or more measurements."
            )

    def _fit_sum(
        self, x: Points, y: Tensor, row_noise: RowNoise, groups: np.ndarray, random_state: np.random.RandomState
    ) -> None:
        """Cross-fit networks, and weigh them and the other parts of the kernel."""
        networks = held_out = None
        self.n_iter_, self.validation_curve_ = 0, []
        if groups.max() + 1 >= MIN_ROWS:
            given = {name: getattr(self, name) for name in ("max_iter", "batch_size", "learning_rate")}
            networks, held_out, self.n_iter_, self.validation_curve_ = cross_fit(
                None,
                self.space_,
                x,
                y,
                groups=groups,
                weights=row_noise.least_squares_weights(),
                validation_fraction=self.validation_fraction,
                device=self.device_,
                random_state=random_state,
                verbose=self.verbose,
                **{name: None if value == "auto" else value for name, value in given.items()},
            )
        sample = x[random_state.permutation(len(x))[:TYPICAL_ROWS]]
        parts = parts_for(self.space_, sample).to(self.device_)
        self.process_ = SumKernelProcess(parts, networks).fit(
            x, y, held_out, row_noise=row_noise, random_state=random_state
        )

    def _fit_layer(
        self,
        x: Points,
        target: Tensor,
        row_noise: RowNoise,
        training: np.ndarray,
        validation: np.ndarray,
        random_state: np.random.RandomState,
    ) -> None:
        """Train a network, and solve for the posterior on its last hidden layer."""
        weights = row_noise.least_squares_weights()
        network = self._train(self.features, x, target, [training], validation, weights, random_state)[0]
        seen = np.concatenate([training, validation])
        trained = self.n_iter_ and len(validation) >= MIN_VALIDATION_ROWS
        self.process_ = LayerProcess(network.get_submodule("features")).fit(
            x,
            target,
            torch.from_numpy(seen),
            kernel=self.kernel,
            noise=None if self.lam == "auto" else float(self.lam),
            row_noise=row_noise,
            unseen=torch.from_numpy(validation if trained else seen),
            n_inducing=self.n_inducing,
            device=self.device_,
        )

    def _mean_and_std(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and deviation (n,) on standardised y's scale."""
        mean, variance = self.process_(x)
        # The floor keeps the square root's gradient finite.
        return mean, variance.clamp_min(1e-20).sqrt()

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, std = self._mean_and_std(x)
        return mean, std, self.c_ * std

    @torch.no_grad()
    def _calibrate(self, x: Tensor, target: Tensor, row_noise: RowNoise) -> float:
        """The c whose bound holds for the level's share of held-out points, or of their noiseless rewards."""
        mean, std = (
            torch.cat(part).cpu().numpy()
            for part in zip(
                *(self._mean_and_std(part.to(self.device_)) for part in x.split(PREDICT_BATCH)), strict=True
            )
        )
        noise = np.square(self.noise / self.y_std_) / row_noise.weights + row_noise.known
        if noise.any():
            return noise_free_c(target.numpy(), mean, std, self.level, float(noise.mean()) ** 0.5)
        return conformal_c(target.numpy(), mean, std, self.level)
