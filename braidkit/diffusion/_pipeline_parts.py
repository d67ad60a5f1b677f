"""The networks of a diffusers pipeline, loaded once and shared by all chains on it."""

from __future__ import annotations

import contextlib
import inspect
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from braidkit.diffusion.noise_levels import NoiseLevels, levels_of_scheduler
from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError, MissingExtraError
from braidkit.networks import Shared
from braidkit.parameters import check_choice
from braidkit.persistence import digest
from braidkit.spaces import ImageSpace
from braidkit.torch_state import seeded

INDEX = "model_index.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What each kind of pipeline needs, and may have besides.
_TEXT = {"vae", "text_encoder", "tokenizer", "scheduler"}
_TWO_TEXTS = {*_TEXT, "text_encoder_2", "tokenizer_2"}
_NEEDED = {
    "DDPMPipeline": {"unet", "scheduler"},
    "StableDiffusionPipeline": {"unet", *_TEXT},
    "StableDiffusionXLPipeline": {"unet", *_TWO_TEXTS},
    "StableDiffusion3Pipeline": {"transformer", *_TWO_TEXTS},
}
_NOT_LOADED = {"safety_checker", "feature_extractor", "image_encoder"}
# Tokens of a prompt that Stable Diffusion 3 gives to its third encoder, T5.
_T5_TOKENS = 256
# Layers that get an adapter: the projections of attention, as in diffusers; without attention, the convolutions.
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_CONVOLUTIONS = ["conv1", "conv2"]


class Text(NamedTuple):
    """What a network sees of prompts: embeddings (k, length, width) of tokens, and for some (k, width) of the whole."""

    tokens: Tensor
    pooled: Tensor | None


