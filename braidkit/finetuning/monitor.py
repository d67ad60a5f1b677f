"""Watch a fine-tuning run: the history, the checkpoint worth keeping, and when to stop."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

from torch import Tensor
from tqdm.auto import tqdm

from braidkit.finetuning.choice import Choice, HighestMeasured
from braidkit.finetuning.measurement import Measurement
from braidkit.finetuning.resume import load_run, save_run
from braidkit.finetuning.solver import Solver
from braidkit.persistence import is_saved

COLUMNS = ("iteration", "mean", "lower", "penalty", "kl", "judge")


class Monitor:
    """Callback of the training loop: evaluate, keep the best checkpoint, stop in time, save to resume.

    Parameters
    ----------
    solver : Solver
    measure : Measurement
    choice : Choice
    every : int
        Updates between evaluations.
    patience : int
        Evaluations without a better checkpoint after which the run stops.
    checkpoint : path-like, optional
        Directory to save to at each evaluation.
    verbose : int
        Print a line at each evaluation if not 0.
    """

    def __init__(
        self,
        solver: Solver,
        measure: Measurement,
        choice: Choice,
        *,
        every: int,
        patience: int,
        checkpoint: Path | None = None,
        verbose: int = 0,
    ) -> None:
        self.solver = solver
        self.processes = solver.problem.processes
        self.measure = measure
        self.choice = choice
        self.every = every
        self.patience = patience
        self.checkpoint = checkpoint
        self.verbose = verbose
        self.history: dict[str, list[float]] = {column: [] for column in dict.fromkeys([*COLUMNS, choice.column])}
        self.best_iter = 0
        self.best_tilt = 0.0  # 1 / alpha of that checkpoint
        # For each evaluation: were its designs significantly worse than others?
        self._worse: list[bool] = []
        self._best_weights: dict[str, Tensor] = {}

    def begin(self, max_iter: int) -> int:
        """Resume, or evaluate the chain as it is; gives the number of updates done."""
        start = self._resume()
        if isinstance(self.choice, HighestMeasured):
            last = start if self.gave_up(start) else max(start, max_iter)
            to_come = range(start - start % self.every + self.every * (start > 0), last + 1, self.every)
            self.processes.once(functools.partial(self.choice.rounds.open, to_come, len(self._worse)))
        if start == 0:
            self.evaluate(0)
        return start

    def __call__(self, n_done: int, figures: dict[str, float]) -> bool:
        if n_done % self.every:
            return False
        # Designs of a law that is not tilted yet are the pretrained model's: luck alone would make a judge call them
        # worse. Measurements have their rounds whatever the tilt.
        if not self.solver.tilt and not isinstance(self.choice, HighestMeasured):
            return False
        self.evaluate(n_done)
        if self.checkpoint is not None and self.processes.rank == 0:
            self.save(n_done)
        return self.gave_up(n_done)

    def gave_up(self, n_done: int) -> bool:
        """Whether there was no better checkpoint for `patience` evaluations."""
        return n_done - self.best_iter >= self.patience * self.every

    def evaluate(self, n_done: int) -> None:
        """Add a row to the history, and keep the weights if they are the best."""
        row, is_best, is_worse = self.processes.once(functools.partial(self._look, n_done))
        for column, values in self.history.items():
            values.append(row[column])
        self._worse.append(is_worse)
        if is_best:
            self.best_iter, self.best_tilt = n_done, self.solver.tilt
            self._best_weights = copy.deepcopy(self.solver.problem.model.trainable.state_dict())
        if self.verbose:
            figures = (
                f"mean {row['mean']:.3g}  lower {row['lower']:.3g}  {self.choice.column} {row[self.choice.column]:.3g}"
            )
            line = f"update {n_done:<5} {figures}  KL {row['kl']:.3g} nats"
            if self.over_optimising_since is not None:
                line += f"  over-optimising since update {self.over_optimising_since}"
            tqdm.write(line)

    def _look(self, n_done: int) -> tuple[dict[str, float], bool, bool]:
        """A row of the history; is the checkpoint the best so far; is it significantly worse than another."""
        seen = self.measure(n_done)
        verdict = self.choice(seen)
        return {"iteration": n_done, **seen.figures, **verdict.figures}, verdict.is_best, verdict.is_worse

    def restore_best(self) -> None:
        """Put the best weights back into the model."""
        self.solver.problem.model.trainable.load_state_dict(self._best_weights)

    @property
    def over_optimising_since(self) -> int | None:
        """The kept update, if a later one scored higher by the reward and significantly worse by the judge."""
        risen, updates = self.history[self.measure.maximises], self.history["iteration"]
        if self.best_iter not in updates:
            return None
        kept = updates.index(self.best_iter)
        later = zip(risen[kept:], self._worse[kept:], strict=True)
        return self.best_iter if any(is_worse and value > risen[kept] for value, is_worse in later) else None

    def alarm(self) -> str | None:
        """The warning to give if the run over-optimised after the kept checkpoint; else None."""
        if self.over_optimising_since is None:
            return None
        risen = {"lower": "lower bound", "mean": "mean"}[self.measure.maximises]
        return (
            f"over-optimisation: after update {self.over_optimising_since} the reward's {risen} rose, and the "
            f"{self.choice.column} finds the designs significantly worse. Those of update {self.best_iter} are kept. "
            "More measurements, a larger alpha or a larger penalty would hold longer."
        )

    def doubt(self) -> str | None:
        """The warning to give if the judge cannot tell whether the kept designs are good; else None."""
        found = self.choice.doubt() if self.best_iter else None
        if found is None:
            return None
        difference, error = found
        return (
            f"the judge cannot tell whether the designs of update {self.best_iter} are good: it finds them "
            f"{difference:+.2g} standard deviations of y better than those of the pretrained model, and may be wrong "
            f"by {error:.2g}. They are unlike the rows that it was fitted on. Look at them; a larger alpha or a larger "
            "penalty stays closer, and more measurements see further."
        )

    def save(self, n_done: int) -> None:
        """Save everything that resuming needs; it replaces the previous checkpoint."""
        assert self.checkpoint is not None
        remembered, tensors = self.choice.state()
        config = {
            "n_iter": n_done,
            "best_iter": self.best_iter,
            "best_tilt": self.best_tilt,
            "history": self.history,
            "worse": self._worse,
            "choice": remembered,
        }
        save_run(self.checkpoint, self.solver, config, {"best": self._best_weights, "choice": tensors})

    def _resume(self) -> int:
        """Go on from a checkpoint, if there is one; gives the number of updates that it has seen."""
        if self.checkpoint is None or not self.processes.once(functools.partial(is_saved, self.checkpoint)):
            return 0
        config, tensors = load_run(self.checkpoint, self.solver)
        self.history, self._worse = config["history"], config["worse"]
        self.best_iter, self.best_tilt = config["best_iter"], config["best_tilt"]
        self._best_weights = tensors["best"]
        self.choice.load_state(config["choice"], tensors.get("choice", {}))
        return int(config["n_iter"])
