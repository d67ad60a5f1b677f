"""The score of a designer: a fresh reward's lower bound of its designs."""

import numpy as np
import pytest

from braidkit import GPBonusReward, SequenceSpace
from braidkit.finetuning.designer import Designer


class Listed(Designer):
    """A designer whose designs are given."""

    def __init__(self, designs, batch_size=32):
        self.designs = designs
        self.batch_size = batch_size

    def fit(self, X, y):
        self.space_ = SequenceSpace("DNA", len(X[0]))
        self.n_features_in_ = len(X[0])
        return self

    def sample(self, n_samples=1, random_state=None):
        return (self.designs * n_samples)[:n_samples]


@pytest.fixture(scope="module")
def data():
    """Random sequences of 20 letters, measured by their share of C, mostly noise."""
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(150, 20))]
    return X, np.array([row.count("C") / 20 for row in X]) + 0.4 * rng.normal(size=150)


def test_it_is_the_mean_less_one_deviation(data):
    X, y = data
    judge = GPBonusReward(c=1, random_state=0).fit(X, y)
    mean, lower = judge.predict(X[:32]), judge.predict_lower(X[:32])
    assert (lower < mean).all()
    assert Listed(X).fit(X, y).score(X, y) == pytest.approx(lower.mean())


def test_a_mean_of_what_was_never_measured_cannot_win(data):
    X, y = data
    judge = GPBonusReward(random_state=0).fit(X, y)
    far, near = ["C" * 20], sorted(X, key=lambda row: row.count("C"))[-20:]
    assert judge.predict(far).mean() > judge.predict(near).mean()
    assert Listed(far).fit(X, y).score(X, y) < Listed(near).fit(X, y).score(X, y)
