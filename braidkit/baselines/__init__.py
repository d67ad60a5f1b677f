"""Baselines: other methods that turn measured designs into new ones, with the interface of the finetuner."""

from braidkit.baselines.ascent import RewardAscent
from braidkit.baselines.best_of_n import BestOfN
from braidkit.baselines.ddom import DDOM, bin_weights
from braidkit.baselines.guidance import ClassifierGuidance
from braidkit.baselines.smc import Particles, SMCSampler, twisted_smc
from braidkit.baselines.standard import StandardFinetuner

__all__ = [
    "DDOM",
    "BestOfN",
    "ClassifierGuidance",
    "Particles",
    "RewardAscent",
    "SMCSampler",
    "StandardFinetuner",
    "bin_weights",
    "twisted_smc",
]
