"""scikit-learn's own checks, with nothing excused; training is cut short, which no check is about."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from braidkit import GPBonusReward
from braidkit.baselines import DDOM, BestOfN, ClassifierGuidance, RewardAscent, SMCSampler, StandardFinetuner

REWARD = GPBonusReward(max_iter=2)
BASELINES = [
    BestOfN(n_candidates=2, reward=REWARD, batch_size=16),
    ClassifierGuidance(max_iter=2, batch_size=16),
    DDOM(max_iter=2, batch_size=16),
    RewardAscent(n_steps=2, reward=REWARD, batch_size=16),
    SMCSampler(n_particles=8, reward=REWARD, batch_size=16),
]


@parametrize_with_checks(BASELINES, expected_failed_checks=lambda _: {})
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([StandardFinetuner(reward=REWARD, max_iter=1)], expected_failed_checks=lambda _: {})
def test_scikit_learn_s_checks_of_fine_tuning(estimator, check):
    check(estimator)
