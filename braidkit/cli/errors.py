"""How commands end that cannot go on: in one line and with an exit code, not in a traceback."""

from __future__ import annotations

import re
from typing import Any

import click

from braidkit.cli.options import Command


class Refusal(click.ClickException):
    """An error of braidkit, said in one line; the exit code is that of a wrong call."""

    exit_code = 2


class Stopped(click.ClickException):
    """Ctrl-C; the exit code is that of a process that was interrupted."""

    exit_code = 130


class Group(click.Group):
    """Commands whose braidkit errors end in one line, not in a traceback."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # Our errors are also those of scikit-learn, which takes a second to load.
            from braidkit.exceptions import BraidkitError

            if isinstance(error, BraidkitError):
                raise Refusal(_of_options(str(error), ctx.invoked_subcommand)) from error
            if isinstance(error, ValueError) and "null byte" in str(error):
                raise Refusal("a path has a zero in it; no file has such a name.") from error
            if isinstance(error, OSError):
                where = f" ({error.filename})" if error.filename else ""
                raise click.ClickException(
                    f"{error.strerror or error}{where}; check that the place is there, may be written to and has "
                    "room, and give the command again."
                ) from error
            raise


def _of_options(text: str, command: str | None) -> str:
    """An error of a parameter as one of the option that sets it."""
    from braidkit.datasets._cells import NAME_IT

    recipes = " If the rows are recipes, name their columns with --columns." if command == "design" else ""
    text = text.replace(NAME_IT, f"Name the column of the sequences with --sequence.{recipes}")
    names = (
        "alpha|c|columns|device|forbidden|frame|guidance_scale|lora_rank|max_homopolymer|max_iter|mutations|n_steps|objective"
        "|parent|pretrained|real|reward|sites|target_se|target|weight"
    )
    found = re.sub(rf"^({names})(?= |=)", lambda match: "--" + match[1].replace("_", "-"), text)
    return found.replace(' or "auto"', "")  # a word that is said by leaving the option out
