"""``braidkit design --image``: designs that are pictures, from a pipeline of diffusers or from the pictures alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from braidkit.diffusion import DiffusionModel
    from braidkit.rewards import CLIPFeatures

# Options that say nothing about designs of other kinds.
OPTIONS = {
    "sequences": (
        *("sequence", "values", "alphabet", "length", "padding", "template", "hold", "free", "parent", "mutations"),
        *("forbidden", "sites", "max_homopolymer", "frame"),
    ),
    "pictures": ("prompts", "n_steps", "guidance_scale", "features", "resize", "skip_broken"),
    "recipes": ("fix", "bound", "real", "skip_missing"),
}
# The option that says which kind it is.
_KINDS = {
    "pictures": ("--image", "name the column of their paths by --image"),
    "recipes": ("--columns", "name the columns that were set by --columns"),
}
DEFAULT_LORA_RANK = 4


def picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of pictures, for a command."""
    options = (
        click.option(
            "--image",
            metavar="COLUMN",
            help="Column of paths of pictures, relative to TABLE's folder: the designs are then pictures.",
        ),
        click.option(
            "--prompts",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="What the pictures are to show, one prompt a line, for a pipeline that takes text.",
        ),
        click.option("--n-steps", type=click.IntRange(min=1), help="Steps of a pipeline.  [default: 50]"),
        click.option("--guidance-scale", type=float, help="Classifier-free guidance of a pipeline.  [default: 7.5]"),
        click.option(
            "--features",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="A CLIP model, whose embeddings the reward sees in place of pixels.",
        ),
        click.option("--resize", is_flag=True, help="Cut pictures of other sizes in their centre, and scale them."),
        click.option("--skip-broken", is_flag=True, help="Leave out rows whose picture is missing or broken."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_kind(ctx: click.Context, image: str | None, columns: Sequence[str]) -> None:
    """Refuse options that belong to designs of another kind, by their names."""
    if image is not None and columns:
        raise click.UsageError("--image and --columns say that designs are pictures, and recipes; give one.", ctx)
    asked = "pictures" if image is not None else "recipes" if columns else "sequences"
    of_others = {name: kind for kind, names in OPTIONS.items() if kind != asked for name in names}
    of_others |= {"lora_rank": "language models and pipelines"} if columns else {}
    of_others |= {"previous": "sequences and recipes"} if image is not None else {}
    given = [name for name in of_others if ctx.get_parameter_source(name) != ParameterSource.DEFAULT]
    if given:
        kind = of_others[given[0]]
        remedy = f"leave it out with {_KINDS[asked][0]}" if asked in _KINDS else _KINDS[kind][1]
        raise click.UsageError(f"--{given[0].replace('_', '-')} is for {kind}; {remedy}.", ctx)


def load_chain(
    pretrained: Path | None,
    prompts: Path | None,
    *,
    n_steps: int | None,
    guidance_scale: float | None,
    lora_rank: int | None,
) -> DiffusionModel | None:
    """The pretrained chain of pictures that was asked for: a pipeline of diffusers, or one that braidkit saved.

    Raises
    ------
    InvalidParameterError
        If an option of pipelines is given without one, a pipeline that takes text has no prompts, or a prompt is too
        long, naming its line.
    IncompatibleModelError
        If the chain makes other designs.
    """
    from braidkit.diffusion import DiffusionModel, PipelineDiffusion
    from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
    from braidkit.persistence import is_saved

    asked: dict[str, Any] = {"n_steps": n_steps, "guidance_scale": guidance_scale, "lora_rank": lora_rank}
    options = {name: value for name, value in asked.items() if value is not None}
    given = ["--" + name.replace("_", "-") for name in options] + ["--prompts"] * (prompts is not None)
    if pretrained is None or is_saved(pretrained):
        if given:
            raise InvalidParameterError(
                f"{given[0]} belongs to a pipeline of diffusers; leave it out, or pass one's directory as --pretrained."
            )
        chain = None if pretrained is None else DiffusionModel.from_pretrained(pretrained)
        if chain is not None and not chain.space.has_pixels:
            raise IncompatibleModelError(f"--pretrained {pretrained} makes {chain.space.designs}, not pictures.")
        return chain
    lines = {} if prompts is None else read_prompts(prompts)
    try:
        return PipelineDiffusion.from_pretrained(
            pretrained, prompts=list(lines), **({"lora_rank": DEFAULT_LORA_RANK} | options)
        )
    except InvalidParameterError as error:
        if str(error).startswith("prompts is empty"):
            raise InvalidParameterError(
                f"--pretrained {pretrained} takes text; name a file with one prompt a line by --prompts."
            ) from error
        found = re.match(r"prompts\[(\d+)\]", str(error))
        if found is None:
            raise
        line = list(lines.values())[int(found[1])]
        raise InvalidParameterError(f"line {line} of {prompts}{str(error)[found.end() :]}") from error


def load_features(directory: Path | None) -> CLIPFeatures | None:
    """The embeddings that a reward of pictures is to see, or None for pixels.

    Raises
    ------
    CheckpointError, IncompatibleModelError
        If the directory holds no CLIP model.
    """
    from braidkit.exceptions import CheckpointError, IncompatibleModelError
    from braidkit.rewards import CLIPFeatures

    if directory is None:
        return None
    try:
        return CLIPFeatures(directory)
    except (CheckpointError, IncompatibleModelError) as error:
        raise type(error)(f"--features: {error}") from error


def read_prompts(path: Path) -> dict[str, int]:
    """Prompts of a file, one a line, with the numbers of their lines; blank lines and repetitions are left out.

    Raises
    ------
    InvalidParameterError
        If the file cannot be read, or has none.
    """
    from braidkit.exceptions import InvalidParameterError

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidParameterError(
            f"--prompts {path} cannot be read ({error}); pass a text file in UTF-8 with one prompt a line."
        ) from error
    prompts: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            prompts.setdefault(line.strip(), number)
    if not prompts:
        raise InvalidParameterError(f"--prompts {path} is empty; write one prompt a line.")
    return prompts
