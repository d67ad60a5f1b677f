"""Settings of Sphinx: ``sphinx-build -W docs docs/_build``."""

import braidkit

project = "braidkit"
author = "The braidkit authors"
version = release = braidkit.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
