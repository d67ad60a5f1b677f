"""Conservative rewards: regressors with a lower bound that fine-tuning can trust and differentiate."""

from braidkit.rewards.black_box import BlackBoxReward
from braidkit.rewards.bootstrap import BootstrapReward
from braidkit.rewards.calibration import lower_coverage
from braidkit.rewards.clip import CLIPFeatures
from braidkit.rewards.gp_bonus import GPBonusReward
from braidkit.rewards.masked_lm import MaskedLMFeatures
from braidkit.rewards.objective_reward import ObjectiveReward

__all__ = [
    "BlackBoxReward",
    "BootstrapReward",
    "CLIPFeatures",
    "GPBonusReward",
    "MaskedLMFeatures",
    "ObjectiveReward",
    "lower_coverage",
]
