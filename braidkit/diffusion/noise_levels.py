"""The one step formula of chains that mix a design with normal noise: DDIM, DDPM and flow matching."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from braidkit.exceptions import IncompatibleModelError, InvalidParameterError

PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class NoiseLevels:
    """States ``x_t = signal[t] x + noise[t] e`` of designs x and standard normal e, and the steps between them.

    The step from t to t - 1, with ``a, s`` and ``a', s'`` the two levels, is normal with ::

        std  = eta sqrt((s' / s)^2 (s^2 - (a / a')^2 s'^2))
        mean = a' x + sqrt(s'^2 - std^2) e

    at the predicted design x and noise e: DDIM's equations (12) and (16) where ``a^2 + s^2 = 1``, and flow matching
    with the same marginals where ``a + s = 1``.

    Attributes
    ----------
    signal, noise : sequence of float
        One entry for each t from 0 to n_steps.
    times : sequence of float
        The network's own time of each t; that of 0 is not used.
    prediction : {"epsilon", "v_prediction", "sample", "flow"}
        Output of the network: the noise, ``a e - s x``, the design, or ``e - x``.
    eta : float
        Above 0, up to 1.
    clip : float, optional
        Predicted designs are clipped to so much on either side.
    consistent : bool
        Whether the noise is what a clipped design leaves, as in DDPM, or as it was predicted, as in DDIM.

    References
    ----------
    Song, Meng, Ermon (2021), "Denoising diffusion implicit models".
    """

    signal: Sequence[float]
    noise: Sequence[float]
    times: Sequence[float]
    prediction: str
    eta: float = 1.0
    clip: float | None = None
    consistent: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.eta <= 1:
            raise InvalidParameterError(
                f"eta must be above 0 and at most 1; got {self.eta!r}. At 0 steps have no noise, and the KL to the "
                "pretrained chain is infinite."
            )

    @property
    def n_steps(self) -> int:
        return len(self.signal) - 1

    @property
    def last_is_noiseless(self) -> bool:
        """Whether the last step adds no noise: then it is no policy, but belongs to the readout."""
        return self.std(1) < 1e-7

    def std(self, t: int) -> float:
        """Deviation of the step from t to t - 1."""
        a, s, a_next, s_next = self.signal[t], self.noise[t], self.signal[t - 1], self.noise[t - 1]
        return self.eta * math.sqrt(max(s_next**2 - (a * s_next**2 / (a_next * s)) ** 2, 0.0))

    def mean(self, x: Tensor, e: Tensor, t: int) -> Tensor:
        """Mean of the step from t to t - 1, at a predicted design and its noise."""
        return self.signal[t - 1] * x + math.sqrt(max(self.noise[t - 1] ** 2 - self.std(t) ** 2, 0.0)) * e

    def predicted(self, output: Tensor, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The design and the noise that a network's output implies."""
        a, s = self.signal[t], self.noise[t]
        if self.prediction == "epsilon":
            x, e = (x_t - s * output) / a, output
        elif self.prediction == "v_prediction":
            x, e = a * x_t - s * output, a * output + s * x_t
        elif self.prediction == "flow":
            x, e = (x_t - s * output) / (a + s), (x_t + a * output) / (a + s)
        else:
            x, e = output, (x_t - a * output) / s
        if self.clip is not None:
            x = x.clamp(-self.clip, self.clip)
            e = (x_t - a * x) / s if self.consistent else e
        return x, e

    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """Draw states (n, ...) of designs; t is one for all, or one a row (n,)."""
        shape = (-1,) + (1,) * (x.ndim - 1)
        a, s = (torch.tensor(levels, device=x.device)[t].reshape(shape) for levels in (self.signal, self.noise))
        return a * x + s * torch.randn(x.shape, generator=generator, device=x.device)


def levels_of_scheduler(scheduler: Any, n_steps: int, eta: float, n_patches: int = 1) -> NoiseLevels:
    """The levels of a scheduler of diffusers that was trained on a table of betas, or for flow matching.

    Whatever its own steps are, those here are `NoiseLevels` at its levels and times: a network does not know which
    solver it is sampled with. DDPM's own are DDIM's with eta = 1. Those of flow matching are Euler's with eta = 0.

    Parameters
    ----------
    scheduler : object
    n_steps : int
    eta : float
    n_patches : int, default=1
        Patches of an image, by which some schedulers of flow matching shift their times.

    Raises
    ------
    IncompatibleModelError
        If the scheduler has no such levels, or clips by quantiles of each image.
    """
    name, config = type(scheduler).__name__, scheduler.config
    flows = name == "FlowMatchEulerDiscreteScheduler" and not config.invert_sigmas
    prediction = config.get("prediction_type", "epsilon")
    if not flows and (
        "beta_schedule" not in config or prediction not in PREDICTIONS or config.get("thresholding", False)
    ):
        raise IncompatibleModelError(
            f"the pipeline's {name} has no stochastic step of normal noise with known deviations; pass a pipeline "
            f"whose scheduler has a beta_schedule, a prediction_type of {', '.join(PREDICTIONS)}, and no thresholding; "
            "or a FlowMatchEulerDiscreteScheduler without invert_sigmas."
        )
    most = int(config.num_train_timesteps)
    if not 2 <= n_steps <= most:
        raise InvalidParameterError(f"n_steps must be from 2 to {most}, the steps of the {name}; got {n_steps!r}.")
    return _of_flow(scheduler, n_steps, eta, n_patches) if flows else _of_betas(scheduler, n_steps, eta)


def _of_betas(scheduler: Any, n_steps: int, eta: float) -> NoiseLevels:
    """DDIM's levels: a^2 + s^2 = 1."""
    from diffusers import DDIMScheduler, DDPMScheduler

    ddim = DDIMScheduler.from_config(scheduler.config)
    ddim.set_timesteps(n_steps)
    times = ddim.timesteps.tolist()
    ends = [time - ddim.config.num_train_timesteps // n_steps for time in times]
    cumulative = ddim.alphas_cumprod.double()
    last = float(cumulative[ends[-1]] if ends[-1] >= 0 else ddim.final_alpha_cumprod)
    # Each step ends where the next begins; DDIM's do so too where n_steps divides the times of training.
    squares = [last, *cumulative[times[::-1]].tolist()]
    return NoiseLevels(
        [math.sqrt(square) for square in squares],
        [math.sqrt(1 - square) for square in squares],
        [0, *times[::-1]],
        ddim.config.prediction_type,
        eta,
        float(ddim.config.clip_sample_range) if ddim.config.clip_sample else None,
        consistent=isinstance(scheduler, DDPMScheduler),
    )


def _of_flow(scheduler: Any, n_steps: int, eta: float, n_patches: int) -> NoiseLevels:
    """Flow matching's levels: a + s = 1."""
    scheduler = type(scheduler).from_config(scheduler.config)
    shift = {}
    if scheduler.config.use_dynamic_shifting:
        few, many = scheduler.config.base_image_seq_len, scheduler.config.max_image_seq_len
        low, high = scheduler.config.base_shift, scheduler.config.max_shift
        shift["mu"] = low + (high - low) * (n_patches - few) / (many - few)
    scheduler.set_timesteps(n_steps, **shift)
    noise = scheduler.sigmas.double().tolist()[::-1]
    return NoiseLevels([1 - s for s in noise], noise, [0, *scheduler.timesteps.tolist()[::-1]], "flow", eta)
