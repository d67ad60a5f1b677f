"""Choose a checkpoint, or an estimator, by a limited number of true measurements; the limit is never exceeded."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from sklearn.base import BaseEstimator

from braidkit.exceptions import InvalidParameterError
from braidkit.oracles import refuse_shared_rows
from braidkit.parameters import check_count


class Oracle(Protocol):
    """A stand-in for the laboratory, or the laboratory itself."""

    def predict(self, X: Any) -> Any:
        """True rewards (n_samples,) of designs."""


class BudgetedSelection:
    """Choose a checkpoint or an estimator by a limited number of oracle calls (BRAID, appendix E.1.2).

    The paper's protocol: at 20 fixed moments of a fine-tuning run 120 designs are measured each time, and the best
    checkpoint is kept. A method with three values of c to choose from has 40 designs each time for each. Give it

    - to the estimator, as ``ConservativeDiffusionFinetuner(..., selection=budget)``: it picks the checkpoint instead
      of objective and judge. Each evaluation of the run is a round; the first is for the unchanged pretrained chain;
    - to a search, as ``GridSearchCV(..., scoring=budget)``: each candidate on each fold is a round. A candidate that
      was fitted with this very object as its `selection` has been measured already, and costs nothing more;
    - to `choose`, with estimators that are fitted.

    The budget belongs to the object. Clones share it. A copy in another process cannot, so it has nothing left: use
    ``n_jobs=1``. A run that resumes from a checkpoint counts the rounds that it had before, and asks none again.

    Parameters
    ----------
    oracle : object with ``predict(X)``, or callable
        From designs, of the kind that the estimator's `fit` saw, to rewards (n_samples,). It must not have been used to
        fit anything that it judges.
    n_queries : int, default=120
        Designs a round, over all runs together.
    n_rounds : int, default=20
        Rounds. ``n_queries * n_rounds`` calls are all that is ever made; a call is one design.
    n_runs : int, default=1
        Runs of the estimator that share the budget, each with `n_rounds` rounds of ``n_queries // n_runs`` designs.

    Attributes
    ----------
    n_designs : int
        Designs a round of one run: ``n_queries // n_runs``.
    n_calls : int
        Calls made, including those that resumed runs made earlier.
    n_left : int

    References
    ----------
    Uehara et al. (2024), "Bridging model-based optimization and generative modeling via conservative fine-tuning of
    diffusion models", NeurIPS: appendix E.1.2, hyperparameter selection.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit import ConservativeDiffusionFinetuner
    >>> from braidkit.evaluation import BudgetedSelection
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> budget = BudgetedSelection(lambda designs: -np.square(designs - 1).sum(axis=1), n_queries=50, n_rounds=11)
    >>> finetuner = ConservativeDiffusionFinetuner(selection=budget, max_iter=10, random_state=0)
    >>> kept = finetuner.fit(X, X.sum(axis=1)).best_iter_
    >>> finetuner.history_["oracle"][kept] == max(finetuner.history_["oracle"])
    True
    >>> budget.n_calls <= 550
    True
    """

    def __init__(self, oracle: Any, *, n_queries: int = 120, n_rounds: int = 20, n_runs: int = 1) -> None:
        self.oracle = oracle
        self.n_queries = n_queries
        self.n_rounds = n_rounds
        self.n_runs = n_runs
        check_count(self, "n_queries", "n_rounds", "n_runs")
        if n_runs > n_queries:
            raise InvalidParameterError(
                f"{n_runs} runs cannot share {n_queries} designs a round; pass at least one design a run."
            )
        if not callable(oracle) and not hasattr(oracle, "predict"):
            raise InvalidParameterError(f"oracle must have predict(X) or be callable; got {oracle!r}.")
        self.n_designs = n_queries // n_runs
        self._calls: dict[object, int] = {}
        self._copied = False
        self._lock = threading.Lock()

    @property
    def n_calls(self) -> int:
        return sum(self._calls.values())

    @property
    def n_left(self) -> int:
        return 0 if self._copied else self.n_queries * self.n_rounds - self.n_calls

    def open_run(self, run: object, n_done: int, n_to_come: int) -> None:
        """Check that a run can have its rounds before it starts; the estimator calls this.

        Parameters
        ----------
        run : hashable
            Identifies the run.
        n_done : int
            Rounds that it had before it was resumed.
        n_to_come : int
            Most rounds that it will still ask for.

        Raises
        ------
        InvalidParameterError
            If they are more than `n_rounds` in all, or more than the budget has left.
        """
        with self._lock:
            self._calls[run] = max(self._calls.get(run, 0), n_done * self.n_designs)
        if n_done + n_to_come > self.n_rounds:
            raise InvalidParameterError(
                f"the run needs {n_done + n_to_come} rounds ({n_done} of them done), and the selection has "
                f"n_rounds={self.n_rounds}; pass a smaller max_iter, or more rounds (at least 2)."
            )
        self._check_left(n_to_come * self.n_designs)

    def query(self, run: object, X: Any) -> np.ndarray:
        """Measure the first `n_designs` of X in one round of a run; the estimator calls this.

        Returns
        -------
        rewards : ndarray of shape (min(len(X), n_designs),), float64

        Raises
        ------
        InvalidParameterError
            If the budget has fewer calls left, before any of them; or if the oracle does not give one finite reward a
            design.
        """
        return self._ask(run, X[: self.n_designs])

    def __call__(self, estimator: Any, X: Any = None, y: Any = None) -> float:
        """Score a fitted estimator for a search: the mean reward of designs sampled from it.

        The held-out rows X are not measured; but an oracle that was trained on any of them is refused.
        """
        if X is not None:
            refuse_shared_rows(self.oracle, X)
        if getattr(estimator, "selection", None) is self:
            return float(max(estimator.history_["oracle"]))
        self._check_left(self.n_designs)
        return float(self._ask("scores", estimator.sample(self.n_designs, random_state=0)).mean())

    def choose(self, estimators: Sequence[Any] | Mapping[str, Any]) -> Any:
        """Choose among fitted estimators, with as many designs of each, at most `n_designs`.

        Parameters
        ----------
        estimators : sequence, or mapping of names to estimators
            Anything with ``sample(n_samples, random_state)``.

        Returns
        -------
        index : int or str
            Place, or name, of the estimator whose designs have the highest mean reward.

        Raises
        ------
        InvalidParameterError
            If there is none, or not one call left for each.
        """
        if not isinstance(estimators, Iterable):
            raise InvalidParameterError(f"estimators must be a list or a dictionary of them; got {estimators!r:.60}.")
        named = dict(estimators) if isinstance(estimators, Mapping) else dict(enumerate(estimators))
        if not named:
            raise InvalidParameterError("there is no estimator to choose from; pass at least one.")
        self._check_left(len(named))
        n = min(self.n_designs, self.n_left // len(named))
        means = {name: self._ask("choices", one.sample(n, random_state=0)).mean() for name, one in named.items()}
        return max(means, key=means.__getitem__)

    def _check_left(self, n: int) -> None:
        """Raise unless so many calls are left."""
        if self._copied:
            raise InvalidParameterError(
                "this is a copy of a BudgetedSelection in another process, or one that was loaded; it shares no budget "
                "with the original, so it makes no calls: use n_jobs=1, or make a new one."
            )
        if n > self.n_left:
            raise InvalidParameterError(
                f"{n:,} oracle calls are needed, and {self.n_left:,} of {self.n_queries * self.n_rounds:,} are left; "
                "pass more n_queries or n_rounds, or n_runs if several runs share the budget."
            )

    def _ask(self, account: object, X: Any) -> np.ndarray:
        """Rewards of designs (n,); the calls are counted before the oracle is called."""
        n = len(X)
        with self._lock:
            self._check_left(n)
            self._calls[account] = self._calls.get(account, 0) + n
        predict = getattr(self.oracle, "predict", self.oracle)
        try:
            rewards = np.asarray(predict(X), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidParameterError(f"the oracle must give one finite reward a design ({error}).") from error
        if rewards.shape != (n,) or not np.isfinite(rewards).all():
            raise InvalidParameterError(
                f"the oracle must give one finite reward for each of {n} designs; got shape {rewards.shape} with "
                f"{int((~np.isfinite(rewards)).sum())} not finite."
            )
        return rewards

    def digest_parts(self) -> tuple[Any, ...]:
        """Contents that identify a selection, independent of its use so far: the budget and the oracle.

        An oracle is known by its contents if it is an estimator, by its code if it is a function, or by its class.
        """
        oracle = self.oracle
        if not isinstance(oracle, BaseEstimator):
            oracle = getattr(oracle, "__code__", type(oracle))
        return oracle, self.n_queries, self.n_rounds, self.n_runs

    def __sklearn_clone__(self) -> BudgetedSelection:
        return self

    def __deepcopy__(self, memo: Any) -> BudgetedSelection:
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_copied": True, "_calls": {"original": self.n_calls}}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        name = getattr(self.oracle, "__name__", type(self.oracle).__name__)
        return f"BudgetedSelection({name}, n_queries={self.n_queries}, n_rounds={self.n_rounds}, n_runs={self.n_runs})"
