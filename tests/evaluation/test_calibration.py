"""Coverage against normal noise, whose shares are known; and warnings where a bound falls short."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.frozen import FrozenEstimator

from braidkit import GPBonusReward
from braidkit.evaluation import CalibrationReport
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError
from braidkit.oracles._base import hash_rows


class FirstFeature(RegressorMixin, BaseEstimator):
    """A reward that knows the first feature up to the largest that it was fitted on; its penalty is the second's size.

    It notes the rows that it was fitted on.
    """

    def __init__(self, c=1.0, level=None):
        self.c = c
        self.level = level

    def fit(self, X, y):
        self.y_ = np.array(y)
        return self

    def predict(self, X):
        return np.minimum(X[:, 0], self.y_.max())

    def predict_lower(self, X):
        return self.predict(X) - np.abs(X[:, 1])


class FirstFeatureOracle:
    def __init__(self, slope=1.0):
        self.slope = slope

    def predict(self, X):
        return self.slope * X[:, 0]


def world(penalty=1.0, n=20_000):
    """Feature 0 plus standard normal noise is measured; the penalty is the same everywhere."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.uniform(0, 10, n), np.full(n, penalty)])
    return X, X[:, 0] + rng.normal(size=n)


def fitted(**parameters):
    return FirstFeature(**parameters).fit(None, [1000.0])


@pytest.mark.parametrize("penalty", [0.5, 1.0, 2.0])
def test_shares_are_those_of_the_noise_in_every_decile(penalty):
    report = CalibrationReport.from_reward(fitted(), *world(penalty), backtest=False)
    everywhere = report.loc("held out")
    assert everywhere["n"] == 20_000
    assert everywhere["one_sided"] == pytest.approx(norm.cdf(penalty), abs=0.01)
    assert everywhere["two_sided"] == pytest.approx(2 * norm.cdf(penalty) - 1, abs=0.01)
    share, half = everywhere["one_sided"], 1.96 * norm.cdf(penalty) ** 0.5 * norm.sf(penalty) ** 0.5 / 20_000**0.5
    assert everywhere["one_sided_low"] == pytest.approx(share - half, abs=1e-3)
    assert everywhere["one_sided_high"] == pytest.approx(share + half, abs=1e-3)
    assert everywhere["penalty"] == pytest.approx(penalty)
    assert everywhere["optimism"] == pytest.approx(0, abs=0.03)
    deciles = report.coverage[report.coverage["group"].str.contains("mean decile")]
    assert deciles["n"].tolist() == [2000] * 10
    assert deciles["one_sided"].to_numpy() == pytest.approx(norm.cdf(penalty), abs=0.03)
    assert report.warnings == []


def test_deciles_are_by_the_predicted_mean_and_by_the_penalty():
    X, y = world()
    X[:, 1] = np.random.default_rng(1).permutation(np.repeat([0.1, 3.0], 10_000))
    report = CalibrationReport.from_reward(
        fitted(), X, y + np.where(X[:, 0] > np.quantile(X[:, 0], 0.9), -5, 0), backtest=False
    )
    by_penalty = [report.loc("held out", f"penalty decile {i + 1}") for i in range(10)]
    assert [row["penalty"] for row in by_penalty] == pytest.approx([0.1] * 5 + [3.0] * 5)
    assert by_penalty[9]["one_sided"] > 0.85 > 0.6 > by_penalty[0]["one_sided"]
    by_mean = [report.loc("held out", f"mean decile {i + 1}") for i in range(10)]
    assert by_mean[9]["optimism"] == pytest.approx(5, abs=0.1) and by_mean[8]["optimism"] == pytest.approx(0, abs=0.1)
    # What is predicted highest, and chosen therefore, holds least: that is said.
    assert len(report.warnings) == 1
    assert "of the tenth of held-out rows that is predicted highest" in report.warnings[0]
    assert f"against {100 * report.loc('held out')['one_sided']:.0f} % of all held-out rows" in report.warnings[0]


