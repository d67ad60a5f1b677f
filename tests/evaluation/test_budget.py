"""The budget is kept under every use: rounds of runs, candidates of searches, copies in other processes."""

import copy
import pickle

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from braidkit import ConservativeDiffusionFinetuner, GaussianDiffusion, VectorSpace
from braidkit.evaluation import BudgetedSelection
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.oracles._base import hash_rows


class CountingOracle:
    """Designs near the point (1, 1) are best; it counts what it is asked."""

    def __init__(self):
        self.n_calls = 0

    def predict(self, X):
        self.n_calls += len(X)
        return -np.square(np.asarray(X) - 1).sum(axis=1)


class Constant:
    """A fitted estimator whose designs are all at one place."""

    def __init__(self, place):
        self.place = place

    def sample(self, n_samples=1, random_state=None):
        return np.full((n_samples, 2), float(self.place))


@pytest.fixture(scope="module")
def data():
    X = np.random.default_rng(0).normal(size=(76, 2))
    return X, X.sum(axis=1)


@pytest.fixture(scope="module")
def chain(data):
    return GaussianDiffusion(VectorSpace(2), n_steps=5, prior=None).fit(data[0], random_state=0)


def finetuner(chain, **parameters):
    settings = {"alpha": 1e-3, "solver": "direct", "max_iter": 6, "batch_size": 32, "random_state": 0} | parameters
    return ConservativeDiffusionFinetuner(chain, **settings)


uses = st.lists(
    st.one_of(
        st.tuples(st.just("score"), st.integers(1, 3)),
        st.tuples(st.just("choose"), st.integers(1, 5)),
        st.tuples(st.just("run"), st.integers(1, 9)),
        st.tuples(st.just("copy"), st.integers(1, 2)),
    ),
    max_size=8,
)


@hypothesis.given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 3), uses)
def test_no_use_exceeds_the_budget(n_queries, n_rounds, n_runs, uses):
    n_runs = min(n_runs, n_queries)
    oracle = CountingOracle()
    budget = BudgetedSelection(oracle, n_queries=n_queries, n_rounds=n_rounds, n_runs=n_runs)
    for number, (use, size) in enumerate(uses):
        before, left = oracle.n_calls, budget.n_left
        try:
            if use == "score":
                for _ in range(size):
                    budget(Constant(0))
            elif use == "choose":
                budget.choose([Constant(i) for i in range(size)])
            elif use == "run":
                budget.open_run(number, 0, size)
                for _ in range(size):
                    budget.query(number, np.zeros((20, 2)))
            else:
                pickle.loads(pickle.dumps(budget))(Constant(0))
        except InvalidParameterError:
            # Refused for want of calls, or of rounds, alone; and a run before its first round.
            assert use == "copy" or left < size * max(1, budget.n_designs) or size > n_rounds
            assert use in ("score", "copy") or oracle.n_calls == before
        assert oracle.n_calls == budget.n_calls == n_queries * n_rounds - budget.n_left
        assert oracle.n_calls <= n_queries * n_rounds


def test_a_run_keeps_the_checkpoint_that_the_oracle_likes(data, chain):
    oracle = CountingOracle()
    budget = BudgetedSelection(oracle, n_queries=40, n_rounds=7)
    with pytest.warns(UserWarning, match="over-optimisation: after update .* the oracle finds") as told:
        by_oracle = finetuner(chain, selection=budget, max_iter=24, n_iter_no_change=7).fit(*data)
    assert [warning.filename for warning in told] == [__file__]
    history = by_oracle.history_
    assert by_oracle.over_optimising_since_ == by_oracle.best_iter_
    assert oracle.n_calls == budget.n_calls == 40 * 7 == 40 * len(history["oracle"])
    assert budget.n_left == 0
    # The data say that more is better, without end; the oracle knows that (1, 1) is best.
    assert history["judge"][-1] == max(history["judge"])
    best = int(np.argmax(history["oracle"]))
    assert 0 < best < 6 and by_oracle.best_iter_ == history["iteration"][best]
    by_judge = finetuner(chain, max_iter=24).fit(*data)
    true = [oracle.predict(one.sample(200, random_state=1)).mean() for one in (by_oracle, by_judge)]
    assert true[0] > true[1] + 1


def test_the_first_designs_are_measured_and_the_rest_are_not(data):
    seen = []
    budget = BudgetedSelection(lambda X: seen.append(X) or np.zeros(len(X)), n_queries=5, n_rounds=2, n_runs=2)
    X = np.arange(20.0).reshape(10, 2)
    assert len(budget.query("run", X)) == 2
    assert np.array_equal(seen[0], X[:2])


def test_a_resumed_run_counts_what_it_has_had(data, chain, tmp_path):
    for max_iter, calls in ((3, 4), (6, 7)):
        budget = BudgetedSelection(CountingOracle(), n_queries=10, n_rounds=7)
        settings = {"n_iter_no_change": 9, "checkpoint_dir": tmp_path / "run", "selection": budget}
        run = finetuner(chain, max_iter=max_iter, **settings).fit(*data)
        assert budget.n_calls == 10 * len(run.history_["oracle"])
        assert len(run.history_["oracle"]) == calls
    assert budget.oracle.n_calls == 30


