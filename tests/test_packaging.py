"""The package as it is installed: version, public names, cost of the import, pins."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import braidkit

ROOT = Path(__file__).resolve().parents[1]


def literal(name):
    """Value of a constant of setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise LookupError(name)


NEEDS = {
    group: [Requirement(line) for line in lines]
    for group, lines in {"core": literal("REQUIRES"), **literal("EXTRAS")}.items()
}


def pins(file):
    """Versions of a constraints file by package."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]
    return {name: Version(version) for name, version in (line.split("==") for line in lines)}


def bound(requirement):
    """The lower bound, the only one that a requirement states."""
    (specifier,) = requirement.specifier
    return Version(specifier.version)


def python(code):
    """Standard output of a fresh interpreter that runs `code` in the checkout."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_version_is_that_of_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    base = Version(braidkit.__version__).base_version
    assert re.search(rf"^(## \[{re.escape(base)}\]|The \w+ version, {re.escape(base)}\.)", changelog, re.MULTILINE)


def test_import_loads_no_heavy_package():
    heavy = {"torch", "sklearn", "numpy", "pandas", "scipy", "gpytorch"}
    loaded = python("import braidkit, sys; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "braidkit" in loaded
    assert not heavy & set(loaded)


def test_import_takes_less_than_a_second():
    # The best of three: what is timed is the package, not the machine's other work.
    code = "import time; a = time.perf_counter(); import braidkit; print(time.perf_counter() - a)"
    assert min(float(python(code)) for _ in range(3)) < 1


@pytest.mark.parametrize("name", sorted(set(braidkit.__all__) - {"__version__"}))
def test_public_name(name):
    value = getattr(braidkit, name)
    assert value.__name__ == name
    assert value is getattr(importlib.import_module(braidkit._MODULE_OF[name]), name)
    assert value.__doc__


def test_public_names_are_listed_once_for_each_reader():
    """Type checkers read the TYPE_CHECKING block, `import *` reads __all__, __getattr__ its own table."""
    tree = ast.parse((ROOT / "braidkit" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert typed == braidkit._MODULE_OF
    assert set(braidkit.__all__) == {*typed, "__version__"}
    assert set(braidkit.__all__) <= set(dir(braidkit))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'braidkit' has no attribute 'Simplex'"):
        _ = braidkit.Simplex


@pytest.mark.parametrize("group", NEEDS)
def test_constraints_pin_every_requirement_within_its_bound(group):
    pinned = pins("constraints.txt")
    for requirement in NEEDS[group]:
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize("group", ["core", "plots", "data", "test"])
def test_lower_bounds_are_those_that_are_tested(group):
    lowest = pins("constraints-lowest.txt")
    for requirement in NEEDS[group]:
        assert str(requirement.specifier).startswith(">=")
        assert lowest[canonicalize_name(requirement.name)] == bound(requirement), requirement


@pytest.mark.parametrize("group", ["lm", "images", "gpu", "dist", "docs"])
def test_bounds_of_other_extras_are_their_pins(group):
    pinned = pins("constraints.txt")
    for requirement in NEEDS[group]:
        release = bound(requirement).release
        assert pinned[canonicalize_name(requirement.name)].release[: len(release)] == release, requirement
