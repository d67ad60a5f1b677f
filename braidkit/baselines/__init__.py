"""Other roads from measured designs to new ones, behind the same face as ConservativeDiffusionFinetuner."""

from braidkit.baselines.smc import Particles, SMCSampler, twisted_smc

__all__ = ["Particles", "SMCSampler", "twisted_smc"]
