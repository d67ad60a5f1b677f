"""``braidkit design`` of sequences: the pretrained chain that was asked for."""

from __future__ import annotations

from pathlib import Path

from braidkit.diffusion import DiffusionModel, MaskedDiffusion
from braidkit.diffusion._pipeline_parts import is_pipeline_directory
from braidkit.exceptions import InvalidParameterError
from braidkit.networks import is_masked_lm_directory
from braidkit.spaces import SequenceSpace

DEFAULT_LORA_RANK = 8
# Trajectories of a language model in an update: few, since each passes it once a step.
PATHS_AT_ONCE = 64


def load_chain(pretrained: Path | None, space: SequenceSpace, lora_rank: int | None) -> DiffusionModel | None:
    """A chain that braidkit saved, or one over a masked language model of transformers.

    Raises
    ------
    InvalidParameterError
        If the directory holds a pipeline of pictures, or a rank is given without a language model.
    """
    if pretrained is not None and is_masked_lm_directory(pretrained):
        return MaskedDiffusion.from_masked_lm(pretrained, space, lora_rank=lora_rank or DEFAULT_LORA_RANK)
    if pretrained is not None and is_pipeline_directory(pretrained):
        raise InvalidParameterError(
            f"--pretrained {pretrained} is a pipeline, which makes pictures; name the column of their paths by --image."
        )
    if lora_rank is not None:
        raise InvalidParameterError(
            "--lora-rank belongs to a masked language model; leave it out, or pass one's directory as --pretrained."
        )
    return None if pretrained is None else DiffusionModel.from_pretrained(pretrained)