def test_only_rows_that_are_held_out_count():
    X, y = world(n=2000)
    wrong = y.copy()
    wrong[:1000] = -100
    report = CalibrationReport.from_reward(fitted(), X, wrong, held_out=range(1000, 2000), backtest=False)
    alone = CalibrationReport.from_reward(fitted(), X[1000:], y[1000:], backtest=False)
    assert report.coverage.equals(alone.coverage)


def test_the_backtest_fits_a_clone_below_the_quantile_and_checks_it_above():
    X, y = world(n=4000)
    reward = fitted()
    report = CalibrationReport.from_reward(reward, X, y, held_out=range(100))
    assert reward.y_.tolist() == [1000.0]
    above = y > np.quantile(y, 0.95)
    row = report.loc("backtest")
    assert row["n"] == above.sum() == 200
    # The clone's mean is cut off at the highest measurement below the quantile.
    mean = np.minimum(X[above, 0], y[~above].max())
    assert row["optimism"] == pytest.approx((mean - y[above]).mean())
    assert row["one_sided"] == 1 and row["two_sided"] == pytest.approx((np.abs(y[above] - mean) <= 1).mean())
    assert f"the reward is {-row['optimism']:.3g} too low above it" in report.notes[0]
    assert "Spearman correlation" in report.notes[0]


def test_a_backtest_that_cannot_be_made_is_said_to_be_missing():
    X, y = world(n=60)
    for reward, rows, reason in (
        (FrozenEstimator(fitted()), 60, "reward is frozen"),
        (fitted(), 50, "3 rows lie above"),
    ):
        report = CalibrationReport.from_reward(reward, X[:rows], y[:rows])
        assert set(report.coverage["rows"]) == {"held out"}
        assert report.notes[0].startswith("No backtest") and reason in report.notes[0]


def test_few_rows_have_no_deciles():
    X, y = world(n=49)
    assert CalibrationReport.from_reward(fitted(), X, y, backtest=False).coverage["group"].tolist() == ["all"]


def test_designs_are_judged_by_the_oracle():
    X, y = world()
    designs = np.column_stack([np.linspace(8, 12, 100), np.full(100, 1.5)])
    known = {"designs": designs, "backtest": False}
    report = CalibrationReport.from_reward(fitted(), X, y, oracle=FirstFeatureOracle(), **known)
    row = report.loc("designs")
    assert row["n"] == 100 and row["one_sided"] == row["two_sided"] == 1 and row["optimism"] == 0
    assert "100 % of designs have a penalty above that of 99 % of held-out rows" in report.notes[0]
    assert report.warnings == []
    fooled = CalibrationReport.from_reward(fitted(), X, y, oracle=FirstFeatureOracle(0.7), **known)
    assert fooled.loc("designs")["one_sided"] == 0
    assert fooled.warnings == [
        "The lower bound holds for 0 % of designs, by the oracle, against 84 % of all held-out rows."
    ]
    without = CalibrationReport.from_reward(fitted(), X, y, **known)
    assert "designs" not in set(without.coverage["rows"]) and len(without.notes) == 1


def test_a_level_that_was_asked_for_is_held_against_the_shares():
    X, y = world(penalty=1.0)
    warnings = CalibrationReport.from_reward(fitted(), X, y, level=0.95, backtest=False).warnings
    assert warnings[0] == "The lower bound holds for 84 % of held-out rows, against 95 % that were asked for."
    calibrated = CalibrationReport.from_reward(fitted(c="calibrated", level=0.8), X, y, backtest=False)
    assert calibrated.level == 0.8 and calibrated.warnings == []


def test_a_calibrated_reward_keeps_its_promise_on_rows_like_its_own():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1100, 2))
    y = X.sum(axis=1) + rng.normal(size=1100)
    reward = GPBonusReward(c="calibrated", level=0.9, max_iter=20, random_state=0).fit(X[:600], y[:600])
    report = CalibrationReport.from_reward(reward, X, y, held_out=range(600, 1100), random_state=0)
    assert report.level == 0.9
    assert report.loc("held out")["one_sided"] == pytest.approx(0.9, abs=0.06)
    assert report.loc("backtest")["n"] == 55


