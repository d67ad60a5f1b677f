"""Read the options of ``braidkit design`` that say what is wanted of the targets."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

from braidkit.datasets._targets import parse_target
from braidkit.exceptions import InvalidParameterError


def asked_objective(targets: Sequence[str], objective: str | None, minimise: bool) -> tuple[list[str], str | None]:
    """The targets, by names that an objective may have, and the objective; None where one target is to be large.

    Raises
    ------
    InvalidParameterError
        If options contradict each other, several targets have no objective, or a target no name for one.

    Examples
    --------
    >>> asked_objective(["log2 KD"], None, minimise=True)
    (['log2_KD=log2 KD'], '-log2_KD')
    """
    if minimise and (objective is not None or len(targets) > 1):
        raise InvalidParameterError(
            "--minimise is for one --target and no --objective; write what is to be small with a minus, as in "
            "--objective 'a - b'."
        )
    if objective is None and len(targets) > 1:
        names = [parse_target(text).name for text in targets]
        raise InvalidParameterError(
            f"--target names {len(targets)} quantities ({', '.join(names)}); say by --objective what is wanted of "
            f"them, such as '{names[0]} - {names[1]}' or '{names[0]} if {names[1]} >= 1'."
        )
    if minimise:
        target = parse_target(targets[0])
        word = target.name if _is_word(target.name) else re.sub(r"\W+", "_", f"_{target.name}").strip("_") or "y"
        word = word if _is_word(word) else f"y_{word}"
        return [f"{word}={','.join(target.columns)}"], f"-{word}"
    if objective is not None:
        for text in targets:
            target = parse_target(text)
            if not _is_word(target.name):
                raise InvalidParameterError(
                    f"--target {text!r} has no name that an objective can use; give it one word, as in "
                    f"--target 'a={','.join(target.columns)}'."
                )
    return list(targets), objective


def _is_word(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and name not in ("min", "max")
