"""Conservative fine-tuning of diffusion models on offline measurements.

The public names are loaded when they are first used: ``import braidkit`` alone loads neither torch nor
scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from braidkit.datasets import fetch_utr, make_utr, offline_split, read_table
    from braidkit.diffusion import (
        GaussianDiffusion,
        MaskedDiffusion,
        PipelineDiffusion,
        PixelDiffusion,
        SimplexDiffusion,
        TabularDiffusion,
        load_ddsm_checkpoint,
    )
    from braidkit.finetuning import ConservativeDiffusionFinetuner
    from braidkit.preprocessing import DesignPipeline, SequenceEncoder
    from braidkit.rewards import BootstrapReward, GPBonusReward
    from braidkit.spaces import ImageSpace, Limits, SequenceSpace, VectorSpace

__version__ = "0.1.0"

__all__ = [
    "BootstrapReward",
    "ConservativeDiffusionFinetuner",
    "DesignPipeline",
    "GPBonusReward",
    "GaussianDiffusion",
    "ImageSpace",
    "Limits",
    "MaskedDiffusion",
    "PipelineDiffusion",
    "PixelDiffusion",
    "SequenceEncoder",
    "SequenceSpace",
    "SimplexDiffusion",
    "TabularDiffusion",
    "VectorSpace",
    "__version__",
    "fetch_utr",
    "load_ddsm_checkpoint",
    "make_utr",
    "offline_split",
    "read_table",
]

_PUBLIC = {
    "datasets": ("fetch_utr", "make_utr", "offline_split", "read_table"),
    "diffusion": (
        "GaussianDiffusion",
        "MaskedDiffusion",
        "PipelineDiffusion",
        "PixelDiffusion",
        "SimplexDiffusion",
        "TabularDiffusion",
        "load_ddsm_checkpoint",
    ),
    "finetuning": ("ConservativeDiffusionFinetuner",),
    "preprocessing": ("DesignPipeline", "SequenceEncoder"),
    "rewards": ("BootstrapReward", "GPBonusReward"),
    "spaces": ("ImageSpace", "Limits", "SequenceSpace", "VectorSpace"),
}
_MODULE_OF = {name: f"braidkit.{module}" for module, names in _PUBLIC.items() for name in names}

# Hidden from type checkers: a module's __getattr__ would make them accept every misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'braidkit' has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
