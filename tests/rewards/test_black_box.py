"""Any regressor as a reward: its numbers reach tensors unchanged, and no gradient is pretended."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceEncoder, SequenceSpace
from braidkit.baselines import BestOfN
from braidkit.exceptions import InvalidParameterError, InvalidTargetError
from braidkit.rewards import BlackBoxReward

LETTERS = np.array(list("ACGT"))


@pytest.fixture(scope="module")
def sequences():
    generator = np.random.default_rng(0)
    X = ["".join(row) for row in generator.choice(LETTERS, (60, 5))]
    return X, np.array([row.count("G") for row in X], dtype=float)


def test_a_pipeline_on_strings_gives_the_same_numbers_for_points(sequences):
    X, y = sequences
    pipeline = make_pipeline(SequenceEncoder(), RandomForestRegressor(10, random_state=0))
    reward = BlackBoxReward(pipeline).fit(X, y)
    x = SequenceSpace("DNA", 5).encode(X[:7])
    assert reward.lower(x).tolist() == pytest.approx(reward.predict(X[:7]), rel=1e-6)
    mean, penalty = reward.mean_and_penalty(x)
    assert mean.tolist() == pytest.approx(reward.predict(X[:7]), rel=1e-6) and not penalty.any()
    assert not reward.lower(x.requires_grad_(True)).requires_grad
    assert reward.score(X, y) > 0.5 and reward.y_std_ == pytest.approx(y.std())
    assert not hasattr(pipeline, "n_features_in_")  # the user's own stays as it was


def test_a_bound_of_the_regressor_is_used(sequences):
    X, y = sequences
    inner = GPBonusReward(c=1.0, max_iter=5, random_state=0).fit(X, y)
    reward = BlackBoxReward(FrozenEstimator(inner)).fit(X, y)
    assert reward.predict_lower(X) == pytest.approx(inner.predict_lower(X))
    x = SequenceSpace("DNA", 5).encode(X)
    mean, penalty = reward.mean_and_penalty(x)
    assert (penalty > 0).all()
    assert (mean - penalty).tolist() == pytest.approx(inner.predict_lower(X), rel=1e-4, abs=1e-5)


def test_vectors_come_back_in_the_user_s_units():
    X = 100 + 5 * np.random.default_rng(0).normal(size=(30, 2))
    reward = BlackBoxReward(Ridge(alpha=1e-6)).fit(X, X.sum(axis=1))
    x = reward.space_.encode(X)
    assert reward.lower(x).tolist() == pytest.approx(X.sum(axis=1), rel=1e-5)


def test_black_box_reward_refuses_bad_measurements_and_a_missing_fit(sequences):
    X, y = sequences
    with pytest.raises(InvalidTargetError, match="row 2 is nan"):
        BlackBoxReward(Ridge()).fit(X, np.where(np.arange(60) == 2, np.nan, y))
    with pytest.raises(NotFittedError):
        BlackBoxReward(Ridge()).predict(X)


def test_an_unseeded_regressor_gives_the_same_reward_under_the_same_seed(sequences):
    X, y = sequences
    forest = make_pipeline(SequenceEncoder(), RandomForestRegressor(5))
    first, second = (BlackBoxReward(forest, random_state=0).fit(X, y).predict(X) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, BlackBoxReward(forest, random_state=1).fit(X, y).predict(X))
    assert forest[-1].random_state is None


class Column(Ridge):
    def predict(self, X):
        return super().predict(X)[:, None]


def test_predictions_of_another_shape_are_refused():
    X = np.random.default_rng(0).normal(size=(30, 2))
    with pytest.raises(InvalidParameterError, match=r"shape \(8,\); got shape \(8, 1\)"):
        BlackBoxReward(Column()).fit(X, X[:, 0]).predict(X)


def test_a_regressor_that_cannot_read_designs_is_named_before_a_chain_is_trained(sequences):
    X, y = sequences
    of_numbers = FrozenEstimator(Ridge().fit(np.eye(5), np.arange(5.0)))
    for designer in (
        ConservativeDiffusionFinetuner(reward=of_numbers, solver="policy_gradient", random_state=0),
        BestOfN(reward=of_numbers, random_state=0),
    ):
        with pytest.raises(InvalidParameterError, match="cannot be used on designs of kind 'strings'"):
            designer.fit(X, y)
        assert not hasattr(designer, "pretrained_")


def test_a_fitted_pipeline_of_another_package_is_used_as_it_is(sequences):
    X, y = sequences
    fitted = FrozenEstimator(make_pipeline(SequenceEncoder(), Ridge()).fit(X, y))
    sampler = BestOfN(reward=fitted, n_candidates=2, random_state=0).fit(X, y)
    assert sampler.reward_.predict(X) == pytest.approx(fitted.predict(X))
