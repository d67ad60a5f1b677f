"""Watch a fine-tuning run: the history, the checkpoint worth keeping, and what is needed to resume."""

from __future__ import annotations

import copy
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from braidkit import persistence
from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.contracts import CheckpointSelection, ConservativeReward, Judge, standardised
from braidkit.finetuning.rollout import evaluate
from braidkit.finetuning.solver import Solver

COLUMNS = ("iteration", "mean", "lower", "penalty", "kl", "judge")
# Standard deviations that are more than luck.
SURE = 2


class Monitor:
    """Callback of the training loop: evaluate, keep the best checkpoint, stop in time, save to resume.

    The best checkpoint is the one with the highest objective (6), of those whose designs the judge does not hold to be
    surely worse than its own favourites: a judge of few rows ranks them too poorly to choose by, but may see that they
    have got worse. They are looked at one after another, and none again: where new favourites show up the best so far
    as worse, they take its place. A selection, if there is one, chooses by itself.

    Parameters
    ----------
    solver : Solver
    reward : ConservativeReward
    judge : Judge
        Never optimised.
    climbs : {"lower", "mean"}
        Which of the reward's columns the objective has.
    noise : Tensor
        Of the designs to evaluate: the same at each evaluation, so that weights differ and luck does not.
    every : int
        Updates between evaluations.
    patience : int
        Evaluations without a better checkpoint after which the run stops.
    selection : CheckpointSelection, optional
        Asked at each evaluation; its mean, the column "oracle" of the history, takes the place of both.
    checkpoint : path-like, optional
        Directory to save to at each evaluation.
    verbose : int
        Print a line at each evaluation if not 0.
    """

    def __init__(
        self,
        solver: Solver,
        reward: ConservativeReward,
        judge: Judge,
        climbs: str,
        noise: Tensor,
        *,
        every: int,
        patience: int,
        selection: CheckpointSelection | None = None,
        checkpoint: Path | None = None,
        verbose: int = 0,
    ) -> None:
        self.solver = solver
        self.processes = solver.problem.processes
        self.reward = reward
        self.judge = judge
        self.climbs = climbs
        self.noise = noise
        self.every = every
        self.patience = patience
        self.selection = selection
        self.checkpoint = checkpoint
        self.verbose = verbose
        # Which column of the history tells over-optimisation.
        self.criterion = "judge" if selection is None else "oracle"
        self.history: dict[str, list[float]] = {column: [] for column in dict.fromkeys([*COLUMNS, self.criterion])}
        self.best_iter = 0
        # The update whose designs judge or selection liked best, while those of the last evaluation are surely worse,
        # but better by the reward.
        self.over_optimising_since: int | None = None
        # What tells this run from others to the selection: its directory, if it can be resumed. What was measured is
        # kept beside that, by update, before anything else happens: no design is paid for twice.
        self._run = object() if checkpoint is None else str(checkpoint.resolve())
        self._rounds: dict[str, dict[str, Any]] = {}
        self._best_score = self._best_judged = -math.inf
        self._best_weights: dict[str, Tensor] = {}
        # Designs of the checkpoint to keep, and of the one that the judge likes best: the first process's business.
        self._designs: dict[str, Tensor] = {}

    @property
    def model(self) -> DiffusionModel:
        return self.solver.problem.model

    def begin(self, max_iter: int) -> int:
        """Resume, or evaluate the chain as it is; gives the number of updates done."""
        start = self.resume()
        if self.selection is not None:
            self._rounds = self.processes.once(self._saved_rounds)
            last = start if self.gave_up(start) else max(start, max_iter)
            to_come = range(start - start % self.every + self.every * (start > 0), last + 1, self.every)
            n_to_come = sum(str(n) not in self._rounds for n in to_come)
            n_had = max(len(self._rounds), len(self.history["oracle"]))
            self.processes.once(functools.partial(self.selection.open_run, self._run, n_had, n_to_come))
        if start == 0:
            self.evaluate(0)
        return start

    def __call__(self, n_done: int, figures: dict[str, float]) -> bool:
        if n_done % self.every:
            return False
        self.evaluate(n_done)
        if self.checkpoint is not None and self.processes.rank == 0:
            self.save(n_done)
        return self.gave_up(n_done)

    def gave_up(self, n_done: int) -> bool:
        """Whether no better checkpoint has come for too long."""
        return n_done - self.best_iter >= self.patience * self.every

    def evaluate(self, n_done: int) -> None:
        """Add a row to the history, and keep the weights if they are the best."""
        row, score, is_best, is_worse = self.processes.once(functools.partial(self._measure, n_done))
        for column, value in zip(self.history, [n_done, *row], strict=True):
            self.history[column].append(value)
        if is_best:
            self._best_score, self.best_iter = score, n_done
            assert self.model.network is not None
            self._best_weights = copy.deepcopy(self.model.network.state_dict())
        last = {column: values[-1] for column, values in self.history.items()}
        top = int(np.nanargmax(self.history[self.criterion]))
        fooled = is_worse and last[self.climbs] > self.history[self.climbs][top]
        self.over_optimising_since = int(self.history["iteration"][top]) if fooled else None
        if self.verbose:
            line = f"step {n_done:<5} mean {last['mean']:.3g}  lower {last['lower']:.3g}  "
            line += f"{self.criterion} {last[self.criterion]:.3g}  KL {last['kl']:.3g} nats"
            if fooled:
                line += f"  over-optimising since step {self.over_optimising_since}"
            tqdm.write(line)

    @torch.no_grad()
    def _measure(self, n_done: int) -> tuple[list[float], float, bool, bool]:
        """The history's columns but the first, the score, whether it is the best, and whether designs got worse."""
        path = evaluate(self.model, self.solver.problem.pretrained, self.noise)
        designs = self.model.space.discretise(path.point)
        mean, penalty = (part.mean().item() for part in standardised(self.reward, designs))
        judged = self.judge.standardised(designs)[0].mean().item()
        # In y's units from here on: for people to read, and for nothing else.
        origin, scale = self.reward.y_mean_, self.reward.y_std_
        row = [origin + scale * mean, origin + scale * (mean - penalty), scale * penalty, path.kl.mean().item()]
        row.append(self.judge.y_mean_ + self.judge.y_std_ * judged)
        if self.selection is not None:
            scores = torch.as_tensor(self._asked(self.selection, n_done, designs), dtype=torch.float64)
            score, error = scores.mean().item(), scores.std().item() / len(scores) ** 0.5
            return [*row, score], score, score > self._best_score, score < self._best_score - SURE * error
        aim = mean - penalty if self.climbs == "lower" else mean
        score = aim - self.solver.problem.alpha * path.kl.mean().item()
        return row, score, *self._verdict(designs, score, judged)

    def _asked(self, selection: CheckpointSelection, n_done: int, designs: Tensor) -> list[float]:
        """True rewards of an update's designs, asked for once: a run that is resumed makes the same ones again."""
        asked = self._rounds.get(str(n_done), {})
        digest = persistence.fingerprint(designs)
        if asked.get("designs") != digest:
            scores = selection.query(self._run, self.model.space.decode(designs, self.model.kind))
            asked = self._rounds[str(n_done)] = {"designs": digest, "rewards": scores.tolist()}
            if self.checkpoint is not None:
                with persistence.replace_file(self._rounds_file) as temporary:
                    temporary.write_text(json.dumps(self._rounds))
        rewards: list[float] = asked["rewards"]
        return rewards

    def _saved_rounds(self) -> dict[str, dict[str, Any]]:
        """The rounds that earlier processes of this run asked for, by update."""
        if self.checkpoint is None or not self._rounds_file.exists():
            return {}
        rounds: dict[str, dict[str, Any]] = json.loads(self._rounds_file.read_text())
        return rounds

    @property
    def _rounds_file(self) -> Path:
        assert self.checkpoint is not None
        return self.checkpoint.with_name(f"{self.checkpoint.name}-rounds.json")

    def _verdict(self, designs: Tensor, score: float, judged: float) -> tuple[bool, bool]:
        """Whether designs of an objective and a judge's mean are the best so far, and whether they got worse."""
        if not math.isfinite(score + judged):
            if self._designs:
                return False, True
            raise InvalidParameterError(
                f"designs of the pretrained model have the objective {score} and, by the judge, {judged}; pass a "
                "reward that is finite for all designs of the space."
            )
        if judged > self._best_judged:
            self._best_judged, self._designs["favourite"] = judged, designs
        is_worse = self._is_worse(designs)
        is_best = not is_worse and (score > self._best_score or self._is_worse(self._designs["best"]))
        if is_best:
            self._designs["best"] = designs
        return is_best, is_worse

    def _is_worse(self, designs: Tensor) -> bool:
        """Whether the judge is sure that designs are worse than its favourites."""
        if designs is self._designs["favourite"]:
            return False
        difference, error = self.judge.mean_difference(designs, self._designs["favourite"])
        return difference < -SURE * error

    def restore_best(self) -> None:
        """Put the best weights back into the model."""
        assert self.model.network is not None
        self.model.network.load_state_dict(self._best_weights)

    def alarm(self) -> str | None:
        """What to warn of, if the last designs were over-optimised."""
        if self.over_optimising_since is None:
            return None
        climbed = {"lower": "lower bound", "mean": "mean"}[self.climbs]
        return (
            f"over-optimisation: after update {self.over_optimising_since} the reward's {climbed} rose, and the "
            f"{self.criterion} finds the designs surely worse. Those of update {self.best_iter} are kept. More "
            "measurements, a larger alpha or a larger penalty would hold longer."
        )

    def save(self, n_done: int) -> None:
        """Write all that is needed to resume, in place of the checkpoint before."""
        assert self.checkpoint is not None and self.model.network is not None
        tensors = {f"current.{name}": value for name, value in self.model.network.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self._best_weights.items()}
        tensors |= {f"solver.{name}": value for name, value in self.solver.state_tensors().items()}
        tensors |= {f"designs.{name}": value for name, value in self._designs.items()}
        config = {
            "n_iter": n_done,
            "best_iter": self.best_iter,
            "best_score": self._best_score,
            "best_judged": self._best_judged,
            "over_optimising_since": self.over_optimising_since,
            "history": self.history,
        }
        persistence.save(self.checkpoint, config=config, tensors=tensors)

    def resume(self) -> int:
        """Go on from a checkpoint, if there is one; gives the number of updates that it has seen."""
        if self.checkpoint is None or not self.processes.once(functools.partial(persistence.is_saved, self.checkpoint)):
            return 0
        config, tensors = self.processes.once(functools.partial(persistence.load, self.checkpoint))
        parts: dict[str, dict[str, Tensor]] = {"current": {}, "best": {}, "solver": {}, "designs": {}}
        for key, value in tensors.items():
            part, name = key.split(".", 1)
            parts[part][name] = value.to(self.model.device)
        assert self.model.network is not None
        persistence.load_weights(self.model.network, parts["current"], str(self.checkpoint))
        self.solver.load_state_tensors(parts["solver"])
        self._best_weights, self._designs = parts["best"], parts["designs"]
        self.history, self.best_iter = config["history"], config["best_iter"]
        self._best_score, self._best_judged = config["best_score"], config["best_judged"]
        self.over_optimising_since = config["over_optimising_since"]
        return int(config["n_iter"])
