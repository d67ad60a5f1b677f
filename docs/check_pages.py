"""Fail unless every public name of every package has an entry in the built site."""

import importlib
import pkgutil
import sys
from pathlib import Path

from sphinx.util.inventory import InventoryFile

import braidkit


def documented(site: Path) -> set[str]:
    """Names that the site's inventory has."""
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, uri: uri)
    return {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}


def public() -> dict[str, str]:
    """Each public name of each package, by the package and the name alone, with the module that defines it."""
    names = {}
    for module in [f"braidkit.{info.name}" for info in pkgutil.iter_modules(braidkit.__path__)]:
        for name in getattr(importlib.import_module(module), "__all__", []):
            names[f"{module}.{name}"] = name
    return names


missing = sorted(set(public()) - documented(Path(__file__).parent / "_build"))
print(f"{len(public()) - len(missing)} of {len(public())} public names have a page")
if missing:
    sys.exit("no page for: " + ", ".join(missing))
