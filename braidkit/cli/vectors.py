"""``braidkit design --columns``: designs that are rows of settings, such as recipes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from braidkit.cli.rounds import PreviousRecipes
    from braidkit.datasets import MeasuredVectors
    from braidkit.diffusion import DiffusionModel
    from braidkit.evaluation.rounds import RoundCheck
    from braidkit.spaces import VectorSpace
    from braidkit.spaces.columns import Columns


def vector_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of tables of settings, for a command."""
    options = (
        click.option(
            "--columns",
            multiple=True,
            metavar="NAME,...|all",
            help="Columns of numbers, or of a few labels, that were set: the designs are then recipes. 'all' takes all "
            "but the measurements.",
        ),
        click.option("--fix", multiple=True, metavar="NAME=VALUE", help="Hold a column at a value in all designs."),
        click.option(
            "--bound",
            multiple=True,
            metavar="NAME=LOW:HIGH",
            help="Range of a column in designs; LOW or HIGH may be left out.  [default: the measured range]",
        ),
        click.option(
            "--real", multiple=True, metavar="NAME,...", help="Columns of whole numbers in which designs may have any."
        ),
        click.option("--skip-missing", is_flag=True, help="Leave out rows with a blank cell in a column."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def asked_vectors(
    table: Path,
    told: dict[str, Any],
    *,
    columns: Sequence[str],
    fix: Sequence[str],
    bound: Sequence[str],
    real: Sequence[str],
    skip_missing: bool,
    earlier: PreviousRecipes | None,
    objective: str | None,
) -> tuple[MeasuredVectors, dict[str, Any], RoundCheck | None]:
    """The table, in the space that the options ask for, the settings of the run that say so, and the round before."""
    from dataclasses import replace

    from braidkit.datasets import read_vectors

    measured = read_vectors(
        table,
        **told,
        columns=_split(columns),
        real=_split(real),
        on_missing="drop" if skip_missing else "error",
        on_constant="error" if earlier is None else "keep",
    )
    last_round = None
    if earlier is not None:
        measured, last_round = earlier.pooled(measured, _split(real)), earlier.check(measured, objective)
    space = shaped_space(measured.space, measured.X, fix, bound)
    doubts = (*measured.doubts, *_beyond(space, measured))
    return (
        replace(measured, space=space, doubts=doubts),
        {"columns": _names(space), "space": space.to_config()},
        last_round,
    )


def load_chain(pretrained: Path | None, space: VectorSpace) -> DiffusionModel | None:
    """The pretrained chain of settings that was asked for.

    Raises
    ------
    IncompatibleModelError
        If it makes other designs.
    """
    from braidkit.diffusion import DiffusionModel
    from braidkit.exceptions import IncompatibleModelError

    if pretrained is None:
        return None
    chain = DiffusionModel.from_pretrained(pretrained)
    made: Any = chain.space
    if not made.has_columns:
        raise IncompatibleModelError(f"--pretrained {pretrained} makes {made.designs}, not rows of numbers.")
    if not made.makes_same(space):
        own, asked = made.columns, space.columns
        if own.frame_names == asked.frame_names:
            name = next(name for name in own.frame_names if _labels(own, name) != _labels(asked, name))
            had, has = (", ".join(_labels(columns, name)) or "numbers" for columns in (own, asked))
            raise IncompatibleModelError(
                f"--pretrained {pretrained} makes {name!r} of {had}, and the table has {has}; leave out --pretrained, "
                "or pass a model of these."
            )
        raise IncompatibleModelError(
            f"--pretrained {pretrained} makes the columns {_names(made)}, and the table has {_names(space)}; "
            "name the same by --columns, in their order."
        )
    return chain


def shaped_space(space: VectorSpace, X: Any, fix: Sequence[str], bound: Sequence[str]) -> VectorSpace:
    """The space of a table, with the held columns and bounds that the options ask for.

    Parameters
    ----------
    space : VectorSpace
        With names.
    X : ndarray of shape (n, n_features)
        Columns that are the same in all rows are held.
    fix, bound : sequence of str
        Such as "temp=80" and "temp=20:90".

    Raises
    ------
    InvalidParameterError
        Naming the option and what is wrong with it.
    """
    from braidkit.datasets.vector_table import label_of
    from braidkit.exceptions import InvalidParameterError
    from braidkit.spaces import VectorSpace

    columns = space.columns
    assert columns.names is not None and space.bounds is not None
    plain = {columns.names[i]: i for i in columns.plain}
    low, high = (part.copy() for part in space.bounds)
    constant = (X[:1] == X).all(axis=0)
    bounded = dict(_pairs("--bound", bound, [*plain, *columns.one_of]))
    for name, value in bounded.items():
        if name in columns.one_of:
            raise InvalidParameterError(f"--bound {name}: it has labels; hold it at one by --fix, or drop rows.")
        ends = value.split(":")
        if len(ends) != 2 or not any(ends):
            raise InvalidParameterError(f"--bound {name}={value}: give the least and the largest, such as {name}=1:2.")
        i = plain[name]
        low[i] = _number("--bound", name, ends[0]) if ends[0].strip() else low[i]
        high[i] = _number("--bound", name, ends[1]) if ends[1].strip() else high[i]
        if not low[i] <= high[i]:
            raise InvalidParameterError(f"--bound {name}={value}: the least, {low[i]:g}, is above {high[i]:g}.")
        if constant[i] and not low[i] <= X[0, i] <= high[i]:
            raise InvalidParameterError(
                f"--bound {name}={value}: {name} is {X[0, i]:g} in all rows, which tell nothing of another value."
            )
    template = [float(value) if same else None for value, same in zip(X[0], constant, strict=True)]
    for name, value in _pairs("--fix", fix, [*plain, *columns.one_of]):
        places = list(columns.one_of.get(name, [plain.get(name, 0)]))
        labels = [columns.names[i] for i in places]
        labelled = name in columns.one_of
        value = label_of(value) if labelled else value
        if labelled and value not in labels:
            raise InvalidParameterError(f"--fix {name}={value}: its labels in the table are {', '.join(labels)}.")
        held = [float(label == value) for label in labels] if labelled else [_number("--fix", name, value)]
        if any(template[i] not in (None, v) for i, v in zip(places, held, strict=True)):
            raise InvalidParameterError(
                f"--fix {name}={value}: {name} is {X[0, places[0]]:g} in all rows, which tell nothing of another value."
            )
        if name in bounded and not low[places[0]] <= held[0] <= high[places[0]]:
            raise InvalidParameterError(
                f"--fix {name}={value} is outside of --bound {name}={bounded[name]}; leave one of them out."
            )
        for i, v in zip(places, held, strict=True):
            template[i] = v
    if None not in template:
        raise InvalidParameterError("--fix holds the last column that differs; leave one free.")
    try:
        return VectorSpace(
            space.n_features,
            space.loc,
            space.scale,
            template,
            (low, high),
            whole=[i for i in columns.whole if template[i] is None],
            one_of=columns.one_of,
            names=columns.names,
        )
    except InvalidParameterError as error:
        raise InvalidParameterError(f"--bound: {error}") from error


def _beyond(space: VectorSpace, measured: MeasuredVectors) -> list[str]:
    """One warning for each column in which no design can lie within the range of the measured rows."""
    assert space.bounds is not None and space.columns.names is not None
    texts = []
    for i in space.columns.plain:
        least, most = measured.X[:, i].min(), measured.X[:, i].max()
        held = None if space.template is None else space.template[i]
        low, high = (space.bounds[0][i], space.bounds[1][i]) if held is None else (held, held)
        if low > most or high < least:
            asked = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            texts.append(
                f"designs are to have {space.columns.names[i]} at {asked}, and it is {least:g} to {most:g} in the "
                "measured rows: predictions there are guesses. Check the number, or measure there first"
            )
    return texts


def _names(space: VectorSpace) -> str:
    """Names of a space's columns."""
    return ", ".join(space.columns.frame_names)


def _labels(columns: Columns, name: str) -> list[str]:
    """Labels of a column; none of one of numbers."""
    return columns.labels(name) if name in columns.one_of else []


def _split(texts: Sequence[str]) -> list[str]:
    """Names that commas separate."""
    return [name.strip() for text in texts for name in text.split(",")]


def _pairs(option: str, texts: Sequence[str], names: list[str]) -> list[tuple[str, str]]:
    """Columns and what an option says of each."""
    from braidkit.exceptions import InvalidParameterError

    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.rpartition("="))
        if not equals or not value:
            raise InvalidParameterError(f"{option} has {text!r}; give a column and a value, such as {names[0]}=1.")
        if name not in names:
            raise InvalidParameterError(f"{option} names {name!r}, which is none of --columns: {', '.join(names)}.")
        if name in pairs:
            raise InvalidParameterError(f"{option} names {name!r} twice; name it once.")
        pairs[name] = value
    return list(pairs.items())


def _number(option: str, name: str, text: str) -> float:
    """A finite number of an option."""
    from braidkit.datasets._numbers import is_number
    from braidkit.exceptions import InvalidParameterError

    if not is_number(text.strip()) or "," in text:
        raise InvalidParameterError(f"{option} {name}: {text!r} is no finite number; write one, such as 1.5.")
    return float(text)