class PipelineParts:
    """The frozen networks of a pipeline: the denoiser, with adapters built in that do nothing, VAE and text encoders.

    Copies of what holds it hold the same one.

    Parameters
    ----------
    directory : path-like
        Directory of a pipeline of Stable Diffusion (1.x, 2.x, XL or 3) or a ``DDPMPipeline``.
    lora_rank : int
    dtype : {"float32", "bfloat16"}

    Attributes
    ----------
    fingerprint : str
        Digest of the networks' weights at this precision and of the scheduler's settings.
    network_name : {"unet", "transformer"}
        The denoiser's name in the pipeline.
    network : Shared
    vae : Shared or None
    """

    def __init__(self, directory: Path, *, lora_rank: int, dtype: str) -> None:
        try:
            with _quiet():
                self.pipe = _load(directory, DTYPES[dtype])
        except ImportError as error:
            raise MissingExtraError(
                'pipelines need diffusers, transformers and peft; install them with: pip install "braidkit[images]"'
            ) from error
        self.conditional = hasattr(self.pipe, "text_encoder")
        self.network_name = "transformer" if hasattr(self.pipe, "transformer") else "unet"
        network = getattr(self.pipe, self.network_name)
        _check_network(network, self.conditional)
        encoders = {name: part for name, part in self.pipe.components.items() if name.startswith("text_encoder")}
        parts = {self.network_name: network, "vae": getattr(self.pipe, "vae", None), **encoders}
        weights = {name: dict(part.state_dict()) for name, part in parts.items() if part is not None}
        settings = {name: value for name, value in self.pipe.scheduler.config.items() if not name.startswith("_")}
        self.fingerprint = digest(weights, repr(sorted(settings.items())))
        with seeded(0):
            _add_adapter(network, lora_rank)
        self.network = Shared(network)
        self.vae = Shared(self.pipe.vae) if self.conditional else None
        for encoder in encoders.values():
            if encoder is not None:
                encoder.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> PipelineParts:
        return self

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of the denoiser's input: channels, height and width."""
        config: Any = self.network.module.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return (config.in_channels, height, width)

    @property
    def space(self) -> ImageSpace:
        """The images that the pipeline makes."""
        channels, height, width = self.latent_shape
        if self.vae is None:
            return ImageSpace(height, width, channels)
        scale = 2 ** (len(self.pipe.vae.config.block_out_channels) - 1)
        return ImageSpace(height * scale, width * scale, self.pipe.vae.config.out_channels)

    @property
    def adapter_names(self) -> list[str]:
        """Names of the adapters' tensors in the denoiser."""
        return [name for name, _ in self.network.module.named_parameters() if ".lora_" in name]

    def levels(self, n_steps: int, eta: float) -> NoiseLevels:
        """The noise levels of the pipeline's scheduler at so many steps."""
        _, height, width = self.latent_shape
        config: Any = self.network.module.config
        patch = config.get("patch_size") or 1
        return levels_of_scheduler(self.pipe.scheduler, n_steps, eta, height * width // patch**2)

    def output(self, network: nn.Module, x: Tensor, time: float, text: Text | None) -> Tensor:
        """What the denoiser, or one with other adapters, says of latents at a time of its own."""
        dtype = next(self.network.module.parameters()).dtype
        inputs = x.to(dtype)
        if text is None:
            out = network(inputs, time)
        elif self.network_name == "transformer":
            times = torch.full((len(x),), time, device=x.device)
            out = network(inputs, text.tokens, text.pooled, times)
        else:
            added = None
            if text.pooled is not None:
                _, height, width = self.space.shape
                # SDXL is told the size before cropping, the corner of the crop, and the size that is wanted.
                sizes = x.new_tensor([height, width, 0, 0, height, width], dtype=dtype).expand(len(x), 6)
                added = {"text_embeds": text.pooled, "time_ids": sizes}
            out = network(inputs, time, encoder_hidden_states=text.tokens, added_cond_kwargs=added)
        return out.sample.to(x.dtype)

    def images(self, latents: Tensor) -> Tensor:
        """Images (n, channels, height, width) of latents, by the VAE if there is one."""
        if self.vae is None:
            return latents
        vae: Any = self.vae.on(latents.device)
        shift, scale = self._latent_units(latents)
        return vae.decode((shift + scale * latents).to(vae.dtype)).sample.to(latents.dtype)

    def latents(self, images: Tensor) -> Tensor:
        """Latents of images, by the VAE if there is one."""
        if self.vae is None:
            return images
        vae: Any = self.vae.on(images.device)
        shift, scale = self._latent_units(images)
        return (vae.encode(images.to(vae.dtype)).latent_dist.mode().to(images.dtype) - shift) / scale

    def _latent_units(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Zero and unit of the denoiser's latents, in those of the VAE."""
        config = self.pipe.vae.config
        means, deviations = config.get("latents_mean"), config.get("latents_std")
        shift = like.new_tensor(config.get("shift_factor") or 0.0 if means is None else means)
        scale = like.new_tensor(1.0 if deviations is None else deviations) / config.scaling_factor
        return shift.reshape(-1, 1, 1), scale.reshape(-1, 1, 1)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise unless each is text that one of the encoders reads to its end."""
        tokenizer = self.pipe.tokenizer
        most = tokenizer.model_max_length
        if self.pipe.components.get("text_encoder_3") is not None:
            tokenizer, most = self.pipe.tokenizer_3, _T5_TOKENS
        for i, prompt in enumerate(prompts):
            if not isinstance(prompt, str):
                raise InvalidParameterError(f"prompts[{i}] must be text; got {prompt!r}.")
            with _quiet():
                tokens = tokenizer(prompt).input_ids
            if len(tokens) > most:
                cut = tokenizer.decode(tokens[most - 1 : -1]).strip()
                raise InvalidParameterError(
                    f"prompts[{i}] has {len(tokens):,} tokens, and the text encoder takes {most}; {cut!r} would be "
                    f"cut off from {prompt!r}: shorten it."
                )

    @torch.no_grad()
    def embed(self, prompts: Sequence[str], negative_prompt: str) -> Text:
        """What the denoiser sees of texts and, last, of the negative one, on the CPU."""
        more = {f"prompt_{i}": None for i in (2, 3) if f"text_encoder_{i}" in self.pipe.components}
        with _quiet():
            tokens, _, *pooled = self.pipe.encode_prompt(
                prompt=[*prompts, negative_prompt],
                device="cpu",
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
                **more,
            )
        text = Text(tokens.detach(), pooled[0].detach() if pooled else None)
        if not negative_prompt and text.pooled is not None and self.pipe.config.get("force_zeros_for_empty_prompt"):
            text.tokens[-1] = text.pooled[-1] = 0
        return text


def is_pipeline_directory(path: Path) -> bool:
    """Whether a directory holds a pipeline of diffusers."""
    return (path / INDEX).is_file()


def resolve_dtype(dtype: str) -> str:
    """The precision of frozen weights: "auto" is bfloat16 where there is a GPU that computes with it."""
    check_choice("dtype", dtype, ("auto", *DTYPES))
    if dtype == "auto":
        return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"
    return dtype


def _load(directory: Path, dtype: torch.dtype) -> Any:
    """The pipeline in a directory, without its safety checker."""
    import diffusers

    if not (directory / INDEX).is_file():
        state = "is not a directory" if not directory.is_dir() else f"has no {INDEX}"
        raise CheckpointError(
            f"{directory} {state}; pass the directory of a pipeline of diffusers, as its save_pretrained writes it."
        )
    try:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        name = index["_class_name"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{directory / INDEX} is damaged ({error}).") from error
    given = {part for part, kind in index.items() if isinstance(kind, list) and kind[1:] != [None]}
    if name == "DDIMPipeline" and given == {"unet", "scheduler"}:
        name = "DDPMPipeline"
    if name not in _NEEDED:
        raise IncompatibleModelError(f"{directory} holds a {name}; pass one of {', '.join(_NEEDED)}.")
    if missing := _NEEDED[name] - given:
        raise IncompatibleModelError(f"{directory} has no {', '.join(sorted(missing))}; the {name} needs it.")
    kind: Any = getattr(diffusers, name)
    # Readers want to be told of each part that is missing.
    absent = {part for part, kind in index.items() if isinstance(kind, list)} - given
    options: dict[str, Any] = dict.fromkeys((absent | _NOT_LOADED) & set(inspect.signature(kind).parameters))
    if "safety_checker" in options:
        options["requires_safety_checker"] = False
    try:
        return kind.from_pretrained(directory, torch_dtype=dtype, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{directory} cannot be loaded as a {name}: {error}") from error


def _check_network(network: nn.Module, conditional: bool) -> None:
    """Raise unless it gives as many channels as it takes, from a state, a time and perhaps a text alone."""
    config: Any = network.config
    if config.in_channels != config.out_channels:
        raise IncompatibleModelError(
            f"the denoiser takes {config.in_channels} channels and gives {config.out_channels}: one that inpaints, or "
            "that learned its deviations, is no chain with known steps."
        )
    if config.get("class_embed_type") or config.get("num_class_embeds"):
        raise IncompatibleModelError("the U-Net takes the number of a class, which no chain here gives it.")
    if conditional and config.get("time_cond_proj_dim"):
        raise IncompatibleModelError("the U-Net takes its guidance scale as an input (distilled); pass another.")


def _add_adapter(unet: nn.Module, rank: int) -> None:
    """Build adapters of low rank into a network, with weights that do nothing."""
    from peft import LoraConfig, inject_adapter_in_model

    names = [name for name, _ in unet.named_modules()]
    attends = any(name.endswith(".to_q") for name in names)
    # Scaled by lora_alpha / rank = 1, which is how readers take files that say nothing of it.
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=_ATTENTION if attends else _CONVOLUTIONS)
    inject_adapter_in_model(config, unet)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and advice of diffusers and transformers."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = [
        (log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in (diffusers_logging, transformers_logging)
    ]
    for log, _, _ in before:
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for log, level, bars in before:
            log.set_verbosity(level)
            if bars:
                log.enable_progress_bar()
