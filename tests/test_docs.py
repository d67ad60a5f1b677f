"""The documentation: its API pages, examples and code blocks use names that exist."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import braidkit

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
API = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
PACKAGES = [f"braidkit.{info.name}" for info in pkgutil.iter_modules(braidkit.__path__)]


def check_imports(source):
    """Every name of braidkit that is imported exists."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("braidkit"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_with_public_names_is_in_the_api_reference(package):
    """The pages of the names are generated from `__all__` of the packages that docs/api.rst lists."""
    if hasattr(importlib.import_module(package), "__all__"):
        assert re.search(rf"^   {re.escape(package)}$", API, re.MULTILINE)


def test_api_reference_names_everything_that_braidkit_itself_holds():
    listed = {path.rpartition(".")[2]: path for path in re.findall(r"^   ~(\S+)$", API, re.MULTILINE)}
    assert set(listed) == set(braidkit.__all__) - {"__version__"}
    for name, path in listed.items():
        module = importlib.import_module(path.rpartition(".")[0])
        assert name in module.__all__ and getattr(module, name) is getattr(braidkit, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_of_a_page_imports_names_that_exist(page):
    for block in re.findall(r"^( *)```python\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.M | re.S):
        indent, source = block
        check_imports("\n".join(line.removeprefix(indent) for line in source.splitlines()))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_imports_names_that_exist(example):
    check_imports(example.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_runs(example, request):
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    if "_antibodies_" in example.stem:
        homes = {"BRAIDKIT_DATA": "data_dir", "BRAIDKIT_MODELS": "models_dir"}
        environment |= {name: str(request.getfixturevalue(folder)) for name, folder in homes.items()}
    done = subprocess.run([sys.executable, example], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_install_page_lists_every_extra_and_every_requirement():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    constants = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("REQUIRES", "EXTRAS")
    }
    for extra in constants["EXTRAS"]:
        assert f"| `{extra}` |" in page
    for requirement in constants["REQUIRES"]:
        assert re.search(rf"\b{re.match(r'[a-z0-9-]+', requirement)[0]}\b", page)


def test_glossary_is_short():
    terms = re.findall(r"^\*\*(.+)\*\*$", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert 0 < len(terms) <= 15 and len(set(terms)) == len(terms)


def test_chain_reward_and_solver_of_the_contributing_guide_work_together():
    """Its three code blocks are run, and a fit with all three makes designs better."""
    names = {}
    for source in re.findall(r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S):
        exec(compile(source, "CONTRIBUTING.md", "exec"), names)
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(80, 12))]
    y = np.array([row.count("G") for row in X], dtype=float)
    chain = names["IndependentLetters"](braidkit.SequenceSpace("DNA", 12)).fit(X, max_iter=20, random_state=0)
    finetuner = braidkit.ConservativeDiffusionFinetuner(
        chain,
        alpha=0.1,
        reward=names["RidgeReward"](),
        solver=names["EliteSolver"](),
        max_iter=20,
        batch_size=64,
        learning_rate=0.05,
        random_state=0,
    ).fit(X, y)
    assert np.mean([row.count("G") for row in finetuner.sample(200, random_state=0)]) > y.mean() + 2
