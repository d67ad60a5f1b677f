"""Pictures of data, designs and runs, in scikit-learn's Display convention: build from data, then `plot` on axes."""

from braidkit.evaluation.displays.ablation import AblationDisplay
from braidkit.evaluation.displays.calibration import CalibrationDisplay
from braidkit.evaluation.displays.distance import DistanceDisplay
from braidkit.evaluation.displays.images import ImageGridDisplay
from braidkit.evaluation.displays.kmers import KmerScatterDisplay
from braidkit.evaluation.displays.logo import SequenceLogoDisplay
from braidkit.evaluation.displays.pareto import ParetoDisplay
from braidkit.evaluation.displays.ranges import ColumnRangesDisplay
from braidkit.evaluation.displays.rewards import RewardDistributionDisplay
from braidkit.evaluation.displays.training import TrainingCurveDisplay

__all__ = [
    "AblationDisplay",
    "CalibrationDisplay",
    "ColumnRangesDisplay",
    "DistanceDisplay",
    "ImageGridDisplay",
    "KmerScatterDisplay",
    "ParetoDisplay",
    "RewardDistributionDisplay",
    "SequenceLogoDisplay",
    "TrainingCurveDisplay",
]
