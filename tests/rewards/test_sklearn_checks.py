"""scikit-learn's own checks of estimators, with no expected failure."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from braidkit.rewards import BootstrapReward, GPBonusReward


@parametrize_with_checks([GPBonusReward(), BootstrapReward()])
def test_estimator(estimator, check):
    check(estimator)
