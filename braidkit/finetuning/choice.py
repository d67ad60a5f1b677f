"""Which checkpoint of a run is kept: by the objective and the judge's veto, or by true measurements."""

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

# Share of runs of equal checkpoints in which one is found to be surely worse than another.
FALSE_ALARM_RATE = 0.05


def sure_deviations(n_evaluations: int, n_freedom: float) -> float:
    """Standard deviations that no two of so many equal checkpoints are apart in but 5 % of runs.

    Bonferroni's bound over all ordered pairs, since favourites are picked for being high, with the quantile of
    Student's t for deviations that were estimated themselves.
    """
    n_pairs = max(2, n_evaluations * (n_evaluations - 1))
    return float(student.isf(FALSE_ALARM_RATE / n_pairs, n_freedom))


class Verdict(NamedTuple):
    """Whether a checkpoint is the best so far, whether it is surely worse than another, and figures for the history."""

    is_best: bool
    is_worse: bool
    figures: dict[str, float]


class Choice(abc.ABC):
    """Look at one evaluation after the other, and at none again."""

    column: ClassVar[str]  # of the history, by which checkpoints are found to be worse

    @abc.abstractmethod
    def __call__(self, seen: Evaluation) -> Verdict:
        """Judge an evaluation by those before it."""

    @abc.abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What is remembered: plain values, and tensors."""

    @abc.abstractmethod
    def load_state(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""


class ObjectiveWithVeto(Choice):
    """The highest objective (6), of those whose designs the judge does not hold to be surely worse than its favourites.

    A judge of few rows ranks checkpoints too poorly to choose by, but may see that they have got worse. Where new
    favourites show up the best so far as worse, they take its place.

    Parameters
    ----------
    judge : Judge
        Its deviations are taken to be estimated as `CalibratedJudge` does.
    n_evaluations : int
        Of the run: the more, the surer the judge must be.
    """

    column: ClassVar[str] = "judge"

    def __init__(self, judge: Judge, n_evaluations: int) -> None:
        self.judge = judge
        self.sure = sure_deviations(n_evaluations, N_DIRECTIONS)
        self._best_objective = self._best_judged = -math.inf
        # Of the checkpoint to keep, "best", and of the one that the judge likes best, "favourite".
        self._designs: dict[str, Tensor] = {}

    def __call__(self, seen: Evaluation) -> Verdict:
        if not math.isfinite(seen.objective + seen.judged):
            if self._designs:
                return Verdict(False, True, {})
            raise InvalidParameterError(
                f"designs of the pretrained model have the objective {seen.objective} and, by the judge, "
                f"{seen.judged}; pass a reward that is finite for all designs of the space."
            )
        if seen.judged > self._best_judged:
            self._best_judged, self._designs["favourite"] = seen.judged, seen.designs
        is_worse = self._is_worse(seen.designs)
        is_best = not is_worse and (seen.objective > self._best_objective or self._is_worse(self._designs["best"]))
        if is_best:
            self._best_objective, self._designs["best"] = seen.objective, seen.designs
        return Verdict(is_best, is_worse, {})

    def _is_worse(self, designs: Tensor) -> bool:
        """Whether the judge is sure that designs are worse than its favourites."""
        if designs is self._designs["favourite"]:
            return False
        difference, error = self.judge.mean_difference(designs, self._designs["favourite"])
        return difference < -self.sure * error

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"best_objective": self._best_objective, "best_judged": self._best_judged}, dict(self._designs)

    def load_state(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._best_objective, self._best_judged = values["best_objective"], values["best_judged"]
        self._designs = dict(tensors)


class HighestMeasured(Choice):
    """The highest mean of a selection's true measurements, the column "oracle" of the history.

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
        # Designs of the same noise are pairs.
        pairs = rewards - self._best
        error = pairs.std().item() / n**0.5 if n > 1 else math.inf
        is_worse = pairs.mean().item() < -sure_deviations(self.n_evaluations, max(1, n - 1)) * error
        return Verdict(is_best, is_worse, {"oracle": mean})

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {}, {"best": self._best}

    def load_state(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._best = tensors["best"].double().cpu()
