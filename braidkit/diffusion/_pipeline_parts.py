"""The networks of a diffusers pipeline, loaded once and shared by all chains on it."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError, MissingExtraError
from braidkit.networks import Shared
from braidkit.parameters import check_choice
from braidkit.persistence import digest
from braidkit.spaces import ImageSpace
from braidkit.torch_state import seeded

INDEX = "model_index.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Layers that get an adapter: the projections of attention, as in diffusers; without attention, the convolutions.
_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_CONVOLUTIONS = ["conv1", "conv2"]


class PipelineParts:
    """The frozen networks of a pipeline: U-Net, with adapters built in that do nothing, VAE and text encoder.

    Copies of what holds it hold the same one.

    Parameters
    ----------
    directory : path-like
        Directory of a ``StableDiffusionPipeline`` or a ``DDPMPipeline``.
    lora_rank : int
    dtype : {"float32", "bfloat16"}

    Attributes
    ----------
    fingerprint : str
        Digest of the networks' weights at this precision and of the scheduler's settings.
    unet : Shared
    vae : Shared or None
    scheduler : object
    """

    def __init__(self, directory: Path, *, lora_rank: int, dtype: str) -> None:
        try:
            with _quiet():
                self.pipe = _load(directory, DTYPES[dtype])
        except ImportError as error:
            raise MissingExtraError(
                'pipelines need diffusers, transformers and peft; install them with: pip install "braidkit[images]"'
            ) from error
        unet, self.scheduler = self.pipe.unet, self.pipe.scheduler
        self.conditional = hasattr(self.pipe, "text_encoder")
        _check_unet(unet, self.conditional)
        parts = {name: getattr(self.pipe, name, None) for name in ("unet", "vae", "text_encoder")}
        weights = {name: dict(part.state_dict()) for name, part in parts.items() if part is not None}
        settings = {name: value for name, value in self.scheduler.config.items() if not name.startswith("_")}
        self.fingerprint = digest(weights, repr(sorted(settings.items())))
        with seeded(0):
            _add_adapter(unet, lora_rank)
        self.unet = Shared(unet)
        self.vae = Shared(self.pipe.vae) if self.conditional else None
        if self.conditional:
            self.pipe.text_encoder.eval().requires_grad_(False)

    def __deepcopy__(self, memo: dict[int, Any]) -> PipelineParts:
        return self

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of the U-Net's input: channels, height and width."""
        size = self.pipe.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return (self.pipe.unet.config.in_channels, height, width)

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
        """Names of the adapters' tensors in the U-Net."""
        return [name for name, _ in self.unet.module.named_parameters() if ".lora_" in name]

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise unless each is text that the encoder reads to its end."""
        tokenizer = self.pipe.tokenizer
        for i, prompt in enumerate(prompts):
            if not isinstance(prompt, str):
                raise InvalidParameterError(f"prompts[{i}] must be text; got {prompt!r}.")
            with _quiet():
                tokens = tokenizer(prompt).input_ids
            most = tokenizer.model_max_length
            if len(tokens) > most:
                cut = tokenizer.decode(tokens[most - 1 : -1]).strip()
                raise InvalidParameterError(
                    f"prompts[{i}] has {len(tokens):,} tokens, and the text encoder takes {most}; {cut!r} would be "
                    f"cut off from {prompt!r}: shorten it."
                )

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings (k, length, width) of texts, on the CPU."""
        with _quiet():
            return self.pipe.encode_prompt(list(prompts), "cpu", 1, False)[0].detach()


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
    from diffusers import DDPMPipeline, StableDiffusionPipeline

    if not (directory / INDEX).is_file():
        state = "is not a directory" if not directory.is_dir() else f"has no {INDEX}"
        raise CheckpointError(
            f"{directory} {state}; pass the directory of a pipeline of diffusers, as its save_pretrained writes it."
        )
    try:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        name = index["_class_name"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{directory / INDEX} is damaged ({error}).") from error
    given = {part for part, kind in index.items() if isinstance(kind, list) and kind[1:] != [None]}
    kind: Any
    options: dict[str, Any] = {}
    if name == "DDPMPipeline" or (name == "DDIMPipeline" and given == {"unet", "scheduler"}):
        kind, needed = DDPMPipeline, {"unet", "scheduler"}
    elif name == "StableDiffusionPipeline":
        kind, needed = StableDiffusionPipeline, {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}
        options = dict.fromkeys(["safety_checker", "feature_extractor", "image_encoder"])
        options["requires_safety_checker"] = False
    else:
        raise IncompatibleModelError(
            f"{directory} holds a {name}; pass a StableDiffusionPipeline (1.x or 2.x) or a DDPMPipeline."
        )
    if needed - given:
        raise IncompatibleModelError(f"{directory} has no {', '.join(sorted(needed - given))}; the {name} needs it.")
    try:
        return kind.from_pretrained(directory, torch_dtype=dtype, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{directory} cannot be loaded as a {name}: {error}") from error


def _check_unet(unet: nn.Module, conditional: bool) -> None:
    """Raise unless the U-Net gives as many channels as it takes, from a state, a time and perhaps a text alone."""
    config: Any = unet.config
    if config.in_channels != config.out_channels:
        raise IncompatibleModelError(
            f"the U-Net takes {config.in_channels} channels and gives {config.out_channels}: one that inpaints, or "
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
