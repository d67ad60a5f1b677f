"""The best of n draws against the law of a maximum."""

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from braidkit import GPBonusReward
from braidkit.baselines import BestOfN
from braidkit.exceptions import InvalidParameterError
from tests.baselines.worlds import KINDS, mean_truth, same_designs, trained
from tests.worlds import normal_chain


def on_normals(n_candidates, **settings):
    """Standard normal designs, liked in their own order."""
    X = np.random.default_rng(0).normal(size=(50, 1))
    return BestOfN(normal_chain(n_steps=4), n_candidates, reward=LinearRegression(), **settings).fit(X, X[:, 0])


@pytest.mark.theorem
@pytest.mark.parametrize("n_candidates", [2, 8])
def test_designs_have_the_law_of_a_maximum(n_candidates):
    """P(best <= x) = Phi(x)^n."""
    designs = on_normals(n_candidates).sample(1000, random_state=0)[:, 0]
    assert stats.kstest(designs, lambda x: stats.norm.cdf(x) ** n_candidates).pvalue > 0.01


def test_one_candidate_is_the_pretrained_model():
    method = on_normals(1)
    assert same_designs(method.sample(9, random_state=3), method.pretrained_.sample(9, random_state=3))


def test_neither_the_batch_nor_the_number_asked_for_changes_a_design():
    whole = on_normals(5).sample(11, random_state=2)
    assert same_designs(whole, on_normals(5, batch_size=4).sample(11, random_state=2))
    assert same_designs(whole[:3], on_normals(5).sample(3, random_state=2))


@pytest.mark.parametrize("kind", KINDS)
def test_designs_of_every_chain_get_better(kind):
    chain, X, y = trained(kind, max_iter=50)
    method = BestOfN(chain, reward=GPBonusReward(max_iter=50), random_state=0).fit(X, y)
    assert method.pretrained_ is chain
    assert mean_truth(method.sample(30, random_state=0)) > y.mean() + y.std()


def test_held_out_rows_judge_the_designs():
    _, X, y = trained("gaussian", max_iter=1)
    fitted = BestOfN(reward=GPBonusReward(max_iter=150), random_state=0).fit(X, y)
    assert fitted.score(X[::8], y[::8]) > y.mean() + y.std()


def test_bad_parameters_are_told_before_any_work():
    with pytest.raises(InvalidParameterError, match="n_candidates must be a whole number of at least 1; got 0"):
        BestOfN(n_candidates=0).fit([[0.0], [1.0]], [0.0, 1.0])
    with pytest.raises(InvalidParameterError, match="pretrained must be a DiffusionModel or None"):
        BestOfN("model/").fit([[0.0], [1.0]], [0.0, 1.0])
    with pytest.raises(InvalidParameterError, match="n_samples must be a whole number of at least 1; got 0"):
        on_normals(2).sample(0)
