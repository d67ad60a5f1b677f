"""The judge contradicts a bound only if it predicts unseen rows about as well as the reward."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator
from torch import nn

from braidkit import GPBonusReward, SequenceSpace
from braidkit.evaluation.flags import JUDGED_WORSE, usual_flags

LENGTH, LETTERS = 12, "ACGT"
EFFECTS = np.random.default_rng(0).normal(size=(LENGTH, len(LETTERS)))
BEST = "".join(np.array(list(LETTERS))[EFFECTS.argmax(axis=1)])
# The best sequence of all and those that differ from it in one letter: beyond all rows.
DESIGNS = [BEST, *(BEST[:i] + new + BEST[i + 1 :] for i in range(LENGTH) for new in LETTERS if new != BEST[i])]


def truth(X):
    return np.array([sum(EFFECTS[i, LETTERS.index(letter)] for i, letter in enumerate(row)) for row in X])


@pytest.fixture(scope="module")
def additive():
    """The table of a laboratory: each letter has an effect of its own, and measurements have noise."""
    rng = np.random.default_rng(0)
    X = np.array(["".join(row) for row in rng.choice(list(LETTERS), (800, LENGTH))], dtype=object)
    return X, truth(X) + 0.25 * truth(X).std() * rng.normal(size=len(X))


def fitted(additive, n_judge):
    """The reward of 300 rows and the judge of some others, as a run has them."""
    X, y = additive
    space = SequenceSpace("DNA", LENGTH)
    ours, theirs = np.arange(300), np.arange(300, 300 + n_judge)
    reward, judge = (GPBonusReward(nn.Flatten(), space=space, random_state=0).fit(X[i], y[i]) for i in (ours, theirs))
    return SimpleNamespace(
        reward=None,
        reward_=reward,
        judge_=judge,
        reward_check_={"r2": reward.score(X[theirs], y[theirs])},
        judge_check_={"r2": judge.score(X[ours], y[ours])},
    )


def judged_worse(estimator, additive, lower):
    X, y = additive
    judge = estimator.judge_.predict(DESIGNS)
    table = pd.DataFrame({"mean": lower, "penalty": 0.0, "lower": lower, "judge": judge, "distance": 1})
    return usual_flags(estimator, table, X, y, np.random.RandomState(0), 100)[JUDGED_WORSE]


def test_a_judge_of_few_rows_does_not_contradict_good_designs(additive):
    X, y = additive
    estimator = fitted(additive, 24)
    lower = estimator.reward_.predict_lower(DESIGNS)
    assert (abs(lower - truth(DESIGNS)) < 0.4 * y.std()).all()  # the bound is right
    error = np.sqrt(np.mean((estimator.reward_.predict(X[300:]) - y[300:]) ** 2))
    assert (estimator.judge_.predict(DESIGNS) < lower - error).all()  # and the judge far below it
    assert not judged_worse(estimator, additive, lower).any()
    # A frozen reward may have seen the judge's rows: its error on them says nothing.
    estimator.reward = FrozenEstimator(estimator.reward_)
    assert judged_worse(estimator, additive, lower).all()


def test_a_judge_of_many_rows_contradicts_a_bound_that_is_too_high(additive):
    estimator = fitted(additive, 500)
    deviation = additive[1].std()
    assert judged_worse(estimator, additive, truth(DESIGNS) + 0.5 * deviation).all()
    assert not judged_worse(estimator, additive, truth(DESIGNS)).any()
