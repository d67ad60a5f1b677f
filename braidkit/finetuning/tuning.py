"""Fine-tune a chain to a learned reward: choose the checkpoint by the judge, then learn from all rows (Algorithm 2)."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import Tensor
from tqdm.auto import tqdm

from braidkit.diffusion.precision import resolve_precision
from braidkit.finetuning.checkpoint import TUNING
from braidkit.finetuning.choice import LARGEST_DECLINE, Choice, HighestMeasured, HighestObjective
from braidkit.finetuning.defaults import auto_max_iter
from braidkit.finetuning.judge import CalibratedJudge, knows_enough
from braidkit.finetuning.measurement import Measurement
from braidkit.finetuning.monitor import Monitor
from braidkit.finetuning.oracle_rounds import OracleRounds
from braidkit.finetuning.processes import Processes
from braidkit.finetuning.rows import MeasuredRows
from braidkit.finetuning.solver import Problem, Solver
from braidkit.training import interrupts_propagate, note_interrupt, noted_interrupts, train

# Rows above which the judge's share adds little to a reward, and learning from it again takes long.
MAX_REFIT_ROWS = 20_000


class Tuning:
    """One fine-tuning of an estimator, which has its reward, its judge and its pretrained chain.

    Parameters
    ----------
    estimator : ConservativeDiffusionFinetuner
    solver : Solver
    rows : MeasuredRows
    seed, noise_seed, reward_seed : int
        Of the updates, of the designs of evaluations, and of the reward.
    checkpoint : Path or None
    device : torch.device
    processes : Processes
    """

    def __init__(
        self,
        estimator: Any,
        solver: Solver,
        rows: MeasuredRows,
        seed: int,
        noise_seed: int,
        reward_seed: int,
        checkpoint: Path | None,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.estimator = estimator
        self.solver = solver
        self.rows = rows
        self.seed, self.noise_seed, self.reward_seed = seed, noise_seed, reward_seed
        self.checkpoint = checkpoint
        self.processes = processes
        self.verbose = estimator.verbose if processes.rank == 0 else 0
        self.reference = estimator.pretrained_
        if self.reference.device != torch.empty(0, device=device).device:  # the user's model stays where it is
            self.reference = copy.deepcopy(self.reference).freeze().to(device)

    def run(self) -> None:
        """Move a copy of the chain toward the reward's lower bound, and keep the best checkpoint."""
        estimator, solver, first_alpha = self.estimator, self.solver, self.estimator.alpha_
        problem = self._setup(solver, first_alpha)
        usual = auto_max_iter(len(self.rows)) if solver.usual_updates is None else solver.usual_updates
        max_iter = usual if estimator.max_iter == "auto" else int(estimator.max_iter)
        max_iter = max_iter if solver.n_updates is None else solver.n_updates
        monitor = self._monitor(problem, max_iter)
        start = monitor.begin(max_iter)
        if monitor.gave_up(start):
            max_iter = start
        with noted_interrupts() as interrupts:
            estimator.n_iter_ = train(
                solver, max_iter, start=start, callbacks=[monitor], verbose=self.verbose, description="fine-tuning"
            )
        monitor.restore_best()
        estimator.precision_ = problem.precision
        estimator.history_, estimator.best_iter_ = monitor.history, monitor.best_iter
        estimator.alpha_ = 1 / monitor.best_tilt if monitor.best_tilt else math.inf
        estimator.over_optimising_since_ = monitor.over_optimising_since
        estimator.model_ = problem.model.freeze()
        if self.processes.rank == 0:
            for warning in filter(None, (monitor.alarm(), monitor.doubt())):
                warnings.warn(warning, stacklevel=4)
        if monitor.best_iter and monitor.best_tilt and not interrupts and self._can_refit():
            # Where a limit and not the judge ended the run, the new reward finds the alpha of the limit again.
            at_end = monitor.best_tilt == solver.tilt and math.isclose(solver.tilt * solver.problem.alpha, 1.0)
            self._refit(first_alpha if at_end and solver.finds_alpha_again else estimator.alpha_)

    def _setup(self, solver: Solver, alpha: float) -> Problem:
        """Give a solver the problem of the estimator's reward, and a new copy of the pretrained chain."""
        estimator = self.estimator
        model = self.reference.trainable_copy()
        model.kind = estimator.space_.kind_of(self.rows.X)
        solver.setup(
            Problem(
                model,
                self.reference,
                self._aim(),
                alpha=alpha,
                batch_size=estimator.batch_size,
                learning_rate=estimator.learning_rate,
                max_grad_norm=estimator.max_grad_norm,
                seed=self.seed,
                precision=resolve_precision(estimator.precision, model.trainable, self.reference.device),
                processes=self.processes,
            )
        )
        return solver.problem

    def _aim(self) -> Callable[[Tensor], Tensor]:
        """The quantity to maximise at points of the chain."""
        estimator = self.estimator
        return lambda point: estimator._standardised_aim(estimator.space_.discretise(point))

    def _monitor(self, problem: Problem, max_iter: int) -> Monitor:
        """Evaluations of the run, and the choice among them."""
        estimator, selection = self.estimator, self.estimator.selection
        every = max(1, max_iter // self.solver.n_evaluations)
        if selection is not None:
            # The first round of a selection is for the pretrained chain, before any update.
            every = math.ceil(max_iter / max(1, selection.n_rounds - 1))
        n_designs = max(estimator.batch_size, 0 if selection is None else selection.n_designs)
        noise = problem.model.draw_noise(n_designs, torch.Generator().manual_seed(self.noise_seed))
        saved = None if self.checkpoint is None else self.checkpoint / TUNING
        judge = CalibratedJudge(estimator.judge_, estimator.judge_spread_)
        n_evaluations = max_iter // every + 1
        choice: Choice = HighestObjective(
            judge,
            n_evaluations,
            self.solver.rejects_at,
            largest_decline=LARGEST_DECLINE if knows_enough(estimator) else math.inf,
        )
        if selection is not None:
            decode = functools.partial(estimator.space_.decode, kind=problem.model.kind)
            choice = HighestMeasured(OracleRounds(selection, decode, saved), n_evaluations)
        # A selection measures as many designs as it says, so the chain draws them.
        own = {} if selection is not None else {"own_designs": self.solver.own_designs}
        measure = Measurement(problem, estimator.reward_, judge, estimator._maximises, noise, **own)
        return Monitor(
            self.solver,
            measure,
            choice,
            every=every,
            patience=estimator.n_iter_no_change,
            checkpoint=saved,
            verbose=self.verbose,
        )

    def _can_refit(self) -> bool:
        """Whether rows are left to learn from, few enough that they matter, and the solver is fast."""
        estimator = self.estimator
        return (
            self.solver.refits
            and estimator.selection is None
            and not isinstance(estimator.reward, FrozenEstimator)
            and len(estimator.judge_rows_) < len(self.rows) <= MAX_REFIT_ROWS
        )

    def _refit(self, alpha: float) -> None:
        """Fit the reward on all rows, and the chain to it with the alpha of the kept checkpoint.

        The judge has chosen how far to go, and its rows are too good to be left out of what is ordered: with 500 rows
        they are a quarter of all that is known.
        """
        estimator, checked, model = self.estimator, self.estimator.reward_, self.estimator.model_
        if self.verbose:
            tqdm.write(f"refit: reward on all {len(self.rows):,} rows, chain from alpha {alpha:.3g} on")
        solver = clone(self.solver)
        try:
            with interrupts_propagate():
                estimator.reward_ = estimator._fit_reward(
                    estimator.reward,
                    self.rows.X,
                    self.rows.measured,
                    self.reward_seed,
                    self.rows.told,
                    quiet=not self.verbose,
                )
                problem = self._setup(solver, alpha)
                solver.follow(self.solver)
                train(
                    solver,
                    estimator.n_iter_ + solver.n_settling,
                    callbacks=[lambda n_done, figures: solver.is_settled()],
                    verbose=self.verbose,
                    description="refit",
                )
        except KeyboardInterrupt:
            estimator.reward_, estimator.model_ = checked, model
            note_interrupt("refit")
            tqdm.write("refit: stopped by the user; the model before it is kept")
            return
        estimator.model_, estimator.alpha_ = problem.model.freeze(), solver.problem.alpha
        if self.verbose:
            tqdm.write(f"refit: done, at alpha {estimator.alpha_:.3g}")
