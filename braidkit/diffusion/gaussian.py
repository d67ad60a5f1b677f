"""GaussianDiffusion: the DDPM-style chain on vectors."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._policies import Gaussian
from braidkit.exceptions import IncompatibleModelError
from braidkit.parameters import check_number
from braidkit.spaces import Space, VectorSpace
from braidkit.torch_state import seeded


class GaussianDiffusion(DiffusionModel):
    """Denoising diffusion on standardised vectors, with Gaussian policies.

    The noise levels i = 0, ..., T are equally spaced angles phi_i: x_i = cos(phi_i) x + sin(phi_i) noise. The network
    predicts the velocity v = cos(phi) noise - sin(phi) x. Policy t is the Gaussian posterior of x_{t-1} given x_t and
    the predicted x. It is widened by the mean squared error of that prediction, measured after training, so that the
    chain neither shrinks nor blurs the data. The last level is nearly pure noise, so x_T is almost independent of x_0
    (a memoryless start). The first level keeps a little noise, so that every policy has a finite KL.

    Parameters
    ----------
    space : VectorSpace
    n_steps : int, default=20
    n_hidden : int, default=128
        Width of the two hidden layers.

    Attributes
    ----------
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

    def __init__(self, space: Space, *, n_steps: int = 20, n_hidden: int = 128) -> None:
        super().__init__(space, n_steps=n_steps)
        if not isinstance(space, VectorSpace):
            raise IncompatibleModelError(f"GaussianDiffusion needs a VectorSpace; got {space!r}.")
        check_number("n_hidden", n_hidden, low=1, whole=True)
        self.n_hidden = int(n_hidden)
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
        model = cls(VectorSpace(n_features), n_steps=n_steps, n_hidden=n_hidden)
        with seeded(random_state):
            network = model._build_network()
        for parameter in network.last.parameters():
            nn.init.zeros_(parameter)
        model.network = network
        model.velocity_error.fill_(1.0)
        model.freeze()
        return model

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
        return math.cos(phi) * x_t - math.sin(phi) * self.network(x_t, self.angles[t])

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
        # Stratified levels, one from each of n equal parts, so that losses of batches vary less.
        n = len(x)
        strata = torch.arange(n, device=x.device) + torch.rand(n, generator=generator, device=x.device)
        return self._error(x, self._first_angle + (self._last_angle - self._first_angle) * strata / n, generator)

    def _error(self, x: Tensor, phi: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity predicted for points (n, n_features) at angles (n,)."""
        assert self.network is not None
        phi = phi[:, None]
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        velocity = self.network(phi.cos() * x + phi.sin() * noise, phi)
        return (velocity - (phi.cos() * noise - phi.sin() * x)).square().mean()

    def _calibrate(self, x: Tensor, generator: torch.Generator) -> None:
        x = x[:1024].repeat(math.ceil(1024 / len(x[:1024])), 1)
        for level, phi in enumerate(self.angles):
            self.velocity_error[level] = self._error(x, phi.expand(len(x)), generator)

    def _config(self) -> dict[str, Any]:
        return {"n_steps": self.n_steps, "n_hidden": self.n_hidden}


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
