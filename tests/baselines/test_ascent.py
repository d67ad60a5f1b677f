"""Reward ascent maximises the reward, wherever that leads."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor

from braidkit import GPBonusReward, VectorSpace
from braidkit.baselines import RewardAscent
from braidkit.exceptions import InvalidParameterError
from tests.baselines.worlds import mean_truth, same_designs, world


@pytest.mark.parametrize("kind", ["gaussian", "simplex"])
def test_reward_ascent_improves_on_the_best_rows(kind):
    chain, X, y = world(kind)
    method = RewardAscent(reward=GPBonusReward(max_iter=50), random_state=0, n_starts=40).fit(X, y)
    starts = method.space_.decode(method.starts_)
    assert len(starts) == 40 and mean_truth(starts) == pytest.approx(np.sort(y)[-40:].mean())
    designs = method.sample(40, random_state=0)
    before, after = (method.reward_.predict(rows) for rows in (starts, designs))
    assert after.mean() > before.mean() + y.std() and mean_truth(designs) > y.max() - 0.5
    assert method.space_.kind_of(designs) == chain.space.kind_of(X)


def test_the_path_of_adam_is_that_of_the_reward_s_gradient():
    """On a reward that is linear in a vector, Adam's steps all have the length of its rate, in the gradient's signs."""

    class Exact(torch.nn.Module):
        def forward(self, x):
            return x

    X = np.random.default_rng(0).normal(size=(300, 2))
    reward = GPBonusReward(features=Exact(), max_iter=1, lam=1e-6)
    settings = {"n_starts": 1, "n_steps": 20, "learning_rate": 0.05, "random_state": 0}
    method = RewardAscent(reward=reward, space=VectorSpace(2), **settings)
    method.fit(X, X @ [3.0, -1.0])
    moved = method.space_.encode(method.sample(1)) - method.starts_
    assert moved[0].tolist() == pytest.approx([1.0, -1.0], abs=1e-3)


def test_reward_ascent_promises_more_than_is_true():
    """The warning: where measurements level off outside the data, the reward's value of the designs is not theirs."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(59, 4))
    method = RewardAscent(space=VectorSpace(4), random_state=0).fit(X, np.tanh(X.sum(axis=1)))
    designs = method.sample(50, random_state=0)
    promised, kept = method.reward_.predict(designs), np.tanh(designs.sum(axis=1))
    assert promised.mean() > kept.mean() + 0.5
    assert np.abs(designs).max() > 1.5 * np.abs(X).max()


def test_starts_come_once_before_any_comes_again_and_batches_do_not_matter():
    _, X, y = world("gaussian", n=50)
    method = RewardAscent(random_state=0, n_starts=6, n_steps=5).fit(X, y)
    designs = method.sample(8, random_state=1)
    assert len(np.unique(designs[:6].round(6), axis=0)) == 6 and np.allclose(designs[6:], designs[:2], atol=1e-5)
    method.set_params(batch_size=3)
    assert same_designs(designs, method.sample(8, random_state=1))


def test_bad_parameters_are_told_before_any_work():
    X, y = np.eye(3), [0.0, 1.0, 2.0]
    with pytest.raises(InvalidParameterError, match="a black box has no gradient"):
        RewardAscent(reward=RandomForestRegressor()).fit(X, y)
    with pytest.raises(InvalidParameterError, match="n_starts must be a whole number of at least 1"):
        RewardAscent(n_starts=0).fit(X, y)
    with pytest.raises(InvalidParameterError, match="n_steps must be a whole number of at least 1"):
        RewardAscent(n_steps=1.5).fit(X, y)
    with pytest.raises(InvalidParameterError, match="learning_rate must be a number > 0"):
        RewardAscent(learning_rate=0).fit(X, y)
