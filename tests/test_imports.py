"""Who may import whom: rooms have numbers, and a room imports only rooms of lower numbers."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "braidkit"

LEVELS = {
    "exceptions": 0,
    "kernels": 1,
    "spaces": 2,
    "torch_state": 2,
    "networks": 2,
    "persistence": 2,
    "progress": 2,
    "training": 3,
    "preprocessing": 3,
    "data": 3,
    "parameters": 1,
    "rewards": 4,
    "diffusion": 4,
    "finetuning": 5,
    "oracles": 5,
    "baselines": 6,
    "datasets": 6,
    "evaluation": 7,
    "cli": 8,
    "__init__": 8,
    "__main__": 9,
}
# An independent judge: it uses no other room, and no other room uses it.
ASIDE = "theory"
OPTIONAL = {"accelerate", "diffusers", "matplotlib", "openpyxl", "peft", "PIL", "pooch", "transformers", "triton"}


class Import(NamedTuple):
    """One imported module or name, as a dotted path, and where it stands."""

    target: str
    file: Path
    line: int
    at_import: bool  # carried out when the module is imported: neither in a function nor for type checkers alone

    @property
    def where(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.target}"


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports_of(file: Path, source: str | None = None) -> Iterator[Import]:
    """Every import of a file, relative ones made absolute."""
    package = list(file.relative_to(ROOT).parent.parts)

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, file, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                yield Import(f"{module}.{alias.name}", file, node.lineno, at_import)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for child in ast.iter_child_nodes(node):
                yield from walk(child, False)
        elif is_type_checking(node):
            for child in node.body:
                yield from walk(child, False)
            for child in node.orelse:
                yield from walk(child, at_import)
        else:
            for child in ast.iter_child_nodes(node):
                yield from walk(child, at_import)

    yield from walk(ast.parse(source if source is not None else file.read_text(encoding="utf-8")), True)


def room_of_file(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def room_of_import(target: str) -> str | None:
    """Room of an imported path; None outside braidkit. A name of the package itself belongs to __init__."""
    top, *rest = target.split(".")
    if top != "braidkit":
        return None
    return rest[0] if rest and (rest[0] in LEVELS or rest[0] == ASIDE) else "__init__"


def objection(item: Import) -> str | None:
    """Why an import is against the rules of the rooms, or None."""
    here, there = room_of_file(item.file), room_of_import(item.target)
    top = item.target.partition(".")[0]
    if item.at_import and top in OPTIONAL:
        return f"{item.where}: an optional package; import it in the function that needs it"
    if here == ASIDE:
        allowed = there == ASIDE or top in {"numpy", "torch"} or top in sys.stdlib_module_names
        return None if allowed else f"{item.where}: theory uses numpy and torch only"
    if there is None or there == here or item.target == "braidkit.__version__":
        return None
    if there == ASIDE:
        return f"{item.where}: theory is for tests and benchmarks"
    if there == "kernels" and LEVELS[here] > LEVELS["finetuning"]:
        return f"{item.where}: no room above finetuning uses the kernels"
    if LEVELS[there] >= LEVELS[here]:
        return f"{item.where}: room {there} ({LEVELS[there]}) is not below {here} ({LEVELS[here]})"
    return None


# Rooms of estimators; oracles and attention stand beside them, and none may need them.
ESTIMATORS = ("rewards", "diffusion", "finetuning", "baselines")


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_room_has_a_number():
    assert {room_of_file(file) for file in FILES} <= {*LEVELS, ASIDE}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_down_only(file):
    assert [reason for item in imports_of(file) if (reason := objection(item))] == []


def test_estimators_need_neither_oracles_nor_attention():
    attention = {"AttentionBlock", "PositionalPool", "RelativeAttention", "SoftmaxPool", "attention"}
    needed = [
        item.where
        for file in FILES
        if room_of_file(file) in ESTIMATORS
        for item in imports_of(file)
        if room_of_import(item.target) == "oracles"
        or (room_of_import(item.target) == "networks" and attention & set(item.target.split(".")))
    ]
    assert needed == []


@pytest.mark.parametrize(
    ("file", "source", "reason"),
    [
        (
            "rewards/gp.py",
            "from braidkit.finetuning import rollout",
            "finetuning .5. is not below rewards .4.",
        ),
        ("rewards/gp.py", "def f():\n    import braidkit.diffusion", "diffusion .4. is not below rewards"),
        ("rewards/gp.py", "from ..diffusion import simplex", "diffusion .4. is not below rewards"),
        ("rewards/gp.py", "from .. import training", None),
        ("rewards/gp.py", "from . import _base", None),
        ("rewards/gp.py", "from braidkit import SequenceSpace", "__init__ .8. is not below rewards"),
        ("rewards/gp.py", "import braidkit", "__init__ .8. is not below rewards"),
        ("rewards/gp.py", "from braidkit.theory import bellman", "theory is for tests"),
        ("evaluation/report.py", "from braidkit.kernels import scan", "no room above finetuning"),
        ("finetuning/rollout.py", "from braidkit.kernels import scan", None),
        (
            "evaluation/report.py",
            "try:\n    import matplotlib\nexcept ImportError:\n    pass",
            "an optional package",
        ),
        ("evaluation/report.py", "class A:\n    import matplotlib.pyplot", "an optional package"),
        ("evaluation/report.py", "def f():\n    import matplotlib", None),
        ("evaluation/report.py", "if TYPE_CHECKING:\n    import matplotlib", None),
        (
            "evaluation/report.py",
            "if TYPE_CHECKING:\n    pass\nelse:\n    import matplotlib",
            "an optional package",
        ),
        ("theory/exact.py", "import scipy", "numpy and torch only"),
        ("theory/exact.py", "from braidkit.spaces import VectorSpace", "numpy and torch only"),
        ("theory/exact.py", "import math\nimport numpy as np\nfrom .bellman import solve", None),
    ],
)
def test_the_rules_see_what_they_should(file, source, reason):
    """The walker itself, on sources that break each rule and on their lawful neighbours."""
    found = [o for item in imports_of(PACKAGE / file, source) if (o := objection(item))]
    if reason is None:
        assert found == []
    else:
        assert len(found) == 1
        assert re.search(reason, found[0])


IMPORT_EACH_FIRST = """
import importlib, json, random, sys, traceback
import gpytorch, numpy, pandas, sklearn, torch  # once, and not again for every module

names = json.loads(sys.argv[1])
random.shuffle(names)
names.sort(key=lambda name: name.count("."))
failures, covered = {}, set()
for name in names:
    if name in covered:
        continue
    for loaded in [module for module in sys.modules if module.partition(".")[0] == "braidkit"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except Exception:
        failures[name] = traceback.format_exc()
    # To import a module of a package is to import the package first, which may import the module.
    covered |= {module for module in sys.modules if module.startswith(name + ".")} - {f"{name}.__main__"}
print(json.dumps(failures))
"""


def test_every_module_can_be_imported_first():
    """In random order, each as the first of the package, so that none relies on another's import."""
    parts = [file.relative_to(ROOT).with_suffix("").parts for file in FILES]
    names = [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH_FIRST, json.dumps(names)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {}
