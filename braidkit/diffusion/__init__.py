"""Diffusion models: chains of policies from noise to designs."""

from braidkit.diffusion._base import DiffusionModel
from braidkit.diffusion._policies import Categorical, Gaussian, Policy
from braidkit.diffusion.gaussian import GaussianDiffusion
from braidkit.diffusion.simplex import SimplexDiffusion

__all__ = ["Categorical", "DiffusionModel", "Gaussian", "GaussianDiffusion", "Policy", "SimplexDiffusion"]
