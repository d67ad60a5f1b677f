"""Comparisons of small real estimators: nothing lost, nothing done twice, differences paired by seed."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace, SimplexDiffusion
from braidkit.baselines import SMCSampler
from braidkit.datasets import offline_split
from braidkit.evaluation import Comparison, compare
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.oracles import EnformerOracle

LENGTH = 10
SPACE = SequenceSpace("DNA", LENGTH)


def share_of_g(X):
    return np.array([row.count("G") / LENGTH for row in X])


class TopRows(BaseEstimator):
    """The best measured rows, drawn with replacement; `log` counts the fits."""

    def __init__(self, share=0.1, random_state=None, log=None):
        self.share = share
        self.random_state = random_state
        self.log = log

    def fit(self, X, y):
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"{self.random_state}\n")
        order = np.argsort(y)[::-1]
        self.rows_ = [X[i] for i in order[: max(1, round(self.share * len(X)))]]
        return self

    def sample(self, n_samples=1, random_state=None):
        return [self.rows_[i] for i in check_random_state(random_state).randint(len(self.rows_), size=n_samples)]


class FailsFor(TopRows):
    """Raises an error of the given kind for the given seed."""

    def __init__(self, share=0.1, random_state=None, log=None, seed=1, error=ZeroDivisionError):
        super().__init__(share, random_state, log)
        self.seed = seed
        self.error = error

    def fit(self, X, y):
        if self.random_state == self.seed:
            raise self.error("on purpose")
        return super().fit(X, y)


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (190, LENGTH))]
    return offline_split(X, share_of_g(X) + 0.02 * rng.normal(size=190), random_state=0)


@pytest.fixture(scope="module")
def chain(split):
    return SimplexDiffusion(SPACE, n_steps=4).fit(split.X_offline, max_iter=10, random_state=0)


ORACLES = {"truth": share_of_g}
REWARD = GPBonusReward(max_iter=20)


def values_of(comparison, **where):
    """The values of the rows where each column has the given entry, by seed."""
    table = comparison.results
    for column, entry in where.items():
        table = table[table[column] == entry]
    return table.set_index("seed")["value"]


def test_all_methods_are_judged_alike_beside_references(split, chain):
    methods = {"SMC": SMCSampler(reward=REWARD, n_particles=32), "top": TopRows()}
    comparison = compare(methods, split, oracles=ORACLES, seeds=(0, 3), n_designs=40, pretrained=chain)
    assert comparison.failures.empty
    assert list(comparison.results["method"].unique()) == [*methods, "offline", "pretrained", "natural", "shuffled"]
    measures = comparison.results[comparison.results["source"] != "cost"]
    sizes = measures.groupby(["method", "seed"]).size().unstack()
    # Of natural sequences from themselves there is no distance.
    assert (sizes.drop("natural") == sizes.loc["natural"] + 1).all(axis=None)
    assert sizes.loc["natural"].nunique() == 1
    for (method, seed), designs in comparison.designs.groupby(["method", "seed"]):
        assert len(designs) == 40
        truth = share_of_g(designs["design"])
        np.testing.assert_array_equal(designs["truth"], truth)
        expected = {"mean": truth.mean(), "median": np.median(truth), "95th percentile": np.quantile(truth, 0.95)}
        natural = share_of_g(comparison.designs.query(f"method == 'natural' and seed == {seed}")["design"])
        below = [np.mean(values[:, None] <= np.union1d(truth, natural), axis=0) for values in (truth, natural)]
        if method != "natural":
            expected["Kolmogorov-Smirnov"] = pytest.approx(np.abs(below[0] - below[1]).max())
        for metric, value in expected.items():
            assert values_of(comparison, method=method, source="truth", metric=metric)[seed] == value
    offline, natural = (comparison.designs.query(f"method == '{name}'")["design"] for name in ("offline", "natural"))
    assert set(offline) <= set(split.X_offline) and set(natural) <= set(split.X_oracle)
    # The methods' seed and chain are those of the comparison.
    alone = SMCSampler(chain, reward=REWARD, n_particles=32, random_state=3).fit(split.X_offline, split.y_offline)
    ours = comparison.designs.query("method == 'SMC' and seed == 3")["design"]
    assert alone.sample(40, random_state=3) == ours.tolist()


def test_comparison_lists_promised_rewards_beside_true_ones(split, chain, tmp_path):
    methods = {"tuned": ConservativeDiffusionFinetuner(reward=REWARD, max_iter=4, batch_size=8), "top": TopRows()}
    first, again = (
        compare(methods, split, oracles=ORACLES, seeds=[2], n_designs=10, pretrained=chain, cache_dir=tmp_path)
        for _ in range(2)
    )
    alone = methods["tuned"].set_params(pretrained=chain, random_state=2).fit(split.X_offline, split.y_offline)
    kept = alone.history_["iteration"].index(alone.best_iter_)
    for comparison in (first, again):  # computed, and from the cache
        promised = comparison.results.query("source == 'promised'")
        assert set(promised["method"]) == {"tuned"}
        expected = {name: values[kept] for name, values in alone.history_.items()}
        assert dict(zip(promised["metric"], promised["value"], strict=True)) == pytest.approx(expected)


def test_parallel_equals_serial(split, chain):
    methods = {"SMC": SMCSampler(reward=REWARD, n_particles=32), "top": TopRows()}
    serial, parallel = (
        compare(methods, split, oracles=ORACLES, seeds=(0, 1), n_designs=20, pretrained=chain, n_jobs=n_jobs)
        for n_jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(serial.designs, parallel.designs)
    without_cost = [comparison.results.query("source != 'cost'") for comparison in (serial, parallel)]
    pd.testing.assert_frame_equal(*without_cost)


def test_comparison_lists_failures_and_continues(split):
    methods = {"fails": FailsFor(), "top": TopRows()}
    comparison = compare(methods, split, oracles=ORACLES, seeds=(0, 1), n_designs=10)
    (failure,) = comparison.failures.to_dict("records")
    assert (failure["method"], failure["seed"], failure["stage"]) == ("fails", 1, "fit")
    assert failure["error"] == "ZeroDivisionError: on purpose" and "in fit" in failure["traceback"]
    assert list(values_of(comparison, method="fails", metric="mean").index) == [0]
    assert list(values_of(comparison, method="top", metric="mean").index) == [0, 1]


def test_an_oracle_that_fails_is_named(split):
    comparison = compare(
        {"top": TopRows()}, split, oracles={"odd": lambda X: np.full(len(X), np.nan)}, seeds=[0], n_designs=10
    )
    assert set(comparison.failures["stage"]) == {"oracle odd"}
    assert comparison.failures["error"].str.contains("one finite reward for each of 10 designs").all()


def test_comparison_rerun_uses_its_cache(split, tmp_path):
    log, cache = tmp_path / "log", tmp_path / "cache"

    def run(seeds=(0,), oracles=ORACLES, n_designs=10, **parameters):
        log.write_text("")
        comparison = compare(
            {"top": TopRows(log=str(log), **parameters)},
            split,
            oracles=oracles,
            seeds=seeds,
            n_designs=n_designs,
            cache_dir=cache,
        )
        return comparison, [int(seed) for seed in log.read_text().split()]

    first, fitted = run()
    assert fitted == [0]
    again, fitted = run()
    assert fitted == []
    pd.testing.assert_frame_equal(first.results, again.results)  # the costs too
    pd.testing.assert_frame_equal(first.designs, again.designs)
    assert run(seeds=(0, 1))[1] == [1]
    assert run(oracles={"A": lambda X: -share_of_g(X)})[1] == []
    assert run(share=0.2)[1] == [0]
    assert run(n_designs=11)[1] == [0]


def test_ctrl_c_keeps_what_is_done_and_the_next_call_goes_on(split, tmp_path):
    log = tmp_path / "log"

    def run(error):
        methods = {"top": TopRows(log=str(log)), "stopped": FailsFor(seed=1, error=error)}
        return compare(methods, split, oracles=ORACLES, seeds=(0, 1), n_designs=10, cache_dir=tmp_path / "cache")

    stopped = run(KeyboardInterrupt)
    assert list(values_of(stopped, method="top", metric="mean").index) == [0, 1]
    assert stopped.failures[["method", "seed", "stage"]].values.tolist() == [["stopped", 1, "not run"]]
    run(ZeroDivisionError)
    assert log.read_text().split() == ["0", "1"]


def test_ctrl_c_in_training_does_not_pass_for_a_finished_run(split, chain, tmp_path):
    """Fine-tuning alone keeps its best and returns; a comparison must not store that as the result."""

    calls = []

    class Interrupting(GPBonusReward):
        def standardised(self, x):
            calls.append(torch.is_grad_enabled())
            if sum(calls) > 1:  # the first gradient is that of a check before training
                raise KeyboardInterrupt
            return super().standardised(x)

    methods = {"BRAID": ConservativeDiffusionFinetuner(reward=Interrupting(max_iter=5), max_iter=2, batch_size=8)}
    stopped = compare(
        methods, split, oracles=ORACLES, seeds=[0], n_designs=5, pretrained=chain, cache_dir=tmp_path / "cache"
    )
    assert stopped.failures["stage"].tolist() == ["not run"]
    assert not list((tmp_path / "cache").glob("braid*"))


def test_a_chain_is_trained_once_a_seed_and_shared(split, tmp_path):
    log = tmp_path / "log"

    def train(steps, seed):
        with open(log, "a") as file:
            file.write(f"{seed}\n")
        if seed == 9:
            raise MemoryError("too large")
        return SimplexDiffusion(SPACE, n_steps=steps).fit(split.X_offline, max_iter=3, random_state=seed)

    def run(steps):
        methods = {"SMC": SMCSampler(reward=REWARD, n_particles=16), "top": TopRows()}
        return compare(
            methods,
            split,
            oracles=ORACLES,
            seeds=(0, 9),
            n_designs=8,
            pretrained=functools.partial(train, steps),
            cache_dir=tmp_path / "cache",
        )

    first = run(2)
    assert log.read_text().split() == ["0", "9"]
    failed = first.failures[["method", "seed", "stage", "error"]].values.tolist()
    assert ["SMC", 9, "pretraining", "MemoryError: too large"] in failed and len(failed) == 2
    assert list(values_of(first, method="top", metric="mean").index) == [0, 9]
    pd.testing.assert_frame_equal(first.designs, run(2).designs)
    assert log.read_text().split() == ["0", "9", "9"]
    run(3)
    assert log.read_text().split() == ["0", "9", "9", "0", "9"]
    assert len(list((tmp_path / "cache").glob("pretrained-0-*"))) == 2


def test_rows_that_an_oracle_was_trained_on(split):
    oracle = EnformerOracle(max_iter=2, random_state=0)
    oracle.fit([*split.X_oracle, split.X_offline[7]], np.r_[split.y_oracle, split.y_offline[7]])
    with pytest.raises(InvalidDesignError, match=r"1 of these 57 rows trained the EnformerOracle, row 7"):
        compare({"top": TopRows()}, split, oracles={"own": oracle, **ORACLES}, n_designs=10)
    oracle.fit(split.X_oracle, split.y_oracle)
    comparison = compare({"top": TopRows()}, split, oracles={"own": oracle, **ORACLES}, seeds=[0], n_designs=10)
    judged = comparison.results.query("source == 'own'")["method"].unique()
    # It knows the natural rows by heart; what it says of them would be no scale.
    assert list(judged) == ["top", "offline", "shuffled"]
    assert comparison.designs.query("method == 'natural'")["own"].isna().all()
    assert set(comparison.results.query("metric == 'Kolmogorov-Smirnov'")["source"]) == {"truth"}


def test_paired_differences_by_hand():
    values = {"a": [1.0, 2.0, 4.0], "b": [0.0, 2.5, 3.0]}
    rows = [(name, seed, "truth", "mean", value) for name in values for seed, value in enumerate(values[name])]
    rows += [("a", 0, "truth", "median", 5.0), ("b", 1, "truth", "median", 5.0)]
    table = pd.DataFrame(rows, columns=["method", "seed", "source", "metric", "value"])
    comparison = Comparison(table, pd.DataFrame(), pd.DataFrame())
    differences = comparison.differences("b")
    # 1, -0.5 and 1: mean 1/2, variance 3/4; the medians have no seed in common.
    assert list(differences.index) == [("a", "truth", "mean")]
    reach = student.ppf(0.975, 2) * np.sqrt(0.75 / 3)
    np.testing.assert_allclose(differences.loc["a"].to_numpy(), [[0.5, 0.5 - reach, 0.5 + reach, 3]])
    summary = comparison.summary(confidence=0.5)
    mean, low, high, n = summary.loc[("a", "truth", "mean")]
    assert n == 3 and mean == pytest.approx(7 / 3) and high - mean == pytest.approx(mean - low)
    assert high - mean == pytest.approx(student.ppf(0.75, 2) * np.std([1, 2, 4], ddof=1) / np.sqrt(3))
    assert summary.loc[("a", "truth", "median")].isna().tolist() == [False, True, True, False]
    with pytest.raises(InvalidParameterError, match="baseline must be one of 'a', 'b'; got 'c'"):
        comparison.differences("c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": {}}, "methods is empty"),
        ({"methods": {"natural": TopRows()}}, "cannot be called 'natural'"),
        ({"methods": {"reward": GPBonusReward()}}, "'reward' must be an estimator with fit and sample"),
        ({"oracles": {"seed": share_of_g}}, "cannot be called 'seed'"),
        ({"oracles": {"three": 3}}, r"oracle 'three' must have predict\(X\) or be callable; got 3"),
        ({"seeds": [1, 1]}, r"different whole numbers >= 0; got \[1, 1\]"),
        ({"n_designs": 0}, "n_designs must be a whole number of at least 1; got 0"),
        ({"pretrained": "model"}, "pretrained must be a trained DiffusionModel"),
    ],
)
def test_arguments_that_will_not_do(split, change, message):
    with pytest.raises(InvalidParameterError, match=message):
        compare(**({"methods": {"top": TopRows()}, "split": split, "oracles": ORACLES, "n_designs": 5} | change))
