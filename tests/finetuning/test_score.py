"""The score of a designer: a fresh reward's lower bound of its designs."""

import numpy as np
import pytest

from braidkit import GPBonusReward, SequenceSpace
from braidkit.finetuning.designer import SCORE_DESIGNS, Designer


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


def data(seed):
    """Random sequences of 20 letters, measured by their share of C, mostly noise."""
    rng = np.random.default_rng(seed)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(55, 20))]
    return X, np.array([row.count("C") / 20 for row in X]) + 0.4 * rng.normal(size=55)


def test_score_is_the_mean_less_one_deviation():
    X, y = data(0)
    judge = GPBonusReward(c=1, random_state=0).fit(X, y)
    rows = (X * 5)[:SCORE_DESIGNS]
    mean, lower = judge.predict(rows), judge.predict_lower(rows)
    assert (lower < mean).all()
    assert Listed(X).fit(X, y).score(X, y) == pytest.approx(lower.mean())
    assert Listed(X, batch_size=8).fit(X, y).score(X, y) == Listed(X, batch_size=512).fit(X, y).score(X, y)


@pytest.mark.parametrize("seed", range(4))
def test_designs_far_from_the_measured_ones_pay_more(seed):
    X, y = data(seed)
    judge = GPBonusReward(random_state=0).fit(X, y)
    far, near = ["C" * 20] * 32, sorted(X, key=lambda row: row.count("C"))[-32:]
    paid = [judge.predict(designs).mean() - Listed(designs).fit(X, y).score(X, y) for designs in (far, near)]
    assert paid[0] > 2 * paid[1] > 0


def test_score_follows_the_units_of_y():
    X, y = data(0)
    y = np.round(256 * y) / 256
    plain = Listed(X).fit(X, y).score(X, y)
    for scale, shift in ((1e-9, 0.0), (1e9, 0.0), (1.0, 1e9)):
        score = Listed(X).fit(X, y).score(X, scale * (y + shift))
        assert score / scale - shift == pytest.approx(plain, abs=1e-6)
