"""Sequential Monte Carlo toward the tilted law: no training, and a diagnosis of how far it lies."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from braidkit.baselines.baseline import Baseline
from braidkit.diffusion import DiffusionModel, walk
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import as_generator, check_count, check_number, check_positive, check_random_state, is_word
from braidkit.spaces import Space
from braidkit.torch_state import ordinary_torch

# Share of the particles that is to count.
MIN_SHARE = 0.5
# With "auto" for alpha the weights are near that share at most steps, and unequal weights leave less to choose from.
LEAST_ALPHA, RESAMPLED_BELOW, N_TILTS, MOST = 0.02, 0.9, 400, 0.8


class Particles(NamedTuple):
    """Weighted designs whose law approaches the tilted one as their number grows.

    Attributes
    ----------
    points : Tensor of shape (n, \\*space.shape)
        Designs, discretised.
    log_weights : Tensor of shape (n,)
        They sum to one.
    ess : Tensor of shape (n_steps + 1,)
        Effective sample size over n before each resampling; item t is that of the draws of x_t. Near 1 / n the
        weights rest on one design, and neither these designs nor `log_z` are to be trusted.
    log_z : float
        Estimate of log C, where alpha log C is the value of objective (6) at its optimum; exp(log_z) is unbiased,
        unless alpha was chosen on the way.
    alpha : float
        That of the tilted law.
    """

    points: Tensor
    log_weights: Tensor
    ess: Tensor
    log_z: float
    alpha: float

    def resample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n designs by weight, systematically, in random order."""
        rows = systematic(self.log_weights, n, generator)
        return self.points[rows[torch.randperm(n, generator=generator)]]


