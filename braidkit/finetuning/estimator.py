"""ConservativeDiffusionFinetuner: the estimator that puts it all together."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any, Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from braidkit.diffusion import DiffusionModel, EnumeratedDiffusion, MaskedDiffusion
from braidkit.diffusion.enumerated import MAX_ENUMERATED
from braidkit.diffusion.precision import check_precision
from braidkit.finetuning.checkpoint import open_checkpoint
from braidkit.finetuning.contracts import CheckpointSelection, check_selection
from braidkit.finetuning.defaults import auto_alpha
from braidkit.finetuning.designer import Designer
from braidkit.finetuning.held_out import check_enough_designs
from braidkit.finetuning.learning import learn_reward_and_judge
from braidkit.finetuning.optimum import approximates_optimum, draw_from_optimum
from braidkit.finetuning.processes import Processes
from braidkit.finetuning.rows import MeasuredRows, read_rows
from braidkit.finetuning.solver import Solver
from braidkit.finetuning.solver_choice import (
    as_solver,
    check_reward_gradient,
    check_solver,
    check_solver_reward,
    may_temper,
)
from braidkit.finetuning.tempering import TemperingSolver
from braidkit.finetuning.tuning import Tuning
from braidkit.parameters import (
    check_count,
    check_fraction,
    check_positive,
    check_random_state,
    check_whole_seed,
    resolve_device,
)
from braidkit.spaces import Space
from braidkit.torch_state import ordinary_torch
from braidkit.training import interrupts_propagate


class ConservativeDiffusionFinetuner(Designer):
    """Fine-tune a diffusion model toward designs that score high by a conservative reward (BRAID).

    `fit` learns a reward with an uncertainty penalty from measured designs, then changes a copy of the pretrained
    chain to maximise ::

        E[ r_hat(x_0) - g_hat(x_0) ] - alpha * sum_t E[ KL( p_t(.|x_t) || p_pre_t(.|x_t) ) ]      (6)

    by direct back-propagation, or by another solver. The penalty g_hat keeps designs near the measured ones, the KL
    keeps them where the pretrained model finds them plausible. A second reward, the judge, is fitted on rows that the
    first never saw, and is never optimised. The checkpoint with the highest objective is kept, unless the judge finds
    its designs significantly worse than those of another. Among runs with equal checkpoints at most 5 % have a false
    rejection. The judge cannot see errors that all measurements share.

    With the solvers "exact", "tempering" and "path_tempering" and at most 20,000 rows there is a refit: the reward
    learns from all rows, those of the judge included, and the chain is fitted to it at the alpha of the kept
    checkpoint.

    Parameters
    ----------
    pretrained : DiffusionModel, optional
        A trained chain over the designs. It is shared by clones and never changed. By default a small one is trained
        on `X`: a GaussianDiffusion over a mixture for vectors; for sequences an EnumeratedDiffusion of up to 300,000
        (with the solvers "auto" and "exact"), else a MaskedDiffusion over a Markov law (with "auto" and "tempering"),
        and a SimplexDiffusion, the paper's, with other solvers.
    alpha : float or "auto", default="auto"
        Weight of the KL, in standard deviations of y per nat. A larger alpha keeps designs closer to the pretrained
        model. "auto" is 0.1 for fewer than 1,000 rows and 0.02 for more; in a small space it is raised if few different
        designs would be left (see `ExactSolver`). With the solver "tempering" it is the smallest value from 0.01 on,
        or from 0.02 below 1,000 rows, that leaves enough designs that are not rare under the pretrained model (see
        `TemperingSolver`). The paper has 1e-3 (Table 2), at which designs soon leave the pretrained model. alpha is not
        a ridge penalty as in scikit-learn; that is the reward's `lam`.
    reward : regressor, default=GPBonusReward()
        The conservative reward; a clone is fitted. A fitted one in ``sklearn.frozen.FrozenEstimator`` is used as it is.
        Any regressor of designs will do for solvers that need no gradient, see `BlackBoxReward`; the others need one
        with ``lower(x)``.
    objective : str, optional
        What is to be large, of the columns of y, such as "hepg2 - k562", "min(a, b)", "-kd" or
        "affinity if expression >= 0.8"; see `ObjectiveReward`. Each column has its own reward and judge.
    space : Space, optional
        The design space, if `pretrained` has none: strings make a SequenceSpace, 2-D numbers a VectorSpace.
        Positions and columns that are the same in all rows are held in all designs; a `template` of the space says
        otherwise.
    solver : str or Solver, default="auto"
        How the objective is maximised. "auto" takes a solver that suits the chain and the reward. "exact" lists all
        designs of a small space. "tempering" moves designs that follow the pretrained Markov law, or mixture, towards
        the tilted law, and fits the chain to them; it needs no gradient. "path_tempering" does so with the paths of
        language models. "direct" back-propagates through the chain.
        "adjoint_matching" carries the reward's gradient back along the pretrained chain, for a GaussianDiffusion or a
        SimplexDiffusion with bridges. "policy_gradient" and "trajectory_balance" take any reward. Pass an instance to
        set options: ``DirectSolver(truncation=5)``.
    max_iter : int or "auto", default="auto"
        Updates; "auto" grows with the number of rows, and is 40 with "tempering" and 12 with "path_tempering".
    batch_size : int, default=128
        Trajectories per update; the paper's value (Table 2).
    learning_rate : float, default=1e-3
        Learning rate of Adam; the paper's value for images (Table 4), as it gives none for sequences.
    max_grad_norm : float, default=1.0
        Gradients are scaled down to this norm.
    validation_fraction : float, default=0.25
        Share of the rows that are held out from the reward, and that the judge is fitted on.
    n_iter_no_change : int, default=5
        Evaluations (20 in a run; with "tempering" and "path_tempering" one an update) without a better checkpoint after
        which the run stops.
    selection : BudgetedSelection, optional
        A small number of true measurements that choose the checkpoint instead of objective and judge.
    checkpoint_dir : path-like, optional
        Save here, and go on from here if data and settings are the same. Needs a whole number as `random_state`.
    device : str, default="auto"
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Precision of the chain's network in updates. States, KL, reward, optimiser and results stay in float32. "auto"
        is bfloat16 for convolutions of 64 channels and more, and language models 256 wide and more, on CPUs with
        AVX512-BF16 or AMX.
    random_state : int, RandomState or None
    verbose : int, default=0
        Show progress if not 0.

    Attributes
    ----------
    model_ : DiffusionModel
        The fine-tuned chain, frozen; itself a pretrained model for others.
    pretrained_ : DiffusionModel
        `pretrained`, or the one that was trained.
    reward_ : regressor
        The fitted conservative reward; after a refit it has seen all rows.
    checked_reward_ : regressor
        The reward before the refit, which never saw the judge's rows; `reward_` itself without a refit.
    reward_check_ : dict of str to float
        `checked_reward_` on the rows that it never saw: "r2" of its mean, and the share of measurements at or above
        its lower bound, "overall" and in the "top_decile"; with an objective also "r2_<name>" of each quantity.
    judge_ : GPBonusReward, or ObjectiveReward of such
        Fitted on those rows.
    judge_check_ : dict of str to float
        `judge_` on rows of the reward, at most 2,000, with the names of `reward_check_`.
    judge_spread_ : float
        Factor of its posterior's deviations of differences, from `backtest_spread`. It is infinite if there were too
        few rows to hold some out from the reward: the judge then rejects nothing.
    judge_rows_ : ndarray
        Row numbers in X of the judge's rows; all rows if there were too few to hold some out.
    history_ : dict of list
        At each evaluation: "iteration", and for designs after discretisation the averages of "mean" (r_hat), "lower"
        (r_hat - g_hat), "penalty" (g_hat) and "judge", in y's units, and of "kl", the path KL over all steps, in nats;
        with a `selection` also "oracle", the average of what it measured.
    best_iter_, n_iter_ : int
        Numbers of updates of the kept checkpoint, which is `model_`, and of all updates done.
    over_optimising_since_ : int or None
        `best_iter_`, if later checkpoints over-optimised: the reward scores them higher, and the judge or the
        `selection` finds them significantly worse. None otherwise.
    alpha_, precision_ : float, str
        The values used, after resolving "auto". With "tempering" ``alpha_`` is that of the kept checkpoint, and
        infinite if the pretrained model is kept.
    space_ : Space
    n_features_in_ : int

    Notes
    -----
    The processes of ``accelerate launch`` or ``torchrun`` share the trajectories of each update (solvers "direct" and
    "adjoint_matching"), and all end with the same model.

    References
    ----------
    Uehara et al. (2024), "Bridging model-based optimization and generative modeling via conservative fine-tuning of
    diffusion models", NeurIPS: Algorithms 1 and 2, equation (6), Table 2.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit import ConservativeDiffusionFinetuner
    >>> X = np.random.default_rng(0).normal(size=(50, 2))
    >>> finetuner = ConservativeDiffusionFinetuner(random_state=0).fit(X, X.sum(axis=1))
    >>> designs = finetuner.sample(100, random_state=0)
    >>> bool(designs.sum(axis=1).mean() > X.sum(axis=1).mean())
    True
    """

    def __init__(
        self,
        pretrained: DiffusionModel | None = None,
        alpha: float | Literal["auto"] = "auto",
        *,
        reward: Any = None,
        objective: str | None = None,
        space: Space | None = None,
        solver: str | Solver = "auto",
        max_iter: int | str = "auto",
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        max_grad_norm: float = 1.0,
        validation_fraction: float = 0.25,
        n_iter_no_change: int = 5,
        selection: CheckpointSelection | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.pretrained = pretrained
        self.alpha = alpha
        self.reward = reward
        self.objective = objective
        self.space = space
        self.solver = solver
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_grad_norm = max_grad_norm
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.selection = selection
        self.checkpoint_dir = checkpoint_dir
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    @ordinary_torch()
    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None, y_error: Any = None
    ) -> ConservativeDiffusionFinetuner:
        """Learn the conservative reward from measured designs, and fine-tune the chain on it (Algorithm 1).

        Parameters
        ----------
        X : list of str, or array-like
            Designs, of any kind that the space encodes.
        y : array-like of shape (n_samples,)
            Their measurements; larger is better. With an `objective` a DataFrame, or an array of columns y0, y1, ...
        groups : array-like of shape (n_samples,), optional
            Rows of one group, as rows of one design, go to the reward or to the judge, never to both.
        sample_weight, y_error : array-like of shape (n_samples,), optional
            Weights and standard errors (of the shape of y), for reward and judge; see `GPBonusReward.fit`.

        Returns
        -------
        self : ConservativeDiffusionFinetuner

        Raises
        ------
        InvalidDesignError, InvalidTargetError, InvalidParameterError
            Naming the row, the value and the remedy.
        IncompatibleModelError, NotTrainedError
            If `pretrained` makes other designs than `X`, or was never trained.
        CheckpointError
            If `checkpoint_dir` belongs to a run with other data or settings, or to one that is still running.
        """
        device = resolve_device(self.device)
        processes = Processes(device)
        solver, rows = self._check(X, y, processes, groups, sample_weight, y_error)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=6).tolist()
        seed, split_seed, pretrained_seed, reward_seed, judge_seed, noise_seed = seeds
        raises_alpha = isinstance(solver, TemperingSolver) and solver.max_rarity is not None
        self.alpha_ = auto_alpha(len(rows), is_least=raises_alpha) if self.alpha == "auto" else float(self.alpha)
        processes.check_same(X=rows.x.rows, y=rows.y, pretrained=self.pretrained)
        with contextlib.ExitStack() as held:
            checkpoint = processes.once(functools.partial(open_checkpoint, self, rows.digest(), held))

            with interrupts_propagate():
                # The reward first: one of the user's may fail, and the chain can take long.
                learn_reward_and_judge(self, rows, split_seed, reward_seed, judge_seed, quiet=processes.rank > 0)
                train_chain = functools.partial(self._chain, rows.X, pretrained_seed, device, checkpoint)
                self.pretrained_ = train_chain() if self.pretrained else processes.once(train_chain).to(device)
            if solver.needs_gradient:
                check_reward_gradient(self.reward_, self.pretrained_, seed)
            Tuning(self, solver, rows, seed, noise_seed, reward_seed, checkpoint, device, processes).run()
        return self

    @ordinary_torch()
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Any:
        """Draw designs.

        They are draws of the fine-tuned chain, `model_`. After the solver "tempering" they are moved to the optimum
        that the chain approximates by Metropolis-Hastings steps: 16 of vectors, of sequences half as many as there are
        free positions. Each step needs the reward, so `model_.sample`, which draws from the chain alone, is faster.

        Parameters
        ----------
        n_samples : int, default=1
        random_state : int, RandomState or None

        Returns
        -------
        designs : list of str, or ndarray
            Of the kind that `fit` saw.
        """
        check_is_fitted(self, "model_")
        if approximates_optimum(self):
            return draw_from_optimum(self, n_samples, random_state)
        return self.model_.sample(n_samples, random_state)

    def check(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None, y_error: Any = None) -> None:
        """Check designs, measurements and parameters as `fit` does before it starts work, and raise the same errors."""
        self._check(X, y, Processes(resolve_device(self.device)), groups, sample_weight, y_error)

    def _check(self, X: Any, y: Any, processes: Processes, *told: Any) -> tuple[Solver, MeasuredRows]:
        """Make the solver and read the measured rows, after all checks that need no work."""
        check_solver(self.solver)
        self._check_parameters(processes)
        if hasattr(self.reward, "_check_parameters"):
            self.reward._check_parameters()
        rows = read_rows(self, X, y, *told)
        check_enough_designs(self.reward, rows.x, self.validation_fraction)
        chain = self._new_chain() if self.pretrained is None else self.pretrained.in_space(self.space_)
        solver = as_solver(self.solver, chain, self.reward, choose_alpha=self.alpha == "auto")
        solver.check_processes(processes, self.batch_size)
        check_solver_reward(solver, self.reward)
        solver.check(chain)
        return solver, rows

    def _new_chain(self) -> DiffusionModel:
        """The chain to train: one whose optimum the solver can reach, if the solver allows it; else the default."""
        space: Any = self.space_
        if self.solver in ("auto", "exact") and space.n_designs <= MAX_ENUMERATED:
            return EnumeratedDiffusion(space)
        if may_temper(self.solver) and space.default_chain == "simplex":
            return MaskedDiffusion(space)
        return super()._new_chain()

    def _check_parameters(self, processes: Processes) -> None:
        """Raise for parameters out of range, before any work."""
        self._check_shared_parameters()
        check_precision(self.precision)
        check_positive(self, "learning_rate", "max_grad_norm")
        check_fraction(self, "validation_fraction")
        check_positive(self, "alpha", or_word="auto")
        check_count(self, "n_iter_no_change")
        check_selection(self.selection)
        check_count(self, "max_iter", or_word="auto")
        if processes.count > 1:
            check_whole_seed(self.random_state, "a run of several processes", "to draw the same")
        elif self.checkpoint_dir is not None:
            check_whole_seed(self.random_state, "a run with a checkpoint_dir", "to go on as it began")
