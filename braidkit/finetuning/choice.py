"""Which checkpoint of a run is kept: by the objective and the judge's veto, or by true measurements."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.contracts import Judge
from braidkit.finetuning.measurement import Evaluation
from braidkit.finetuning.oracle_rounds import OracleRounds

# Standard deviations that are more than luck.
SURE = 2


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
    """

    column: ClassVar[str] = "judge"

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
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
        return difference < -SURE * error

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
    """

    column: ClassVar[str] = "oracle"

    def __init__(self, rounds: OracleRounds) -> None:
        self.rounds = rounds
        self._best = -math.inf

    def __call__(self, seen: Evaluation) -> Verdict:
        rewards = torch.as_tensor(self.rounds.ask(seen.n_done, seen.designs), dtype=torch.float64)
        mean, error = rewards.mean().item(), rewards.std().item() / len(rewards) ** 0.5
        is_best, is_worse = mean > self._best, mean < self._best - SURE * error
        self._best = max(mean, self._best)
        return Verdict(is_best, is_worse, {"oracle": mean})

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"best": self._best}, {}

    def load_state(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self._best = values["best"]
