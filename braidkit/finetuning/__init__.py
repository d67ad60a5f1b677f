"""Conservative fine-tuning: the rollout, the solver, the judge and the estimator."""

from braidkit.finetuning.direct import DirectSolver
from braidkit.finetuning.estimator import ConservativeDiffusionFinetuner
from braidkit.finetuning.rollout import Path, evaluate, rollout

__all__ = ["ConservativeDiffusionFinetuner", "DirectSolver", "Path", "evaluate", "rollout"]
