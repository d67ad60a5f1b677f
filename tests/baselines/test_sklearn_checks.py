"""scikit-learn's own checks, with nothing excused."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from braidkit.baselines import DDOM, BestOfN, ClassifierGuidance, RewardAscent, SMCSampler, StandardFinetuner

BASELINES = [BestOfN(), ClassifierGuidance(), DDOM(), RewardAscent(), SMCSampler(), StandardFinetuner()]


@parametrize_with_checks(BASELINES, expected_failed_checks=lambda _: {})
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)
