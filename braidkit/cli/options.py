"""Options of commands: their types, given once, on the command line or in a file, and recorded as they were given."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

# Options about the call itself, which a file does not decide.
_OF_THE_CALL = frozenset({"config", "overwrite", "help"})
_NOT_RECORDED = _OF_THE_CALL | {"out", "quiet"}


class Command(click.Command):
    """A command that refuses an option given twice, of which click would silently take the last.

    Parameters
    ----------
    sections : mapping of str to sequence of str
        Names of the options that the help lists under a heading of their own, by what they belong to.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]] | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.sections = {name: kind for kind, names in (sections or {}).items() for name in names}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records: dict[str | None, list[tuple[str, str]]] = {None: []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                records.setdefault(self.sections.get(param.name or ""), []).append(record)
        for kind, rows in records.items():
            with formatter.section("Options" if kind is None else f"Options of {kind}"):
                formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        order = self.make_parser(ctx).parse_args(args=list(args))[-1]
        given = Counter(param for param in order if isinstance(param, click.Option) and not param.is_flag)
        for option, times in given.items():
            if times > 1 and not option.multiple:
                raise click.UsageError(f"{option.opts[0]} is given {times} times; give it once.", ctx)
        return super().parse_args(ctx, args)


class Penalty(click.ParamType):
    """A weight of the penalty: a number, or "calibrated"."""

    name = "number|calibrated"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "calibrated":
            return "calibrated"
        try:
            return float(value)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is no number; give one, or calibrated.", param, ctx)


class Model(click.Path):
    """A directory of a model. A name of the Hugging Face hub is no path: the command downloads nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).startswith("hf:/"):
            name = str(value).removeprefix("hf:").strip("/")
            self.fail(
                f"{value} is a model of the Hugging Face hub; download it first, hf download {name} --local-dir DIR, "
                "and pass DIR.",
                param,
                ctx,
            )
        from braidkit.finetuning.saved import MODEL, PRETRAINED

        if (Path(value) / PRETRAINED).is_dir():
            self.fail(f"{value} is a run; pass one of its models, {value}/{PRETRAINED} or {value}/{MODEL}.", param, ctx)
        return super().convert(value, param, ctx)


def config_option() -> Any:
    """The option ``--config``."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_take_over,
        help="Options in a TOML file, or those of an earlier run by its run.json; the command line wins. Paths are "
        "relative to the file.",
    )


def recorded_options(ctx: click.Context, out: Path) -> dict[str, Any]:
    """The options that were given, as JSON holds them and `--config` takes them; paths relative to `out`."""
    given = {
        name: value
        for name, value in ctx.params.items()
        if name not in _NOT_RECORDED and ctx.get_parameter_source(name) != ParameterSource.DEFAULT
    }
    return {
        name: os.path.relpath(value, out) if isinstance(value, Path) else value
        for name, value in given.items()
        if value is not None
    }


def _take_over(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Make the options of a file the defaults of this command."""
    if path is None:
        return
    params = {param.name: param for param in ctx.command.params if param.name and param.name not in _OF_THE_CALL}
    options: dict[str, Any] = {}
    for key, value in _read(path).items():
        name = key.replace("-", "_")
        if name in _OF_THE_CALL:
            raise click.UsageError(f"{path} has {key!r}; give that on the command line.", ctx)
        if name not in params:
            raise click.UsageError(
                f"{path} has {key!r}, which is no option of {ctx.command_path}; its options are: "
                f"{', '.join(name.replace('_', '-') for name in params)}.",
                ctx,
            )
        options[name] = _value_of(params[name], key, value, path, ctx)
    ctx.default_map = options


def _value_of(param: click.Parameter, key: str, value: Any, path: Path, ctx: click.Context) -> Any:
    """A value of a file as the option takes it."""
    many = isinstance(param, click.Option) and param.multiple
    is_flag = isinstance(param, click.Option) and param.is_flag
    values = value if many and isinstance(value, list) else [value]
    if any(isinstance(one, (dict, list)) or isinstance(one, bool) != is_flag for one in values):
        kind = "true or false" if is_flag else "numbers or texts" if many else "a number or a text"
        raise click.UsageError(f"{path} has {key} = {value!r}; give {kind}.", ctx)
    if isinstance(param.type, click.Path):
        values = [os.path.normpath(path.parent / str(one)) for one in values]
    return values if many else values[0]


def _read(path: Path) -> dict[str, Any]:
    """The options in a TOML file, or in the record of a run."""
    import tomllib

    from braidkit.exceptions import CheckpointError, InvalidParameterError
    from braidkit.persistence import read_json

    try:
        if path.suffix == ".json":
            options = read_json(path).get("options")
            if not isinstance(options, dict):
                raise InvalidParameterError(f"{path} is no record of a run that keeps its options.")
            return options
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, CheckpointError) as error:
        if isinstance(error, InvalidParameterError):
            raise
        raise InvalidParameterError(f"--config {path} cannot be read ({error}).") from error