@torch.no_grad()
def twisted_smc(
    pretrained: DiffusionModel,
    reward: Callable[[Tensor], Tensor],
    alpha: float | Literal["auto"],
    n_particles: int,
    generator: torch.Generator,
    *,
    twist: bool = True,
    batch_size: int = 256,
) -> Particles:
    """Draw from the tilted law p_pre exp(reward / alpha) / C by weighting and resampling pretrained trajectories.

    Parameters
    ----------
    pretrained : DiffusionModel
    reward : callable
        From discretised points (n, \\*space.shape) to rewards (n,), on the scale of `alpha`; no gradient is taken.
    alpha : float or "auto"
        "auto" begins at 0.02, and raises alpha at each step at which the weights would leave fewer than half of the
        particles effective, until they do not.
    n_particles : int
    generator : torch.Generator
        On the CPU.
    twist : bool, default=True
        Guide particles by the reward of the expected design, with a weight that grows linearly over the steps. Without
        it this is self-normalised importance sampling. Both are exact for large n.
    batch_size : int, default=256
        Trajectories at a time.

    Returns
    -------
    particles : Particles

    References
    ----------
    Wu et al. (2023), "Practical and asymptotically exact conditional sampling in diffusion models", algorithm 1, with
    pretrained proposals. BRAID (Uehara et al., 2024), equations (3) and (5), for the tilted law.
    """
    if not isinstance(pretrained, DiffusionModel) or not callable(reward) or not isinstance(generator, torch.Generator):
        raise InvalidParameterError(
            "pretrained must be a DiffusionModel, reward callable and generator a torch.Generator; got "
            f"{pretrained!r:.60}, {reward!r:.60} and {generator!r:.60}."
        )
    if not is_word(alpha, "auto"):
        check_number("alpha", alpha, low=0, above=True)
    check_number("n_particles", n_particles, low=1, whole=True)
    check_number("batch_size", batch_size, low=1, whole=True)
    n_steps, space, device = pretrained.n_steps, pretrained.space, pretrained.device
    raises_alpha = is_word(alpha, "auto")
    least = LEAST_ALPHA if raises_alpha else float(alpha)

    def guess(x_t: Tensor, t: int) -> Tensor:
        """Guessed reward of states; the exact one of the last."""
        readout = functools.partial(pretrained.denoise, t=t) if t else pretrained.readout
        values = _in_batches(lambda x: reward(space.discretise(readout(x))), x_t, batch_size).double()
        if values.shape != x_t.shape[:1] or values.isnan().any():
            raise InvalidParameterError(
                f"reward must give one number a design, shape ({len(x_t)},), and no NaN; got shape "
                f"{tuple(values.shape)}."
            )
        return values

    ess = torch.ones(n_steps + 1)
    log_z, log_weights, guessed = 0.0, torch.zeros(n_particles).double(), torch.zeros(n_particles).double()
    log_weights, guessed = log_weights.to(device), guessed.to(device)
    tilt = 0.0  # weight of the guesses, which is 1 / alpha in the end

    def fresh() -> Tensor:
        """Noise of one step: a particle takes over another's state, and must not meet noise that made it."""
        return torch.randn(n_particles, *pretrained.noise_shape, generator=generator).to(device)

    def move(x: Tensor, t: int, _: Tensor) -> Tensor:
        """Resample where few particles carry the weight, then draw from the pretrained policies."""
        nonlocal log_z, log_weights, guessed
        ess[t] = effective_share(log_weights)
        # Resample only if few particles carry the weight: resampling adds noise. Afterwards all weights are equal, and
        # their mean goes into the estimate of log C.
        if ess[t] < (RESAMPLED_BELOW if raises_alpha else MIN_SHARE):
            rows = systematic(log_weights, n_particles, generator).to(device)
            log_z += float(log_weights.logsumexp(dim=0)) - math.log(n_particles)
            x, guessed, log_weights = x[rows], guessed[rows], torch.zeros_like(log_weights)
        parts = zip(x.split(batch_size), fresh().split(batch_size), strict=True)
        return torch.cat([pretrained.policy(part, t).rsample(z) for part, z in parts])

    first = fresh()[:, None].expand(-1, n_steps + 1, *pretrained.noise_shape)
    for t, x in walk(pretrained, first, move):
        share = 1 - t / n_steps if twist or t == 0 else 0.0
        if not share:
            continue
        # Proposals are the pretrained policies, so a particle's weight changes by the ratio of guessed values alone.
        # The guesses cancel along the path but for the last, which is exact.
        log_weights, guessed = log_weights - tilt * guessed, guess(x, t)
        tilt = share / least
        if raises_alpha:
            tilt = _largest_tilt(log_weights, guessed, tilt)
            least = share / tilt if tilt else math.inf
        log_weights = log_weights + tilt * guessed
    ess[0] = effective_share(log_weights)
    total = log_weights.logsumexp(dim=0)
    points = space.discretise(_in_batches(pretrained.readout, x, batch_size))
    return Particles(points, log_weights - total, ess, log_z + float(total) - math.log(n_particles), least)


def _largest_tilt(log_weights: Tensor, rewards: Tensor, most: float) -> float:
    """The largest of many tilts up to `most` that leaves half of the particles effective, or most of what one can."""
    tilts = torch.linspace(0, most, N_TILTS, dtype=torch.float64).tolist()
    shares = [effective_share(log_weights + tilt * rewards) for tilt in tilts]
    # A guess that has little to do with the one before it leaves few particles at any tilt, and says little of alpha.
    enough = min(MIN_SHARE, MOST * max(shares))
    return max(tilt for tilt, share in zip(tilts, shares, strict=True) if share >= enough)


def effective_share(log_weights: Tensor) -> float:
    """Effective sample size of n weights, divided by n: 1 if all are equal, 1 / n if one weight is not zero."""
    weights = log_weights.softmax(dim=0)
    return float(1 / weights.square().sum()) / len(weights)