def test_an_estimator_is_checked_on_the_rows_of_its_judge_and_on_its_designs(run):
    oracle = CountG()
    report = CalibrationReport.from_estimator(*run, oracle=oracle, n_designs=30, random_state=0)
    assert report.loc("held out")["n"] == 58
    rows = run.finetuner.judge_rows_
    X, y = [run.X[i] for i in rows], run.y[rows]
    assert report.loc("held out")["one_sided"] == (y >= run.finetuner.reward_.predict_lower(X)).mean()
    assert report.loc("designs")["n"] == 30
    without = CalibrationReport.from_estimator(*run, oracle=oracle, n_designs=30, backtest=False, random_state=0)
    assert without.coverage.equals(report.coverage[report.coverage["rows"] != "backtest"].reset_index(drop=True))
    with pytest.raises(InvalidParameterError, match="X and y have 10 rows, but the estimator was fitted on more"):
        CalibrationReport.from_estimator(run.finetuner, run.X[:10], run.y[:10])


def test_an_oracle_that_was_trained_on_the_rows_is_refused(run):
    oracle = CountG()
    oracle.row_hashes_ = hash_rows(run.X[:2])
    with pytest.raises(InvalidDesignError, match="2 of these 232 rows trained the CountG"):
        CalibrationReport.from_estimator(*run, oracle=oracle)


class CountG:
    def predict(self, X):
        return [row.count("G") + 0.5 * row.count("A") for row in X]


def test_calibration_report_as_text():
    X, y = world(n=1000)
    lines = str(CalibrationReport.from_reward(fitted(), X, y, level=0.99)).splitlines()
    assert lines[0] == "Lower bound of the reward (asked to hold for 99 %)"
    assert lines[1].split() == ["rows", "bound", "holds", "within", "penalty", "mean", "penalty", "mean", "-", "truth"]
    assert lines[2].startswith("held out, all ")
    assert lines[-1].startswith("Warning: The lower bound holds for ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"oracle": FirstFeatureOracle()}, "an oracle has nothing to judge; pass designs"),
        ({"held_out": [3, 50]}, "row numbers of X, 0 to 49"),
        ({"held_out": []}, "row numbers of X, 0 to 49"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InvalidParameterError, match=message):
        CalibrationReport.from_reward(fitted(), *world(n=50), **arguments)


def test_a_group_that_is_not_there_is_named():
    report = CalibrationReport.from_reward(fitted(), *world(n=50), backtest=False)
    with pytest.raises(InvalidParameterError, match="no 'designs', 'all'; its rows are: held out"):
        report.loc("designs")


def test_held_out_rows_may_be_numbers_or_booleans():
    X, y = world(n=200)
    mask = np.arange(200) < 60
    numbers, booleans = (
        CalibrationReport.from_reward(fitted(), X, y, held_out=rows, backtest=False).coverage
        for rows in (np.flatnonzero(mask), mask)
    )
    assert numbers.equals(booleans) and numbers.iloc[0]["n"] == 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": np.zeros(20, dtype=bool)}, "held_out must be row numbers of X, 0 to 19, or 20 booleans, some"),
        ({"held_out": np.ones(19, dtype=bool)}, "held_out must be row numbers"),
        ({"held_out": [0.5, 1.0]}, "held_out must be row numbers"),
        ({"held_out": [20]}, "held_out must be row numbers"),
        ({"level": 2}, "level must be a number > 0 and < 1; got 2"),
        ({"level": -1}, "level must be a number > 0 and < 1; got -1"),
        ({"level": float("nan")}, "level must be a number > 0 and < 1; got nan"),
    ],
)
def test_settings_out_of_range(changes, message):
    X, y = world(n=20)
    with pytest.raises(InvalidParameterError, match=message):
        CalibrationReport.from_reward(fitted(), X, y, backtest=False, **changes)


def test_missing_measurements_are_told():
    X, y = world(n=20)
    y[3] = np.nan
    with pytest.raises(InvalidTargetError, match="row 3 is nan"):
        CalibrationReport.from_reward(fitted(), X, y)
