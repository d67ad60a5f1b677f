"""Conservative fine-tuning: the rollout, the solvers, the judge and the estimator."""

from braidkit.finetuning.adjoint_matching import AdjointMatchingSolver
from braidkit.finetuning.contracts import CheckpointSelection
from braidkit.finetuning.designer import Designer
from braidkit.finetuning.direct import DirectSolver
from braidkit.finetuning.estimator import ConservativeDiffusionFinetuner
from braidkit.finetuning.exact import ExactSolver
from braidkit.finetuning.path_tempering import PathTemperingSolver
from braidkit.finetuning.policy_gradient import PolicyGradientSolver
from braidkit.finetuning.rollout import Rollout, rollout, sample_with_kl
from braidkit.finetuning.solver import Problem, Solver
from braidkit.finetuning.tempering import TemperingSolver
from braidkit.finetuning.trajectory_balance import TrajectoryBalanceSolver

__all__ = [
    "AdjointMatchingSolver",
    "CheckpointSelection",
    "ConservativeDiffusionFinetuner",
    "Designer",
    "DirectSolver",
    "ExactSolver",
    "PathTemperingSolver",
    "PolicyGradientSolver",
    "Problem",
    "Rollout",
    "Solver",
    "TemperingSolver",
    "TrajectoryBalanceSolver",
    "rollout",
    "sample_with_kl",
]