def systematic(log_weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Row numbers (n,), on the CPU: each row about n times its weight, from one uniform draw."""
    points = (torch.arange(n) + torch.rand((), generator=generator, dtype=torch.float64)) / n
    levels = log_weights.double().softmax(dim=0).cumsum(dim=0).cpu()
    last = int(log_weights.isfinite().nonzero().max())  # rounding may leave the levels' end below one
    return torch.searchsorted(levels, points, right=True).clamp(max=last)


def _in_batches(function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int) -> Tensor:
    """Apply a function of rows to some rows at a time."""
    return torch.cat([function(part) for part in x.split(batch_size)])


class SMCSampler(Baseline):
    """Sample from the law that fine-tuning aims for, without training: twisted sequential Monte Carlo.

    Each call of `sample` runs a population of pretrained trajectories, which are weighted by the conservative reward
    and resampled on the way. Use it for a few designs, or to check what fine-tuning could reach at this alpha. If the
    population is too small for the distance from the pretrained model, designs repeat.

    Parameters
    ----------
    pretrained : DiffusionModel, optional
        By default a small one is trained on `X`.
    alpha : float or "auto", default=0.1
        As in ConservativeDiffusionFinetuner. A smaller alpha needs more particles. "auto" is the smallest value from
        0.02 on at which about half of the particles count; each call of `sample` finds its own.
    reward : regressor, default=GPBonusReward()
        The conservative reward, any regressor of designs; a clone is fitted.
    space : Space, optional
    n_particles : int, default=1024
        Size of the population; it is at least the number of designs asked for.
    batch_size : int, default=256
        Trajectories at a time.
    device : str, default="auto"
    random_state : int, RandomState or None
    verbose : int, default=0

    Attributes
    ----------
    pretrained_ : DiffusionModel
    reward_ : regressor
    ess_ : ndarray of shape (n_steps + 1,)
        Effective sample size over the population along the last call of `sample`, see `Particles`.
    log_z_ : float
        Estimate of log C in the last call: the optimum of objective (6) is alpha log C deviations of y above its mean.
    alpha_ : float
        The value used in the last call.
    space_ : Space
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit.baselines import SMCSampler
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> sampler = SMCSampler(alpha=0.5, random_state=0).fit(X, X.sum(axis=1))
    >>> designs = sampler.sample(100, random_state=0)
    >>> bool(designs.sum(axis=1).mean() > X.sum(axis=1).mean())
    True
    """

    def __init__(
        self,
        pretrained: DiffusionModel | None = None,
        alpha: float | Literal["auto"] = 0.1,
        *,
        reward: Any = None,
        space: Space | None = None,
        n_particles: int = 1024,
        batch_size: int = 256,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.pretrained = pretrained
        self.alpha = alpha
        self.reward = reward
        self.space = space
        self.n_particles = n_particles
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @ordinary_torch()
    def fit(self, X: Any, y: Any) -> SMCSampler:
        """Learn the conservative reward, and a chain where none was given.

        Parameters
        ----------
        X : list of str, or array-like
        y : array-like of shape (n_samples,)
            Larger is better.

        Returns
        -------
        self : SMCSampler
        """
        check_positive(self, "alpha", or_word="auto")
        check_count(self, "n_particles", minimum=2)
        data = self._start(X, y)
        chain_seed, reward_seed = check_random_state(self.random_state).randint(2**31 - 1, size=2).tolist()
        self.reward_ = self._fit_reward(self.reward, data.X, data.y, reward_seed)
        self.pretrained_ = self._chain(data.X, chain_seed, data.device)
        return self

    @ordinary_torch()
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """Run a population and draw designs from it by weight.

        Parameters
        ----------
        n_samples : int, default=1
        random_state : int, RandomState or None

        Returns
        -------
        designs : list of str, or ndarray
            The kind of designs that `fit` saw. Sets ``ess_``, ``log_z_`` and ``alpha_``.
        """
        check_is_fitted(self, "reward_")
        check_number("n_samples", n_samples, low=1, whole=True)
        generator = as_generator(random_state)
        particles = twisted_smc(
            self.pretrained_,
            self._standardised_aim,
            self.alpha,
            max(n_samples, self.n_particles),
            generator,
            batch_size=self.batch_size,
        )
        self.ess_, self.log_z_, self.alpha_ = particles.ess.numpy(), particles.log_z, particles.alpha
        return self.space_.decode(particles.resample(n_samples, generator), self.kind_)
