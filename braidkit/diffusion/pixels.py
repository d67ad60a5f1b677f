"""PixelDiffusion: a small U-Net on pixels, trained on the images at hand."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._policies import Gaussian
from braidkit.diffusion._strata import stratified_steps
from braidkit.diffusion.noise_levels import NoiseLevels
from braidkit.exceptions import InvalidParameterError, MissingExtraError
from braidkit.parameters import check_number
from braidkit.spaces import ImageSpace, Space

# Groups of the U-Net's normalisation, and channels of a head of its attention.
_GROUPS = 8
# The U-Net halves its input until no side is longer, at least once.
_SHORTEST = 8
# Pixels whose networks run at once where no gradient is kept.
_PIXELS_AT_ONCE = 2**18


class PixelDiffusion(DiffusionModel):
    """Denoising diffusion on the pixels of images, with Gaussian policies and a U-Net of diffusers (``UNet2DModel``).

    The noise levels i = 0, ..., T are equally spaced angles phi_i: x_i = cos(phi_i) x + sin(phi_i) noise, with pixels x
    in [-1, 1]. The network predicts the velocity v = cos(phi) noise - sin(phi) x. Policy t is DDPM's posterior of
    x_{t-1} given x_t and the predicted image, which is not clipped: clipped pixels would have no gradient. The last
    level is nearly pure noise. The first keeps a noise of one level of 8 bits, so that every policy has a finite KL.

    Parameters
    ----------
    space : ImageSpace
        Of any size: the network pads sides that it cannot halve often enough, and crops its output.
    n_steps : int, default=20
        At least 2.
    n_channels : int, default=32
        Channels of the U-Net at full resolution, a multiple of 8; twice as many below.

    Raises
    ------
    MissingExtraError
        If diffusers is not installed.

    See Also
    --------
    PipelineDiffusion : Chains of published pipelines, which are trained on many images.

    References
    ----------
    Ho, Jain and Abbeel (2020), "Denoising diffusion probabilistic models", equations (6) and (7). Salimans and Ho
    (2022), "Progressive distillation", for the velocity and the angles.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit import ImageSpace, PixelDiffusion
    >>> X = np.random.default_rng(0).random(size=(20, 8, 8))
    >>> model = PixelDiffusion(ImageSpace(8, 8, 1), n_steps=3, n_channels=8).fit(X, max_iter=1, random_state=0)
    >>> model.sample(3, random_state=0).shape
    (3, 8, 8)
    """

    _reads_out_by_network: ClassVar[bool] = False
    constant_std = True
    _first_angle, _last_angle = 1 / 128, math.pi / 2 - 0.005

    def __init__(self, space: Space, *, n_steps: int = 20, n_channels: int = 32) -> None:
        super().__init__(space, n_steps=n_steps)
        ImageSpace.require(space, "PixelDiffusion")
        check_number("n_steps", n_steps, low=2, whole=True)
        check_number("n_channels", n_channels, low=_GROUPS, whole=True)
        if n_channels % _GROUPS:
            raise InvalidParameterError(f"n_channels must be a multiple of {_GROUPS}; got {n_channels!r}.")
        _unet_class()
        self.n_channels = int(n_channels)
        self.rows_at_once = max(1, min(256, _PIXELS_AT_ONCE // math.prod(space.shape[1:])))
        angles = torch.linspace(self._first_angle, self._last_angle, self.n_steps + 1, dtype=torch.float64)
        # The U-Net's features of time are made for those of DDPM, from 0 to 1,000.
        times = 1000 * angles / (math.pi / 2)
        self.levels = NoiseLevels(angles.cos().tolist(), angles.sin().tolist(), times.tolist(), "v_prediction")
        self.register_buffer("times", times.float(), persistent=False)

    times: Tensor

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.space.shape

    def initial(self, n: int) -> Gaussian:
        """Standard normal noise."""
        return Gaussian(torch.zeros(n, *self.state_shape, device=self.device), torch.ones((), device=self.device))

    def policy(self, x_t: Tensor, t: int) -> Gaussian:
        """The posterior of x_{t-1} given x_t and the predicted image (DDPM, equations 6 and 7)."""
        mean = self.levels.mean(*self._predicted(x_t, t), t)
        return Gaussian(mean, mean.new_tensor(self.levels.std(t)))

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        """The image that the predicted velocity points to."""
        return self._predicted(x_t, t)[0]

    def readout(self, x_0: Tensor) -> Tensor:
        """The state itself: it is an image with a noise of one level of 8 bits."""
        return x_0

    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """``cos(phi_t) x + sin(phi_t) noise``."""
        return self.levels.noised(x, t, generator)

    def _predicted(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The image and the noise that the network sees in states."""
        if self.network is None:
            raise self._not_trained()
        return self.levels.predicted(self.network(x_t, self.times[t]).to(x_t.dtype), x_t, t)

    def _build_network(self, n_conditions: int = 0) -> VelocityUNet:
        return VelocityUNet(self.space.shape, self.n_channels, n_conditions)

    def _loss(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity predicted at stratified levels, one from each of n equal parts."""
        assert self.network is not None
        t = stratified_steps(len(x), self.n_steps, generator)
        x_t = self.noised(x, t, generator)
        phi = (self.times[t] * (math.pi / 2000)).reshape(-1, 1, 1, 1)
        # v = cos(phi) noise - sin(phi) x, by the noise that x_t has.
        velocity = (phi.cos() * x_t - x) / phi.sin()
        return (self.network(x_t, self.times[t]) - velocity).square().mean()

    def _config(self) -> dict[str, Any]:
        return {"n_steps": self.n_steps, "n_channels": self.n_channels}


class VelocityUNet(nn.Module):
    """A ``UNet2DModel`` on images of any size, with attention where they are smallest."""

    # Where conditions are, beside the image's channels.
    channel_axis = 1

    def __init__(self, shape: tuple[int, ...], n_channels: int, n_conditions: int = 0) -> None:
        super().__init__()
        channels, *sides = shape
        halvings = max(1, math.ceil(math.log2(max(sides) / _SHORTEST)))
        self.padding = [-side % 2**halvings for side in sides]
        self.unet = _unet_class()(
            sample_size=tuple(side + more for side, more in zip(sides, self.padding, strict=True)),
            in_channels=channels + n_conditions,
            out_channels=channels,
            block_out_channels=(n_channels, *[2 * n_channels] * halvings),
            down_block_types=("DownBlock2D",) * (halvings + 1),
            up_block_types=("UpBlock2D",) * (halvings + 1),
            layers_per_block=1,
            norm_num_groups=_GROUPS,
            attention_head_dim=_GROUPS,
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Velocity (n, channels, height, width) of states at one time () or one a row (n,)."""
        below, right = self.padding
        padded = nn.functional.pad(x, (0, right, 0, below), mode="replicate")
        return self.unet(padded, time).sample[..., : x.shape[-2], : x.shape[-1]]


def _unet_class() -> Any:
    """The U-Net of diffusers."""
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise MissingExtraError(
            'a PixelDiffusion needs diffusers; install it with: pip install "braidkit[images]"'
        ) from error
    return UNet2DModel
