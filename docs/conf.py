"""Settings of Sphinx: ``docs/build`` makes the site in docs/_build."""

import importlib.util
import os
from pathlib import Path

import matplotlib

import braidkit

matplotlib.use("agg")

project = "braidkit"
author = "The braidkit authors"
version = release = braidkit.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_click",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Pages in Markdown.
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

# A page for each public name: `__all__` of a package decides, see _templates/autosummary/module.rst.
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"
numpydoc_show_class_members = False

# MathJax comes from a package, so that mathematics needs no network.
_mathjax = Path(importlib.util.find_spec("mathjax").submodule_search_locations[0]) / "static/mathjax/es5/tex-svg.js"
html_static_path = ["_static", str(_mathjax)]
mathjax_path = "tex-svg.js"

# Measured antibodies and their language model belong to others: where they are not, that example is shown unexecuted.
_homes = [Path(os.environ.get(name, "")) for name in ("BRAIDKIT_DATA", "BRAIDKIT_MODELS")]
_has_antibodies = (_homes[0] / "antibody_her2_spr.csv.gz").is_file() and (_homes[1] / "antiberty").is_dir()

# `-D plot_gallery=0` leaves the examples unexecuted.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$" if _has_antibodies else r"^(?!.*_antibodies_).*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "abort_on_example_error": True,
    "reset_modules": ("matplotlib",),
    "min_reported_time": 1_000_000,
}

html_theme = "pydata_sphinx_theme"
html_title = "braidkit"
html_css_files = ["site.css"]
html_show_sourcelink = False
toc_object_entries_show_parents = "hide"
# Pages without pages below them need no navigation at the side.
html_sidebars = {
    page: [] for page in ("install", "quickstart", "cli", "theory", "performance", "glossary", "cite", "changes")
}
html_theme_options = {
    "header_links_before_dropdown": 5,
    "show_prev_next": True,
    "navigation_with_keys": False,
    "show_nav_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
