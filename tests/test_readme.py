"""What README.md shows exists: its commands, options and names."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from braidkit.cli import main

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"braidkit (?:demo|design)\b[^&\n]*$", "\n".join(b for k, b in BLOCKS if k == "bash"), re.M)


@pytest.mark.parametrize("mark", ["demo", "tests"])
def test_each_marked_command_is_one_line_that_installs_from_the_pins(mark):
    """The gate runs these two as they stand."""
    (command,) = re.findall(rf"^<!-- gate: {mark} -->\n```bash\n(.*)\n```$", README, re.MULTILINE)
    assert command.startswith("pip install -c constraints.txt -e '.[")


def test_the_commands_of_the_readme_are_parsed():
    assert {shlex.split(command)[1] for command in COMMANDS} == {"demo", "design"}
    for command in COMMANDS:
        name, *arguments = shlex.split(command)[1:]
        with click.Context(main) as parent:
            main.commands[name].make_context(name, arguments, parent=parent)


def test_python_of_the_readme_uses_public_names():
    sources = [block for language, block in BLOCKS if language == "python"]
    assert sources
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                names = {alias.name for alias in node.names}
                module = importlib.import_module(node.module)
                public = module.__all__ if node.module.startswith("braidkit") else dir(module)
                assert names <= set(public)
