"""Guidance by a classifier: a chain whose policies are those of another, moved toward what is wanted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._policies import Policy
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.networks import SequenceFeatures, VectorFeatures, share, shrunk
from braidkit.parameters import check_number
from braidkit.spaces import Space

# Waves of the time that the network sees beside the state.
_N_WAVES = 4


class NoisedNetwork(nn.Module):
    """One number for each noised design, which sees waves of the time beside it.

    Parameters
    ----------
    space : Space
    """

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.features: nn.Module
        if space.default_features == "sequence":
            n_features = 40
            self.features = SequenceFeatures(
                space.shape[0], space.shape[1] + _N_WAVES, n_channels=32, n_features=n_features, dropout=0.0
            )
        else:
            n_features = 64
            n_inputs = shrunk(torch.zeros(1, *space.shape)).numel()
            self.features = VectorFeatures(n_inputs + _N_WAVES, n_features)
        self.head = nn.Linear(n_features, 1)

    def forward(self, point: Tensor, time: Tensor) -> Tensor:
        """Numbers (n,) for points (n, \\*space.shape) at times (n,) from 0 to 1, the noisiest."""
        waves = (math.pi * time[:, None] * torch.arange(1, _N_WAVES + 1, device=point.device)).cos()
        if point.ndim == 4:  # an image has no axis of columns to put them on
            point = shrunk(point).flatten(1)
        beside = waves.reshape(len(point), *[1] * (point.ndim - 2), -1).expand(*point.shape[:-1], -1)
        return self.head(self.features(torch.cat([point, beside], dim=-1)).float())[:, 0]


class MeasurementGuide(nn.Module):
    """Log-likelihood that a noised design has the wanted measurement, by the mean of a `NoisedNetwork`.

    Parameters
    ----------
    space : Space
    goal : float
        In standardised measurements, of which a draw has the law N(mean, 1).
    tail : bool
        Whether the goal is a measurement at least as large, ``Phi(mean - goal)``, or just that one, of log-density
        ``-(goal - mean)^2 / 2``.
    """

    def __init__(self, space: Space, *, goal: float, tail: bool) -> None:
        super().__init__()
        self.network = NoisedNetwork(space)
        self.goal = goal
        self.tail = tail

    def extra_repr(self) -> str:
        return f"goal={self.goal}, tail={self.tail}"

    def forward(self, points: Tensor, time: Tensor) -> Tensor:
        """Log-probabilities (n,), up to a constant, for points (n, \\*space.shape) at times (n,) from 0 to 1."""
        z = self.network(points, time) - self.goal
        return torch.special.log_ndtr(z) if self.tail else -0.5 * z.square()


class GuidedDiffusion(DiffusionModel):
    """A chain moved, at every step, along the gradient of a log-probability: itself a chain in every way.

    The mean of a normal policy moves by ``strength std^2`` times the gradient at x_t. The logits of letters (of
    designs, in a table) move by strength times the gradient with respect to their one-hot rows. To first order this is
    the difference that each letter would make. The initial law and the readout are the chain's own, and so are the
    weights that fine-tuning changes.

    Parameters
    ----------
    chain : DiffusionModel
        Trained; shared, not copied.
    guide : callable
        From `chain.as_points` of states (n, \\*space.shape) and their time (n,), t / n_steps, to log-probabilities (n,)
        of what is wanted, differentiable. A row's value must not depend on other rows. To be saved it has to be a
        `MeasurementGuide`.
    strength : float
        The same for every row, whatever their number: gradients are those of each row's own value.

    References
    ----------
    Dhariwal and Nichol (2021), "Diffusion models beat GANs on image synthesis", algorithm 1, for Gaussian policies.
    Nisonoff et al. (2024), "Unlocking guidance for discrete state-space diffusion and flow models", for the first-order
    estimate with letters.
    """

    def __init__(
        self, chain: DiffusionModel, guide: Callable[[Tensor, Tensor], Tensor], *, strength: float = 1.0
    ) -> None:
        if not isinstance(chain, DiffusionModel):
            raise InvalidParameterError(f"chain must be a DiffusionModel; got {chain!r:.60}.")
        if not callable(guide):
            raise InvalidParameterError(f"guide must be callable, from states and times to values; got {guide!r:.60}.")
        check_number("strength", strength)
        super().__init__(chain.space, n_steps=chain.n_steps)
        self.chain = chain
        self.guide = guide
        self.strength = float(strength)
        self.kind = chain.kind
        self.constant_std = chain.constant_std
        self.frozen = chain.frozen

    @property
    def trainable(self) -> nn.Module:
        """The chain's own shape."""
        return self.chain.trainable

    @property
    def is_trained(self) -> bool:
        return self.chain.is_trained

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.chain.state_shape

    @property
    def noise_shape(self) -> tuple[int, ...]:
        return self.chain.noise_shape

    def initial(self, n: int) -> Policy:
        """The chain's own."""
        return self.chain.initial(n)

    def policy(self, x_t: Tensor, t: int) -> Policy:
        """The chain's policy, tilted by the guide."""
        differentiate = torch.is_grad_enabled() and x_t.requires_grad
        with torch.enable_grad():
            state = x_t if differentiate else x_t.detach().requires_grad_(True)
            time = torch.full((len(x_t),), t / self.n_steps, device=x_t.device)
            values = self.guide(self.chain.as_points(state, t), time)
            if not isinstance(values, Tensor) or values.shape != x_t.shape[:1] or not values.requires_grad:
                raise InvalidParameterError(
                    f"guide must give a tensor of {len(x_t)} values, one a state, whose gradient is known; got "
                    f"{values!r:.60}."
                )
            value = values.sum()
            (gradient,) = torch.autograd.grad(value, state, create_graph=differentiate)
        if not gradient.isfinite().all():
            raise InvalidParameterError(f"guide has a gradient that is not finite at t = {t}; look for log(0) and 0/0.")
        return self.chain.policy(x_t, t).shifted(self.strength * gradient)

    def readout(self, x_0: Tensor) -> Tensor:
        """The chain's own."""
        return self.chain.readout(x_0)

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        """The chain's expected designs, without guidance."""
        return self.chain.denoise(x_t, t)

    def as_points(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return self.chain.as_points(x_t, t)

    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """The chain's own noising."""
        return self.chain.noised(x, t, generator)

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor:
        """The chain's own noise."""
        return self.chain.draw_noise(n, generator)

    def in_space(self, space: Space) -> GuidedDiffusion:
        """The chain in that space, guided alike."""
        if space == self.space:
            return self
        return GuidedDiffusion(self.chain.in_space(space), self.guide, strength=self.strength)

    def untrained_copy(self) -> DiffusionModel:
        """The chain without weights, and without guidance."""
        return self.chain.untrained_copy()

    def trainable_copy(self) -> GuidedDiffusion:
        """A copy whose chain has weights of its own; those of the guide are shared."""
        guide = share(self.guide) if isinstance(self.guide, nn.Module) else self.guide
        return GuidedDiffusion(self.chain.trainable_copy(), guide, strength=self.strength)

    def digest_parts(self) -> list[Any]:
        """Those of the chain, and the guide: a function is known by its place in memory alone."""
        weights = [self.guide] if isinstance(self.guide, nn.Module) else []
        return [*self.chain.digest_parts(), [type(self).__name__, str(self.strength), repr(self.guide)], *weights]

    def to_config(self) -> dict[str, Any]:
        """All but the weights, as JSON holds it."""
        if not isinstance(self.guide, MeasurementGuide):
            raise IncompatibleModelError(
                f"a chain guided by a {type(self.guide).__name__} cannot be saved; save its `chain`, and guide that "
                "again when it is loaded."
            )
        return {
            "class": self._saved_name(),
            "chain": self.chain.to_config(),
            "guide": {"goal": self.guide.goal, "tail": self.guide.tail},
            "kind": self.kind,
            "strength": self.strength,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> GuidedDiffusion:
        chain = DiffusionModel.from_config(config["chain"])
        return cls(chain, MeasurementGuide(chain.space, **config["guide"]), strength=config["strength"])

    def _build_network(self, n_conditions: int = 0) -> nn.Module:
        raise IncompatibleModelError("a guided chain is not trained itself; train its `chain` before it is guided.")

    def _config(self) -> dict[str, Any]:
        return {"strength": self.strength}
