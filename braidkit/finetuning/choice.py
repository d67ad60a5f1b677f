"""Choose the checkpoint to keep: by the objective, with the judge's right to reject, or by true measurements."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.contracts import Judge
from braidkit.finetuning.judge import N_DIRECTIONS
from braidkit.finetuning.measurement import Evaluation
from braidkit.finetuning.oracle_rounds import OracleRounds

# Share of runs with equal checkpoints in which one is wrongly found to be significantly worse than another.
FALSE_ALARM_RATE = 0.05
# Deviations of y by which the judge's mean may fall on a path that only goes further from the data. The judge's error
# is often larger, but the rest of such a path is not worth the risk: with 84,000 5'UTRs the judge fell by 0.25
# deviations while a published model of the same assay saw no more improvement.
LARGEST_DECLINE = 0.1
# Deviations of y by which the judge's posterior may be wrong about an average of designs. Its prior has about 1, so
# more is an extrapolation, beyond all that was measured.
LARGEST_ERROR = 1.0


def sure_deviations(n_evaluations: int, n_freedom: float) -> float:
    """Significance limit, in standard deviations, for the difference between two checkpoints.

    Among `n_evaluations` equal checkpoints, no two differ by more than this in 95 % of runs. The best-judged checkpoint
    is picked for being high, so the limit counts all ordered pairs (Bonferroni). It uses the quantile of Student's t,
    because the deviations are estimates themselves.
    """
    n_pairs = max(2, n_evaluations * (n_evaluations - 1))
    return float(student.isf(FALSE_ALARM_RATE / n_pairs, n_freedom))


class Verdict(NamedTuple):
    """Is a checkpoint the best so far, is it significantly worse than another, and its figures for the history."""

    is_best: bool
    is_worse: bool
    figures: dict[str, float]


class Choice(abc.ABC):
    """Base of the rules that choose a checkpoint; each evaluation is seen once."""

    column: ClassVar[str]  # column of the history in which a later checkpoint is worse

    @abc.abstractmethod
    def __call__(self, seen: Evaluation) -> Verdict:
        """Judge an evaluation by those before it."""

    def doubt(self) -> tuple[float, float] | None:
        """By how much the judge finds the kept designs better than the pretrained model's, and its error, if that is
        too large to believe it.
        """
        return None

    @abc.abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The state to save: plain values, and tensors."""

    @abc.abstractmethod
    def load_state(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""


class HighestObjective(Choice):
    """Keep the checkpoint with the highest objective (6), unless the judge finds its designs significantly worse.

    The judge compares with the checkpoint that it rates highest so far. A judge trained on few rows cannot rank
    checkpoints, but it can detect a clear decline. If a checkpoint that the judge rates higher makes the current best
    look significantly worse, it replaces it.

    Parameters
    ----------
    judge : Judge
        A `CalibratedJudge`, or one whose standard deviations were estimated in the same way.
    n_evaluations : int
        Evaluations in the run. With more of them a difference must be larger to be significant.
    sure : float, optional
        Standard deviations that are significant, instead, for solvers of which each update goes further from the data:
        after a checkpoint that is worse, none is kept.
    largest_decline : float, default=0.1
        With `sure`, a decline by so many of y's deviations is worse in any case; infinite for a judge that knows too
        little (`knows_enough`).
    """

    column: ClassVar[str] = "judge"

    def __init__(
        self,
        judge: Judge,
        n_evaluations: int,
        sure: float | None = None,
        *,
        largest_decline: float = LARGEST_DECLINE,
    ) -> None:
        self.judge = judge
        self.sure = sure_deviations(n_evaluations, N_DIRECTIONS) if sure is None else sure
        self.largest_decline = largest_decline
        self._ends_at_worse, self._ended = sure is not None, False
        self._best_objective = self._best_judged = -math.inf
        # Designs of the pretrained model ("first"), of the checkpoint to keep ("best"), and of the one that the judge
        # rates highest ("favourite").
        self._designs: dict[str, Tensor] = {}

    def __call__(self, seen: Evaluation) -> Verdict:
        if not math.isfinite(seen.objective + seen.judged):
            if self._designs:
                return Verdict(False, True, {})
            raise InvalidParameterError(
                f"designs of the pretrained model have the objective {seen.objective} and, by the judge, "
                f"{seen.judged}; pass a reward that is finite for all designs of the space."
            )
        self._designs.setdefault("first", seen.designs)
        if seen.judged > self._best_judged:
            self._best_judged, self._designs["favourite"] = seen.judged, seen.designs
        is_worse = self._is_worse(seen.designs)
        self._ended = self._ended or (is_worse and self._ends_at_worse)
        if self._ended:
            return Verdict(False, is_worse, {})
        is_best = not is_worse and (seen.objective > self._best_objective or self._is_worse(self._designs["best"]))
        if is_best:
            self._best_objective, self._designs["best"] = seen.objective, seen.designs
        return Verdict(is_best, is_worse, {})

    def _is_worse(self, designs: Tensor) -> bool:
        """Whether the judge finds designs significantly worse than those that it rates highest."""
        if designs is self._designs["favourite"]:
            return False
        difference, error = self.judge.mean_difference(designs, self._designs["favourite"])
        least = self.sure * error
        return difference < -(min(least, self.largest_decline) if self._ends_at_worse else least)

    def doubt(self) -> tuple[float, float] | None:
        first, best = self._designs["first"], self._designs["best"]
        if best is first:
            return None
        difference, error = self.judge.posterior_difference(best, first)
        return (difference, error) if error > LARGEST_ERROR else None

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        remembered = {"best_objective": self._best_objective, "best_judged": self._best_judged, "ended": self._ended}
        return remembered, dict(self._designs)

    def load_state(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._best_objective, self._best_judged = values["best_objective"], values["best_judged"]
        self._ended = values["ended"]
        self._designs = dict(tensors)


class HighestMeasured(Choice):
    """Keep the checkpoint with the highest mean of true measurements, the column "oracle" of the history.

    Parameters
    ----------
    rounds : OracleRounds
    n_evaluations : int
    """

    column: ClassVar[str] = "oracle"

    def __init__(self, rounds: OracleRounds, n_evaluations: int) -> None:
        self.rounds = rounds
        self.n_evaluations = n_evaluations
        self._best = torch.empty(0, dtype=torch.float64)  # rewards of the best checkpoint's designs

    def __call__(self, seen: Evaluation) -> Verdict:
        rewards = torch.as_tensor(self.rounds.ask(seen.n_done, seen.designs), dtype=torch.float64)
        mean, n = rewards.mean().item(), len(rewards)
        is_best = len(self._best) == 0 or mean > self._best.mean().item()
        if is_best:
            self._best = rewards
        # Row i of both checkpoints was drawn from the same noise, so a paired test applies.
        pairs = rewards - self._best
        error = pairs.std().item() / n**0.5 if n > 1 else math.inf
        is_worse = pairs.mean().item() < -sure_deviations(self.n_evaluations, max(1, n - 1)) * error
        return Verdict(is_best, is_worse, {"oracle": mean})

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {}, {"best": self._best}

    def load_state(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._best = tensors["best"].double().cpu()
