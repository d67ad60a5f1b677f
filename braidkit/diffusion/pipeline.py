"""Pipelines of diffusers as pretrained chains, fine-tuned by adapters of low rank."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from braidkit import persistence
from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._pipeline_parts import INDEX, PipelineParts, Text, resolve_dtype
from braidkit.diffusion._policies import Fixed, Gaussian, Policy
from braidkit.diffusion.context import Choice, Conditioned, split_context
from braidkit.diffusion.precision import at_precision
from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError
from braidkit.networks import Adapter
from braidkit.parameters import as_generator, check_number
from braidkit.persistence import read_path
from braidkit.spaces import Space
from braidkit.torch_state import ordinary_torch

# Numbers of latents whose networks run at once where no gradient is kept: 8 pictures of Stable Diffusion 1.5.
_ENTRIES_AT_ONCE = 2**17


class PipelineDiffusion(DiffusionModel):
    """A Stable Diffusion or DDPM pipeline as a chain of normal steps; load one with `from_pretrained`.

    These are pipelines of Stable Diffusion 1.x, 2.x and XL, whose denoiser is a U-Net, of Stable Diffusion 3, whose
    denoiser is a transformer trained by flow matching, and of U-Nets without text. The state is the latents, and beside
    them the number of the trajectory's prompt. All copies share the denoiser's frozen weights, the VAE and the text
    encoders. Fine-tuning changes only LoRA matrices of the attention projections. With matrices that are zero the chain
    is the pretrained one. Steps are DDIM's at the levels of the pipeline's scheduler; for flow matching they are normal
    steps with the same marginals as Euler's. Where the last step has no noise, as in flow matching, it belongs to the
    readout and is done by the pretrained network, as is the VAE's decoding.

    Parameters
    ----------
    space : ImageSpace, optional
        Space of the pipeline's images.
    base : path-like
        Directory of the pipeline.
    fingerprint : str, optional
        Fingerprint that the pipeline's weights must have.
    prompts, negative_prompt, n_steps, guidance_scale, eta, lora_rank, dtype
        See `from_pretrained`.

    Attributes
    ----------
    prompts : tuple of str
        Each trajectory has one of them, all as likely.
    """

    constant_std = True
    # Its images are decoded as a whole: pixels of others written into them would leave a seam.
    holds_constants: ClassVar[bool] = False
    # The readout is by the shared networks, whatever was fine-tuned.
    _reads_out_by_network: ClassVar[bool] = False

    embeddings: Tensor
    pooled: Tensor | None

    def __init__(
        self,
        space: Space | None = None,
        *,
        base: str | os.PathLike[str],
        fingerprint: str | None = None,
        prompts: Sequence[str] = (),
        negative_prompt: str = "",
        n_steps: int = 50,
        guidance_scale: float = 7.5,
        eta: float = 1.0,
        lora_rank: int = 4,
        dtype: str = "auto",
    ) -> None:
        check_number("n_steps", n_steps, low=1, whole=True)
        check_number("lora_rank", lora_rank, low=1, whole=True)
        check_number("guidance_scale", guidance_scale, low=0)
        if isinstance(prompts, str):
            raise InvalidParameterError(f"prompts must be a list of texts; got {prompts!r} alone: pass [{prompts!r}].")
        dtype = resolve_dtype(dtype)
        folder = read_path("base", base).resolve()
        parts = PipelineParts(folder, lora_rank=int(lora_rank), dtype=dtype)
        if fingerprint not in (None, parts.fingerprint):
            raise CheckpointError(
                f"the pipeline in {folder} is not the one that this adapter was trained on: its weights have the "
                f"fingerprint {parts.fingerprint}, and not {fingerprint}; pass base=, the directory of that one."
            )
        levels = parts.levels(int(n_steps), eta)
        # The chain's step t is the step t + skipped of the levels.
        skipped = int(levels.last_is_noiseless)
        super().__init__(parts.space, n_steps=levels.n_steps - skipped)
        if space is not None and not space.makes_same(self.space):
            raise IncompatibleModelError(f"the pipeline in {folder} makes images of {self.space}, not of {space}.")
        self.base, self.parts, self.levels, self._skipped = folder, parts, levels, skipped
        self.guidance_scale = float(guidance_scale)
        self.negative_prompt = negative_prompt
        self.lora_rank, self.dtype = int(lora_rank), dtype
        self.kind = "uint8"
        self.rows_at_once = max(1, min(256, _ENTRIES_AT_ONCE // math.prod(parts.latent_shape)))
        self._set_prompts(prompts)
        self._deviations = [levels.std(t + skipped) if t else 0.0 for t in range(self.n_steps + 1)]

    def _set_prompts(self, prompts: Sequence[str]) -> None:
        """Take on prompts, and embed them and, last, the negative one."""
        self.prompts = tuple(prompts)
        if not self.parts.conditional:
            if prompts:
                raise InvalidParameterError("the pipeline takes no text; leave out prompts.")
            return
        if not prompts:
            raise InvalidParameterError('prompts is empty; pass the texts of the images wanted: prompts=["a cat"].')
        self.parts.check_prompts([*prompts, self.negative_prompt])
        text = self.parts.embed(prompts, self.negative_prompt)
        self.register_buffer("embeddings", text.tokens.to(self.device), persistent=False)
        pooled = None if text.pooled is None else text.pooled.to(self.device)
        self.register_buffer("pooled", pooled, persistent=False)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | os.PathLike[str],
        *,
        base: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> PipelineDiffusion:
        """Load a pipeline of diffusers as a pretrained chain, or an adapter that `save_pretrained` wrote.

        Parameters
        ----------
        directory : path-like
            Directory of a pipeline (``model_index.json``) or of an adapter. Nothing is downloaded.
        base : path-like, optional
            For an adapter: where its pipeline is now.
        **settings
            For a pipeline:

            - ``prompts``, a list of str: each trajectory draws one of them. Leave it out for pipelines without text.
            - ``negative_prompt``, a str, by default ``""``.
            - ``n_steps``, an int, by default 50: calls of the denoiser.
            - ``guidance_scale``, a float, by default 7.5: classifier-free guidance, as diffusers counts it. There is
              none up to 1.
            - ``eta``, a float, by default 1.0: noise of the steps; 1 is that of DDPM. It must be above 0, because the
              KL of a step without noise is infinite.
            - ``lora_rank``, an int, by default 4: rank of the matrices that fine-tuning changes.
            - ``dtype``, "auto", "float32" or "bfloat16", by default "auto": the type of the frozen weights. "auto" is
              bfloat16 on a GPU that supports it. States, adapters and the KL are float32.

        Returns
        -------
        chain : PipelineDiffusion
            Frozen.

        Raises
        ------
        CheckpointError
            If the directory cannot be read, or an adapter's pipeline is not what it was trained on.
        IncompatibleModelError
            If the pipeline is of a kind that makes no chain.
        InvalidParameterError
            If a setting is out of range, or a prompt is no text or too long for the text encoders.
        """
        folder = Path(directory)
        if (folder / persistence.CONFIG).is_file() and not (folder / INDEX).is_file():
            if settings:
                raise InvalidParameterError(
                    f"{folder} holds an adapter, which has its own {', '.join(settings)}; pass base= alone."
                )
            config, tensors = persistence.load(folder)
            if config.get("class") != cls._saved_name():
                raise CheckpointError(f"{folder} holds a {config.get('class')!r}, not a {cls.__name__}.")
            if base is not None:
                config["arguments"]["base"] = base
            model = DiffusionModel.from_config(config)
            model._load_tensors(tensors, str(folder))
        else:
            if base is not None:
                raise InvalidParameterError(f"base is for adapters; {folder} holds no adapter.")
            model = cls(base=folder, **settings)
            model.network = model._build_network()
        assert isinstance(model, cls)
        model.freeze()
        return model

    @property
    def state_shape(self) -> tuple[int, ...]:
        shape = self.parts.latent_shape
        return (math.prod(shape) + 1,) if self.parts.conditional else shape

    def initial(self, n: int) -> Policy:
        """Standard normal latents, and one of the prompts."""
        law = Gaussian(torch.zeros(n, *self.parts.latent_shape, device=self.device), torch.ones((), device=self.device))
        if not self.parts.conditional:
            return law
        numbers = torch.arange(float(len(self.prompts)), device=self.device)[:, None]
        return Conditioned(law, Choice(numbers), self.parts.latent_shape)

    def policy(self, x_t: Tensor, t: int) -> Policy:
        """The step at the guided prediction of the denoiser, with the adapter."""
        if self.network is None:
            raise self._not_trained()
        latents, prompt = self._split(x_t)
        level = t + self._skipped
        mean = self.levels.mean(*self._predicted(self.network, latents, prompt, level), level)
        law = Gaussian(mean, mean.new_tensor(self._deviations[t]))
        return law if prompt is None else Conditioned(law, Fixed(prompt), self.parts.latent_shape)

    def readout(self, x_0: Tensor) -> Tensor:
        """The images of last states, not yet rounded to 8 bits."""
        latents, prompt = self._split(x_0)
        if self._skipped:
            pretrained = self.parts.network.on(x_0.device)
            latents = self.levels.mean(*self._predicted(pretrained, latents, prompt, 1), 1)
        return self.parts.images(latents)

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        """The images of the predicted latents."""
        if self.network is None:
            raise self._not_trained()
        return self.parts.images(self._predicted(self.network, *self._split(x_t), t + self._skipped)[0])

    def as_points(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return self.parts.images(self._split(x_t)[0])

    def noised(self, x: Tensor, t: int | Tensor, generator: torch.Generator) -> Tensor:
        """Noisy latents of images, with prompts drawn at random."""
        latents = self.levels.noised(self.parts.latents(x), t + self._skipped, generator)
        if not self.parts.conditional:
            return latents
        prompt = torch.randint(len(self.prompts), (len(x), 1), generator=generator, device=x.device)
        return torch.cat([latents.flatten(1), prompt.to(latents.dtype)], dim=1)

    def _split(self, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents, and the numbers of the prompts, of states."""
        return split_context(x_t, self.parts.latent_shape) if self.parts.conditional else (x_t, None)

    def _predicted(
        self, network: nn.Module, latents: Tensor, prompt: Tensor | None, level: int
    ) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that a denoiser sees in latents at a level."""
        x, text, guided = latents, None, prompt is not None and self.guidance_scale > 1
        if prompt is not None:
            numbers = prompt[:, 0].long()
            if guided:
                # The negative prompt is the last one.
                x, numbers = torch.cat([x, x]), torch.cat([torch.full_like(numbers, -1), numbers])
            text = Text(self.embeddings[numbers], None if self.pooled is None else self.pooled[numbers])
        output = self.parts.output(network, x, self.levels.times[level], text)
        if guided:
            without, given = output.chunk(2)
            output = without + self.guidance_scale * (given - without)
        return self.levels.predicted(output, latents, level)

    @ordinary_torch()
    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | torch.Generator | None = None,
        batch_size: int = 256,
        precision: str = "float32",
        *,
        prompts: Sequence[str] | None = None,
    ) -> Any:
        """Draw images.

        Parameters
        ----------
        n_samples, random_state, batch_size, precision
            As in `DiffusionModel.sample`; no more than `rows_at_once` are made at a time.
        prompts : list of str, optional
            One for each image, or one for all; also texts that the chain was not loaded with. By default each image's
            is drawn, see `drawn_prompts`.

        Returns
        -------
        images : ndarray of shape (n_samples, height, width[, channels])
        """
        if prompts is None:
            return super().sample(n_samples, random_state, batch_size, precision)
        if isinstance(prompts, str) or len(prompts) not in (1, n_samples):
            raise InvalidParameterError(
                f"prompts must be a list of {n_samples} texts, one for each image, or of one; got {prompts!r}."
            )
        self.check_trained()
        chain = self._view()
        chain._set_prompts(list(dict.fromkeys(prompts)))
        asked, generator = list(prompts) * (n_samples // len(prompts)), as_generator(random_state)
        chain_in = at_precision(chain, precision)
        at_once = min(batch_size, self.rows_at_once)
        points = [
            chain_in.sample_points(chain.noise_of(asked[start : start + at_once], generator))
            for start in range(0, n_samples, at_once)
        ]
        return self.space.decode(torch.cat(points), self.kind)

    def noise_of(self, prompts: Sequence[str], generator: torch.Generator) -> Tensor:
        """The noise of trajectories of these prompts, which are the chain's own; see `draw_noise`."""
        noise = self.draw_noise(len(prompts), generator)
        numbers = torch.tensor([self.prompts.index(prompt) for prompt in prompts])
        # The noise in the middle of those for which `Choice` takes this prompt.
        noise[:, 0, -1] = torch.special.ndtri((numbers + 0.5) / len(self.prompts))
        return noise

    def prompts_of(self, noise: Tensor) -> list[str]:
        """The prompts of the trajectories that noise makes."""
        numbers = self.initial(len(noise)).rsample(noise[:, 0].to(self.device))[:, -1].long().tolist()
        return [self.prompts[number] for number in numbers]

    def drawn_prompts(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> list[str]:
        """The prompts of the images that `sample` draws with the same arguments."""
        generator = as_generator(random_state)
        prompts: list[str] = []
        for start in range(0, n_samples, self.rows_at_once):
            prompts += self.prompts_of(self.draw_noise(min(self.rows_at_once, n_samples - start), generator))
        return prompts

    def _build_network(self, n_conditions: int = 0) -> Adapter:
        if n_conditions:
            raise IncompatibleModelError("a pipeline of diffusers takes no conditions besides its prompts.")
        return Adapter(self.parts.network, self.parts.adapter_names)

    def _saved_tensors(self) -> dict[str, Tensor]:
        """The adapter's tensors by their names in diffusers' files of LoRA weights."""
        return {self._name_in_diffusers(name): tensor for name, tensor in self.trainable.state_dict().items()}

    def _load_tensors(self, tensors: dict[str, Tensor], source: str) -> None:
        names = {self._name_in_diffusers(name): name for name in self.trainable.state_dict()}
        weights = {names.get(name, name): tensor for name, tensor in tensors.items()}
        persistence.load_weights(self.trainable, weights, source)

    def digest_parts(self) -> list[Any]:
        """Settings, the adapter, and the fingerprint of the pipeline in place of its weights and of its directory."""
        config = self.to_config()
        del config["arguments"]["base"]
        return [[json.dumps(config)], *self.trainable.state_dict().values()]

    def _config(self) -> dict[str, Any]:
        return {
            "base": str(self.base),
            "fingerprint": self.parts.fingerprint,
            "prompts": list(self.prompts),
            "negative_prompt": self.negative_prompt,
            "n_steps": self.levels.n_steps,
            "guidance_scale": self.guidance_scale,
            "eta": self.levels.eta,
            "lora_rank": self.lora_rank,
            "dtype": self.dtype,
        }

    def _name_in_diffusers(self, name: str) -> str:
        """``own.a/b/lora_A/default/weight`` as ``unet.a.b.lora_A.weight``."""
        path = name.removeprefix("own.").replace("/", ".").replace(".default.", ".")
        return f"{self.parts.network_name}.{path}"
