"""Diffusion models: chains of policies from noise to designs."""

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._policies import Bridge, Categorical, Fixed, Gaussian, Policy, Sticks
from braidkit.diffusion._unmasking import Unmasking
from braidkit.diffusion.checkpoints import load_ddsm_checkpoint
from braidkit.diffusion.conditional import fit_guided
from braidkit.diffusion.context import Choice, Conditioned, split_context
from braidkit.diffusion.enumerated import EnumeratedDiffusion
from braidkit.diffusion.gaussian import GaussianDiffusion
from braidkit.diffusion.guided import GuidedDiffusion, MeasurementGuide
from braidkit.diffusion.guided_network import GuidedNetwork
from braidkit.diffusion.markov import MarkovLaw
from braidkit.diffusion.masked import MaskedDiffusion
from braidkit.diffusion.masked_lm import MaskedLMDiffusion
from braidkit.diffusion.mixture import MixtureLaw
from braidkit.diffusion.pipeline import PipelineDiffusion
from braidkit.diffusion.pixels import PixelDiffusion
from braidkit.diffusion.simplex import SimplexDiffusion
from braidkit.diffusion.tabular import TabularDiffusion
from braidkit.diffusion.walk import last_state, sample_path, walk

__all__ = [
    "Bridge",
    "Categorical",
    "Choice",
    "Conditioned",
    "DiffusionModel",
    "EnumeratedDiffusion",
    "Fixed",
    "Gaussian",
    "GaussianDiffusion",
    "GuidedDiffusion",
    "GuidedNetwork",
    "MarkovLaw",
    "MaskedDiffusion",
    "MaskedLMDiffusion",
    "MeasurementGuide",
    "MixtureLaw",
    "PipelineDiffusion",
    "PixelDiffusion",
    "Policy",
    "SimplexDiffusion",
    "Sticks",
    "TabularDiffusion",
    "Unmasking",
    "fit_guided",
    "last_state",
    "load_ddsm_checkpoint",
    "sample_path",
    "split_context",
    "walk",
]
