"""Judge designs and choose among them: measures, tables of designs to order, comparisons, pictures, reports."""

from braidkit.evaluation.budget import BudgetedSelection
from braidkit.evaluation.calibration import CalibrationReport
from braidkit.evaluation.comparison import Comparison, compare, t_interval
from braidkit.evaluation.designs import design_table, write_designs
from braidkit.evaluation.displays import (
    AblationDisplay,
    CalibrationDisplay,
    ColumnRangesDisplay,
    DistanceDisplay,
    ImageGridDisplay,
    KmerScatterDisplay,
    ParetoDisplay,
    RewardDistributionDisplay,
    SequenceLogoDisplay,
    TrainingCurveDisplay,
)
from braidkit.evaluation.edit_distance import edit_distances, nearest
from braidkit.evaluation.html_report import report
from braidkit.evaluation.metrics import (
    discriminability,
    diversity,
    gc_content,
    gc_kolmogorov_smirnov,
    kmer_counts,
    kmer_jensen_shannon,
    kmer_pearson,
    novelty,
    shuffle_dinucleotides,
    validity_measures,
    validity_report,
)
from braidkit.evaluation.picture_designs import PictureDesigns, picture_table, write_images
from braidkit.evaluation.rounds import RoundCheck, check_round
from braidkit.evaluation.scoring import log_likelihood, score_table
from braidkit.evaluation.selection import select

__all__ = [
    "AblationDisplay",
    "BudgetedSelection",
    "CalibrationDisplay",
    "CalibrationReport",
    "ColumnRangesDisplay",
    "Comparison",
    "DistanceDisplay",
    "ImageGridDisplay",
    "KmerScatterDisplay",
    "ParetoDisplay",
    "PictureDesigns",
    "RewardDistributionDisplay",
    "RoundCheck",
    "SequenceLogoDisplay",
    "TrainingCurveDisplay",
    "check_round",
    "compare",
    "design_table",
    "discriminability",
    "diversity",
    "edit_distances",
    "gc_content",
    "gc_kolmogorov_smirnov",
    "kmer_counts",
    "kmer_jensen_shannon",
    "kmer_pearson",
    "log_likelihood",
    "nearest",
    "novelty",
    "picture_table",
    "report",
    "score_table",
    "select",
    "shuffle_dinucleotides",
    "t_interval",
    "validity_measures",
    "validity_report",
    "write_designs",
    "write_images",
]
