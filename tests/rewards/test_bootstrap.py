import numpy as np
import pytest
import torch

from braidkit.exceptions import InvalidParameterError
from braidkit.rewards import BootstrapReward
from braidkit.rewards.kmers import KmerFeatures


def predictions(reward, X):
    """Each network's prediction (M, n) in y's units."""
    with torch.no_grad():
        x = reward.space_.encode(X)
        return np.stack([network(x).double().numpy() for network in reward.networks_]) * reward.y_std_ + reward.y_mean_


def test_mean_deviation_and_minimum_over_the_networks(vectors):
    X, y = vectors
    reward = BootstrapReward(n_estimators=4, max_iter=60, random_state=0).fit(X, y)
    each = predictions(reward, X)
    mean, std = reward.predict(X, return_std=True)
    np.testing.assert_allclose(mean, each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, each.std(axis=0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(reward.predict_lower(X), each.min(axis=0), rtol=1e-12)


def test_the_bound_is_one_network_s_prediction_and_its_gradient(sequences):
    X, y = sequences
    reward = BootstrapReward(max_iter=60, random_state=0).fit(X, y)
    x = reward.space_.encode(X[:10]).requires_grad_()
    lowest = predictions(reward, X[:10]).argmin(axis=0)
    own = torch.stack([reward.networks_[m](x)[i] for i, m in enumerate(lowest)]).sum() * reward.y_std_
    expected, gradient = (torch.autograd.grad(value, x)[0] for value in (own, reward.lower(x).sum()))
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_networks_differ_by_their_start_and_their_rows(vectors):
    X, y = vectors
    each = predictions(BootstrapReward(max_iter=60, random_state=0).fit(X, y), X)
    assert np.abs(each[0] - each[1]).max() > 0.01
    # From the same start, on nothing but their own draws.
    start = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh())
    each = predictions(BootstrapReward(start, max_iter=60, random_state=0).fit(X, y), X)
    assert np.abs(each[0] - each[1]).max() > 0.01


def test_networks_agree_near_the_data_and_part_far_from_it(vectors):
    X, y = vectors
    reward = BootstrapReward(random_state=0).fit(X, y)
    _, near = reward.predict(X, return_std=True)
    directions = np.random.default_rng(0).normal(size=(100, 3))
    _, far = reward.predict(X.mean(axis=0) + 20 * X.std(axis=0) * directions, return_std=True)
    assert np.median(far) > 3 * np.median(near)  # anywhere, networks may cross by chance


def test_few_nucleotide_sequences_are_counted_in_k_mers():
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(900, 12))]
    y = np.array([row.count("A") for row in X]) + 0.1 * rng.normal(size=900)
    few = BootstrapReward(random_state=0).fit(X[:800], y[:800])
    assert all(isinstance(network.features, KmerFeatures) for network in few.networks_)
    assert few.n_iter_ > 0 and few.score(X[800:], y[800:]) > 0.8
    more = BootstrapReward(max_iter=1, random_state=0).fit(X, y)  # 810 to train on
    assert not any(isinstance(network.features, KmerFeatures) for network in more.networks_)


def test_one_network_has_no_minimum(vectors):
    with pytest.raises(InvalidParameterError, match="n_estimators must be a whole number of at least 2; got 1"):
        BootstrapReward(n_estimators=1).fit(*vectors)