def test_a_run_that_failed_before_its_first_checkpoint_asks_for_no_design_again(data, chain, tmp_path):
    oracle, rounds = CountingOracle(), iter(range(9))

    def predict(X):
        if next(rounds) == 1:
            raise RuntimeError("the laboratory is closed")
        return oracle.predict(X)

    def run():
        selection = BudgetedSelection(predict, n_queries=10, n_rounds=4)
        settings = {"n_iter_no_change": 9, "checkpoint_dir": tmp_path / "run", "max_iter": 3}
        return finetuner(chain, selection=selection, **settings).fit(*data)

    with pytest.raises(RuntimeError, match="closed"):
        run()
    assert oracle.n_calls == 10 and not (tmp_path / "run" / "fine-tuning").exists()
    assert len(run().history_["oracle"]) == 4
    assert oracle.n_calls == 40


def test_runs_without_enough_calls_are_refused_before_any(data, chain):
    oracle = CountingOracle()
    budget = BudgetedSelection(oracle, n_queries=10, n_rounds=7)
    with pytest.raises(
        InvalidParameterError, match=r"needs 2 rounds \(0 of them done\), and the selection has n_round"
    ):
        finetuner(chain, selection=BudgetedSelection(oracle, n_queries=10, n_rounds=1)).fit(*data)
    budget.choose([Constant(0)])
    assert oracle.n_calls == 10
    with pytest.raises(InvalidParameterError, match="70 oracle calls are needed, and 60 of 70 are left"):
        finetuner(chain, selection=budget).fit(*data)
    assert oracle.n_calls == 10


def test_runs_share_a_budget_in_a_grid_search_and_are_not_measured_twice(data, chain):
    oracle = CountingOracle()
    # Two values on two folds, and the refit.
    budget = BudgetedSelection(oracle, n_queries=50, n_rounds=7, n_runs=5)
    search = GridSearchCV(finetuner(chain, selection=budget), {"alpha": [1e-3, 10.0]}, scoring=budget, cv=2)
    search.fit(*data)
    assert search.best_estimator_.selection is budget
    assert oracle.n_calls == budget.n_calls <= 350
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert budget(search.best_estimator_) == max(search.best_estimator_.history_["oracle"])


def test_a_grid_search_scores_each_candidate_in_a_round(data, chain):
    budget = BudgetedSelection(CountingOracle(), n_queries=20, n_rounds=4)
    search = GridSearchCV(finetuner(chain, max_iter=1), {"alpha": [1e-3, 10.0]}, scoring=budget, cv=2).fit(*data)
    assert budget.oracle.n_calls == 80 and budget.n_left == 0
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    with pytest.raises(InvalidParameterError, match="20 oracle calls are needed, and 0 of 80 are left"):
        budget(search.best_estimator_)


def test_the_best_of_fitted_estimators_is_chosen():
    budget = BudgetedSelection(CountingOracle(), n_queries=6, n_rounds=2)
    assert budget.choose({"far": Constant(5), "near": Constant(1.1), "middle": Constant(2)}) == "near"
    assert budget.n_calls == 3 * 4  # all that is left, in equal shares
    with pytest.raises(InvalidParameterError, match="1 oracle calls are needed, and 0 of 12 are left"):
        budget.choose([Constant(0)])
    with pytest.raises(InvalidParameterError, match="no estimator to choose from"):
        budget.choose([])


def test_clones_share_the_budget_and_copies_in_other_processes_have_none(chain):
    budget = BudgetedSelection(CountingOracle(), n_queries=2, n_rounds=2)
    assert clone(finetuner(chain, selection=budget)).selection is budget is copy.deepcopy(budget)
    budget(Constant(0))
    copied = pickle.loads(pickle.dumps(budget))
    assert (copied.n_calls, copied.n_left) == (2, 0)
    with pytest.raises(InvalidParameterError, match="copy of a BudgetedSelection in another process"):
        copied(Constant(0))
    assert budget.n_left == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"oracle": 3}, "oracle must have predict"),
        ({"n_queries": 0}, "n_queries must be a whole number of at least 1"),
        ({"n_rounds": 2.5}, "n_rounds must be a whole number"),
        ({"n_queries": 2, "n_runs": 3}, "3 runs cannot share 2 designs a round"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InvalidParameterError, match=message):
        BudgetedSelection(**({"oracle": CountingOracle()} | arguments))


def test_an_oracle_that_was_trained_on_held_out_rows_is_refused():
    oracle = CountingOracle()
    oracle.row_hashes_ = hash_rows(["ACGT"])
    budget = BudgetedSelection(oracle)
    with pytest.raises(InvalidDesignError, match="1 of these 2 rows trained the CountingOracle"):
        budget(Constant(0), ["AAAA", "ACGT"])
    assert budget.n_calls == 0


@pytest.mark.parametrize(
    ("rewards", "message"),
    [(lambda X: np.zeros((len(X), 1)), "got shape"), (lambda X: np.full(len(X), np.nan), "3 not finite")],
)
def test_an_oracle_that_gives_no_rewards_is_refused(rewards, message):
    with pytest.raises(InvalidParameterError, match=message):
        BudgetedSelection(rewards, n_queries=3)(Constant(0))
