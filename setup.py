"""Package metadata; settings of the tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# The lower bounds are the versions that constraints-lowest.txt pins and .ci/run-lowest tests.
REQUIRES = [
    "torch>=2.13",
    "numpy>=2.0",
    "scipy>=1.13",
    "scikit-learn>=1.6",
    "gpytorch>=1.14",
    "jinja2>=3.1.5",
    "joblib>=1.4",
    "pandas>=2.2.2",
    "rapidfuzz>=3.10",
    "safetensors>=0.8",
    "click>=8.4.2",
    "tqdm>=4.66.3",
]

# The bounds of lm, images, gpu, dist and docs, and of distributed, are the versions that constraints.txt pins.
EXTRAS = {
    "plots": ["matplotlib>=3.9"],
    "lm": ["transformers>=5.23", "peft>=0.21.2"],
    "images": ["diffusers>=0.42", "transformers>=5.23", "peft>=0.21.2", "pillow>=13.0"],
    "data": ["pooch>=1.8.2"],
    "excel": ["openpyxl>=3.1.5"],
    "gpu": ["triton>=3.7.1; platform_system == 'Linux'"],
    "dist": ["accelerate>=1.15"],
    "test": [
        "pytest>=8.3.2",
        "pytest-xdist>=3.6.1",
        "hypothesis>=6.112",
        "openpyxl>=3.1.5",
        "matplotlib>=3.9",
        "pooch>=1.8.2",
        "accelerate>=1.15",
        "distributed>=2026.8",
        "diffusers>=0.42.1",
        "transformers>=5.23.0",
        "peft>=0.21.2",
        "triton>=3.7.1; platform_system == 'Linux'",
    ],
    "docs": [
        "sphinx>=9.0",
        "pydata-sphinx-theme>=0.24",
        "numpydoc>=1.11",
        "myst-parser>=5.2",
        "sphinx-gallery>=0.22",
        "sphinx-click>=6.2",
        "django-static-mathjax>=3.2",  # the files of MathJax alone; Django is not needed
        "matplotlib>=3.11",
    ],
}


def version() -> str:
    """Read `__version__` without importing the package."""
    source = (ROOT / "braidkit" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    if match is None:
        raise RuntimeError('braidkit/__init__.py must define __version__ = "..." on one line.')
    return match.group(1)


setup(
    name="braidkit",
    version=version(),
    description="Designs from measurements: conservative fine-tuning of diffusion models on offline data",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The braidkit authors",
    license="MIT",
    keywords="diffusion models, offline optimisation, sequence design, scikit-learn",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["braidkit", "braidkit.*"]),
    package_data={"braidkit": ["py.typed", "evaluation/templates/*.html"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["braidkit = braidkit.cli:main"]},
    zip_safe=False,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
        "Typing :: Typed",
    ],
)
