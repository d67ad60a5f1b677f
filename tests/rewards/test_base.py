"""What every conservative reward must do."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch import nn

from braidkit.exceptions import (
    IncompatibleModelError,
    InvalidDesignError,
    InvalidParameterError,
    InvalidTargetError,
)
from braidkit.rewards import BootstrapReward, GPBonusReward
from braidkit.spaces import SequenceSpace, VectorSpace


def test_a_reward_learns_from_sequences(fitted, sequences):
    assert fitted.space_ == SequenceSpace("DNA", 12)
    assert fitted.score(*sequences) > 0.6


def test_strings_of_every_kind_give_the_same_predictions(reward, sequences):
    X, y = (part[:80] for part in sequences)
    expected = reward.set_params(max_iter=2).fit(X, y).predict(X)
    series = pd.Series(X, index=range(1000, 1000 + len(X)))
    for kind in (np.array(X), np.array(X, dtype=object), series, [row.lower() for row in X]):
        np.testing.assert_array_equal(clone(reward).fit(kind, pd.Series(y)).predict(kind), expected)


def test_the_space_may_be_given(reward, sequences):
    X, y = (part[:80] for part in sequences)
    space = SequenceSpace("ACGT", 12)
    reward.set_params(max_iter=2)
    expected = clone(reward).fit(X, y).predict(X)
    tokens = space.encode(X).argmax(dim=2).numpy()
    reward.set_params(space=space).fit(tokens, y)
    assert reward.n_features_in_ == 12
    np.testing.assert_array_equal(reward.predict(tokens), expected)
    np.testing.assert_array_equal(reward.predict(X), expected)


def test_predictions_follow_the_units_of_y(reward, vectors):
    X, y = vectors
    plain = clone(reward).fit(X, y)
    (mean, std), lower = plain.predict(X, return_std=True), plain.predict_lower(X)
    # 1024 and 2 are exact in binary, so that standardised y differs by rounding of the sums alone.
    other = clone(reward).fit(X, 1024 * y + 2)
    other_mean, other_std = other.predict(X, return_std=True)
    np.testing.assert_allclose(other_mean, 1024 * mean + 2, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(other_std, 1024 * std, rtol=1e-4)
    np.testing.assert_allclose(other.predict_lower(X), 1024 * lower + 2, rtol=1e-5, atol=1e-2)


@settings(max_examples=8)
@given(width=st.integers(1, 10), n=st.integers(2, 40), scale=st.sampled_from([1e-3, 1.0, 1e6]), seed=st.integers(0, 99))
@pytest.mark.parametrize("kind", [GPBonusReward, BootstrapReward])
def test_penalty_is_not_negative_at_any_width_and_scale(kind, width, n, scale, seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, width)), scale * rng.normal(size=n)
    reward = kind(max_iter=5, random_state=seed).fit(X, y)
    query = 10 * rng.normal(size=(7, width))
    mean, std = reward.predict(query, return_std=True)
    assert np.isfinite(mean).all()
    assert (std >= 0).all()
    assert (reward.predict_lower(query) <= mean).all()


def test_lower_of_points_is_predict_lower_of_designs(fitted, sequences):
    X, _ = sequences
    x = fitted.space_.encode(X)
    mean, penalty = fitted.mean_and_penalty(x)
    np.testing.assert_allclose(mean, fitted.predict(X), rtol=1e-5)
    np.testing.assert_allclose(fitted.lower(x), fitted.predict_lower(X), rtol=1e-5)
    assert torch.equal(fitted.lower(x), mean - penalty)
    assert mean.dtype == torch.float64


def test_standardised_is_without_the_units_of_y(fitted, sequences):
    X, _ = sequences
    mean, penalty = fitted.standardised(fitted.space_.encode(X))
    assert mean.dtype == penalty.dtype == torch.float64
    np.testing.assert_allclose(mean, (fitted.predict(X) - fitted.y_mean_) / fitted.y_std_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean - penalty, (fitted.predict_lower(X) - fitted.y_mean_) / fitted.y_std_, atol=1e-5)


@settings(max_examples=6)
@given(scale=st.sampled_from([1e-9, 0.37, 1e9]), shift=st.sampled_from([0.0, -1e6, 1e9]))
@pytest.mark.parametrize("kind", [GPBonusReward, BootstrapReward])
def test_a_scale_and_a_shift_of_y_change_nothing_standardised(kind, scale, shift):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    y = np.round(64 * X.sum(axis=1)) / 64  # exact after the shift, too
    plain, other = (kind(max_iter=20, random_state=0).fit(X, part) for part in (y, scale * (y + shift)))
    x = plain.space_.encode(X)
    for ours, expected in zip(other.standardised(x), plain.standardised(x), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_lower_has_finite_gradients_at_relaxed_points(fitted):
    x = torch.softmax(torch.randn(5, 12, 4, generator=torch.Generator().manual_seed(0)), dim=2).requires_grad_()
    mean, penalty = fitted.mean_and_penalty(x)
    for value in (mean.sum(), penalty.sum()):
        (gradient,) = torch.autograd.grad(value, x, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert (gradient.flatten(1).abs().amax(dim=1) > 0).all()


def test_gradient_of_lower_matches_finite_differences(reward, vectors):
    X, y = vectors
    reward.fit(X, y)
    x = reward.space_.encode(X[:4])
    direction = torch.tensor([0.3, -0.5, 0.8])
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(reward.lower(point).sum(), point)
    step = 1e-2
    difference = (reward.lower(x + step * direction) - reward.lower(x - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient @ direction).double(), difference, rtol=1e-2, atol=1e-3)


def test_predictions_do_not_depend_on_autocast(fitted, sequences):
    x = fitted.space_.encode(sequences[0][:20])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = fitted.lower(x)
    assert torch.equal(under_autocast, fitted.lower(x))


def test_batches_do_not_change_predictions(fitted, sequences):
    X, _ = sequences
    many = X * 5  # more than one batch of prediction
    np.testing.assert_allclose(fitted.predict_lower(many), np.tile(fitted.predict_lower(X), 5), rtol=1e-5)


@pytest.mark.parametrize("data", ["vectors", "sequences"])  # the sequences' networks draw dropout masks
def test_a_seed_gives_the_same_fit_and_leaves_the_global_ones(reward, data, request):
    X, y = (part[:100] for part in request.getfixturevalue(data))
    reward.set_params(max_iter=10)
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    first = clone(reward).fit(X, y).predict_lower(X)
    assert torch.equal(torch.rand(2), expected[0])
    np.testing.assert_array_equal(np.random.rand(2), expected[1])  # noqa: NPY002
    np.testing.assert_array_equal(clone(reward).fit(X, y).predict_lower(X), first)
    assert not np.array_equal(clone(reward).set_params(random_state=1).fit(X, y).predict_lower(X), first)


def test_a_fitted_reward_can_be_pickled_copied_and_frozen(fitted, sequences):
    X, y = sequences
    x = fitted.space_.encode(X[:9])
    expected = fitted.lower(x)
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted), clone(FrozenEstimator(fitted))):
        assert torch.equal(other.lower(x), expected)
    assert clone(FrozenEstimator(fitted)).fit(X, -y).space_ == fitted.space_


def test_features_of_one_s_own_are_copied_and_trained(reward, vectors):
    X, y = vectors
    features = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
    before = copy.deepcopy(features.state_dict())
    reward.set_params(features=features, max_iter=300, learning_rate=1e-2).fit(X, y)
    assert all(torch.equal(features.state_dict()[name], before[name]) for name in before)
    assert features.training and features[0].weight.requires_grad
    assert reward.score(X, y) > 0.7


def test_rows_and_columns_of_the_callers_arrays_stay(reward, vectors):
    X, y = vectors
    held = X.copy(), y.copy()
    X.setflags(write=False)
    y.setflags(write=False)
    reward.fit(X, y).predict(X)
    np.testing.assert_array_equal(X, held[0])
    np.testing.assert_array_equal(y, held[1])


def test_training_stops_on_held_out_rows(reward):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 8)), rng.normal(size=300)  # nothing to learn
    reward.set_params(max_iter=1000, validation_fraction=0.3).fit(X, y)
    assert reward.n_iter_ < 1000
    assert len(reward.validation_curve_) >= 5


def test_predict_before_fit_is_refused(reward):
    with pytest.raises(NotFittedError):
        reward.predict(["ACGT"])
    with pytest.raises(NotFittedError):
        reward.lower(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X, y: (X, np.full(len(y), 2.5)), InvalidTargetError, r"y is constant \(every one .* is 2.5\)"),
        (lambda X, y: (X, np.where(np.arange(len(y)) == 4, np.nan, y)), InvalidTargetError, r"row 4 is nan"),
        (lambda X, y: (X, np.where(np.arange(len(y)) == 7, np.inf, y)), InvalidTargetError, r"row 7 is inf"),
        (lambda X, y: (X[:-1], y), InvalidDesignError, r"299 designs, but y has 300 measurements"),
        (lambda X, y: ([*X[:-1], "ACGTXACGTACG"], y), InvalidDesignError, r"row 299: 'X' at position 5"),
        (lambda X, y: (X[:1], y[:1]), InvalidDesignError, r"1 sample; a minimum of 2"),
    ],
)
def test_bad_designs_and_measurements_are_refused(reward, sequences, change, error, message):
    with pytest.raises(error, match=message):
        reward.fit(*change(*sequences))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"max_iter": 0}, InvalidParameterError, "max_iter must be a whole number of at least 1; got 0"),
        ({"batch_size": 1.5}, InvalidParameterError, "batch_size must be a whole number"),
        ({"learning_rate": -1}, InvalidParameterError, "learning_rate must be a number > 0 or .auto.; got -1"),
        ({"validation_fraction": 1}, InvalidParameterError, "validation_fraction must be a number >= 0 and < 1; got 1"),
        ({"space": "DNA"}, InvalidParameterError, "space must be a design space"),
        ({"device": "tpu9"}, InvalidParameterError, "device must be"),
        ({"features": nn.Linear(2, 2)}, IncompatibleModelError, "features cannot be applied"),
        ({"space": VectorSpace(4)}, InvalidDesignError, "vectors"),
    ],
)
def test_parameters_are_checked(reward, sequences, parameters, error, message):
    with pytest.raises(error, match=message):
        reward.set_params(**parameters).fit(*sequences)
