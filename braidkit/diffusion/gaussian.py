"""GaussianDiffusion: the DDPM-style chain on vectors."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._letters import LEAST_DEVIATION
from braidkit.diffusion._policies import Gaussian
from braidkit.diffusion._pretraining import MAX_HELD_OUT, MIN_HELD_OUT, count_held_out, pretrain
from braidkit.diffusion._strata import strata
from braidkit.diffusion._zero_layer import ZeroLayer, zero_at_first
from braidkit.diffusion.mixture import MixtureLaw
from braidkit.parameters import check_choice, check_number
from braidkit.spaces import Points, Space, VectorSpace
from braidkit.torch_state import seeded

# Mean squared error of the velocity, of variance about one, by which a network must be better than the law alone.
LEAST_GAIN = 0.01
# Points by which that error is measured at each level: after training, and in each update of a law, which are many.
N_MEASURED, N_MEASURED_AGAIN = 1024, 256


class GaussianDiffusion(DiffusionModel):
    """Denoising diffusion on standardised vectors, with Gaussian policies, over a mixture of normal laws.

    The noise levels i = 0, ..., T are equally spaced angles phi_i: x_i = cos(phi_i) x + sin(phi_i) noise. The
    predicted velocity v = cos(phi) noise - sin(phi) x is exact under a `MixtureLaw` of the designs; a network adds
    what the law misses. It is kept at zero, as it is at first, if training does not help on held-out rows. Policy t
    is the Gaussian posterior of x_{t-1} given x_t and the predicted x. It is widened by the mean squared error of
    that prediction, measured after training, so that the chain neither shrinks nor blurs the data. The last level
    is nearly pure noise, so x_T is almost independent of x_0 (a memoryless start). The first level keeps a little
    noise, so that every policy has a finite KL.

    Parameters
    ----------
    space : VectorSpace
    n_steps : int, default=20
    n_hidden : int, default=128
        Width of the two hidden layers.
    prior : {"mixture"} or None
        Start of the velocity: a `MixtureLaw` of the designs, or nothing.

    Attributes
    ----------
    prior : MixtureLaw or None
        The law; None before training, and where there is to be none.
    velocity_error : Tensor of shape (n_steps + 1,)
        Mean squared error of the predicted velocity at each level.

    References
    ----------
    Bao et al. (2022), "Analytic-DPM", theorem 1, for the variance of the policies. Ho, Jain and Abbeel (2020),
    "Denoising diffusion probabilistic models", equations (6) and (7). Salimans and Ho (2022), "Progressive
    distillation", for the velocity and the angles. BRAID (Uehara et al., 2024), section 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit import GaussianDiffusion, VectorSpace
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> model = GaussianDiffusion(VectorSpace.from_data(X)).fit(X, random_state=0)
    >>> model.sample(3, random_state=0).shape
    (3, 2)
    """

    _reads_out_by_network: ClassVar[bool] = False
    constant_std = True
    _first_angle, _last_angle = 0.02, math.pi / 2 - 0.005

    space: VectorSpace
    prior: MixtureLaw | None

    def __init__(self, space: Space, *, n_steps: int = 20, n_hidden: int = 128, prior: str | None = "mixture") -> None:
        super().__init__(space, n_steps=n_steps)
        check_choice("prior", prior, ("mixture", None))
        VectorSpace.require(space, "GaussianDiffusion")
        check_number("n_hidden", n_hidden, low=1, whole=True)
        self.n_hidden = int(n_hidden)
        self.prior_kind = prior
        self.prior = None
        self._is_zero = ZeroLayer()
        self.register_buffer(
            "angles", torch.linspace(self._first_angle, self._last_angle, self.n_steps + 1), persistent=False
        )
        # The same as numbers: reading a device's tensor would make the host wait at every step.
        self._angles: list[float] = self.angles.tolist()
        self.register_buffer("velocity_error", torch.zeros(self.n_steps + 1))

    angles: Tensor
    velocity_error: Tensor

    @classmethod
    def standard_normal(
        cls, n_features: int, *, n_steps: int = 20, n_hidden: int = 128, random_state: int = 0
    ) -> GaussianDiffusion:
        """The exact chain of designs with the law N(0, I), ready to be fine-tuned: a world whose optimum is known.

        The best velocity is then zero, of mean squared error one: the network's last layer starts at zero, and every
        policy is linear-Gaussian, as `braidkit.theory.LinearGaussianChain` takes them.

        Parameters
        ----------
        n_features : int
        n_steps, n_hidden : int
        random_state : int, default=0
            Seed of the hidden layers' weights.

        Returns
        -------
        model : GaussianDiffusion
            Frozen.
        """
        model = cls(VectorSpace(n_features), n_steps=n_steps, n_hidden=n_hidden, prior=None)
        with seeded(random_state):
            network = model._build_network()
        zero_at_first(network.last)
        model.network = network
        model.velocity_error.fill_(1.0)
        model.freeze()
        return model

    @property
    def default_solver(self) -> str:
        has_law = self.prior_kind is not None and (self.prior is not None or not self.is_trained)
        return "tempering" if has_law else "direct"

    @property
    def trainable(self) -> nn.Module:
        """The part that fine-tuning changes: the network, the law under it, and the error of both."""
        network = super().trainable
        if self.prior is None:
            return network
        return nn.ModuleDict({"network": network, "prior": self.prior, "error": VelocityError(self.velocity_error)})

    @property
    def knows_law(self) -> bool:
        """Whether designs are drawn from the mixture: with a network of zero."""
        return self.prior is not None and self.is_trained and self._network_gives_zero()

    @torch.no_grad()
    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the density (n,) of points (n, n_features), where the chain `knows_law`."""
        self.space.check_points(x)
        if not self.knows_law:
            return super().log_prob(x)
        assert self.prior is not None
        return self.prior.log_prob(x)

    @torch.no_grad()
    def rarity(self, x: Tensor) -> Tensor:
        """By how many deviations of the draws' log-density, of 2 nats at least, points lie below their mean: (n,)."""
        self.space.check_points(x)
        if self.prior is None:
            return super().rarity(x)
        mean, deviation = self.prior.log_prob_moments()
        return (mean - self.prior.log_prob(x)) / max(deviation, LEAST_DEVIATION)

    @torch.no_grad()
    def sample_points(self, noise: Tensor) -> Tensor:
        """Run the chain on given noise; where it `knows_law` it is drawn from directly.

        A point outside of the bounds, by more than the noise of the last state, is drawn again, with the noise in
        another order: to clip it would take it from where the data are, such as from a sum of 1. Of one that is outside
        each time the draw nearest to the bounds is left.
        """
        self.check_trained()
        self.check_noise(noise)
        noise = noise.to(self.device)
        points = self._drawn(noise)
        excess = self.space.squared_excess(points)
        for shift in range(2, noise.shape[1], 2):
            again = torch.nonzero(excess > self._first_angle**2)[:, 0]
            if not len(again):
                break
            new = self._drawn(noise[again].roll(shift, dims=1))
            beyond = self.space.squared_excess(new)
            nearer = beyond < excess[again]
            points[again[nearer]], excess[again[nearer]] = new[nearer], beyond[nearer]
        return points

    def _drawn(self, noise: Tensor) -> Tensor:
        """Points (n, n_features) of the law, or of the chain."""
        if not self.knows_law:
            return super().sample_points(noise)
        assert self.prior is not None
        return self.prior.sample(torch.special.ndtr(noise[:, 1, 0].double()), noise[:, 0]).to(noise.dtype)

    def _network_gives_zero(self) -> bool:
        """Whether the law alone is the chain."""
        return isinstance(self.network, VelocityNetwork) and self._is_zero(self.network.last)

    def _uses_network(self) -> bool:
        """Whether the network adds anything: not while it is zero, unless it is being trained and needs a gradient."""
        assert self.network is not None
        learns = torch.is_grad_enabled() and next(self.network.parameters()).requires_grad
        return learns or not self._network_gives_zero()

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.space.shape

    def initial(self, n: int) -> Gaussian:
        """Standard normal noise."""
        zeros = torch.zeros(n, *self.state_shape, device=self.device)
        return Gaussian(zeros, torch.ones((), device=self.device))

    def policy(self, x_t: Tensor, t: int) -> Gaussian:
        """The posterior of x_{t-1} given x_t and the predicted design (DDPM, equations 6 and 7)."""
        phi, phi_next = self._angles[t], self._angles[t - 1]
        design = self.denoise(x_t, t)
        ratio = math.cos(phi) / math.cos(phi_next)
        added = math.sin(phi) ** 2 - (ratio * math.sin(phi_next)) ** 2
        weight = math.cos(phi_next) * added / math.sin(phi) ** 2
        mean = ratio * (math.sin(phi_next) / math.sin(phi)) ** 2 * x_t + weight * design
        posterior = added * (math.sin(phi_next) / math.sin(phi)) ** 2
        variance = posterior + weight**2 * math.sin(phi) ** 2 * self.velocity_error[t]
        return Gaussian(mean, variance.sqrt().to(x_t.dtype))

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        """The design that the predicted velocity points to."""
        if self.network is None:
            raise self._not_trained()
        phi = self._angles[t]
        if self.prior is None:
            return math.cos(phi) * x_t - math.sin(phi) * self.network(x_t, self.angles[t])
        by_law = self.prior.prediction(x_t, math.cos(phi), math.sin(phi))
        if not self._uses_network():
            return by_law
        return by_law - math.sin(phi) * self.network(x_t, self.angles[t])

    def readout(self, x_0: Tensor) -> Tensor:
        """The state itself: it is a design with a noise of 2 % of a standard deviation."""
        return x_0

    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """``cos(phi_t) x + sin(phi_t) noise``."""
        phi = self.angles[t].reshape(-1, 1)
        return phi.cos() * x + phi.sin() * torch.randn(x.shape, generator=generator, device=x.device)

    def _build_network(self, n_conditions: int = 0) -> VelocityNetwork:
        return VelocityNetwork(self.space.shape[0], self.n_hidden, n_conditions)

    def _loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        n = len(x)
        x = self.space.spread(x, generator)
        angles = self._first_angle + (self._last_angle - self._first_angle) * strata(n, generator) / n
        return self._errors(x, angles, generator).mean()

    def _errors(self, x: Tensor, phi: Tensor, generator: torch.Generator) -> Tensor:
        """Squared errors (n,) of the velocity predicted for points (n, n_features) at angles (n,)."""
        assert self.network is not None
        phi = phi[:, None]
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        x_t = phi.cos() * x + phi.sin() * noise
        error = phi.sin() * x - phi.cos() * noise
        if self.prior is not None:
            error = error + (phi.cos() * x_t - self.prior.prediction(x_t, phi.cos(), phi.sin())) / phi.sin()
        if self._uses_network():
            error = error + self.network(x_t, phi)
        return error.square().mean(dim=1)

    def _train(self, x: Points, seed: int, *, validation_fraction: float, **settings: Any) -> None:
        """Fit the law, and then the network to what it misses."""
        settings["validation_fraction"] = validation_fraction
        if self.prior_kind is None:
            pretrain(self, x, seed, **settings)
            return
        assert isinstance(self.network, VelocityNetwork)
        rows = self.space.spread(x[:].cpu(), torch.Generator().manual_seed(seed))
        self.prior = MixtureLaw.fit(rows, seed % 2**32)[0].to(x.device)
        zero_at_first(self.network.last)
        if validation_fraction > 0 and count_held_out(len(x), validation_fraction) < MIN_HELD_OUT:
            with torch.no_grad():
                self._calibrate(x[:MAX_HELD_OUT], torch.Generator(x.device).manual_seed(seed))
        else:
            pretrain(self, x, seed, least_gain=LEAST_GAIN, **settings)

    @torch.no_grad()
    def fit_law(self, points: Tensor) -> None:
        """Move the law's components to fit other points (n, n_features); a network stays as it is."""
        assert self.prior is not None
        self.prior.fitted_again(points)
        x = points[:N_MEASURED_AGAIN].to(self.device, torch.float32)
        self._measure_errors(x, N_MEASURED_AGAIN, torch.Generator(self.device).manual_seed(0))

    def _calibrate(self, x: Tensor, generator: torch.Generator) -> None:
        self._measure_errors(self.space.spread(x, generator), N_MEASURED, generator)

    def _measure_errors(self, x: Tensor, n: int, generator: torch.Generator) -> None:
        """Set the mean squared error of the velocity at each level by `n` of the points, or copies of them."""
        x = x[:n].repeat(math.ceil(n / len(x[:n])), 1)
        for level, phi in enumerate(self.angles):
            self.velocity_error[level] = self._errors(x, phi.expand(len(x)), generator).mean()

    def _config(self) -> dict[str, Any]:
        return {"n_steps": self.n_steps, "n_hidden": self.n_hidden, "prior": self.prior_kind}

    def to_config(self) -> dict[str, Any]:
        law = self.prior
        shape = {} if law is None else {"prior_components": len(law.weights), "prior_correlated": len(law.axes) > 0}
        return super().to_config() | shape

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> GaussianDiffusion:
        model = super()._from_config(config)
        assert isinstance(model, GaussianDiffusion)
        if "prior_components" in config:
            n_features = model.space.n_features
            model.prior = MixtureLaw(config["prior_components"], n_features, config["prior_correlated"])
        return model


class VelocityError(nn.Module):
    """The errors of a chain's velocity as a module: a part of what fine-tuning changes."""

    def __init__(self, errors: Tensor) -> None:
        super().__init__()
        self.register_buffer("errors", errors)


class VelocityNetwork(nn.Module):
    """Two hidden layers on the state and Fourier features of the noise angle."""

    def __init__(self, n_features: int, n_hidden: int, n_conditions: int = 0) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 * torch.arange(1, 5), persistent=False)
        self.first = nn.Linear(n_features + n_conditions + 8, n_hidden)
        self.second = nn.Linear(n_hidden, n_hidden)
        self.last = nn.Linear(n_hidden, n_features)

    frequencies: Tensor

    def forward(self, x: Tensor, angle: Tensor) -> Tensor:
        """Velocity (n, n_features) of states, and conditions beside them, at one angle () or one a row (n, 1)."""
        waves = angle * self.frequencies  # (4,) or (n, 4)
        time = torch.cat([waves.sin(), waves.cos()], dim=-1).expand(len(x), 8)
        hidden = nn.functional.silu(self.first(torch.cat([x, time], dim=1)))
        return self.last(nn.functional.silu(self.second(hidden)) + hidden)
