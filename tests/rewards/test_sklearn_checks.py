"""scikit-learn's own checks of estimators."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from braidkit.rewards import BootstrapReward, GPBonusReward

# As of scikit-learn's own bagging: which rows a network draws depends on how many there are.
RESAMPLED = {"check_sample_weight_equivalence_on_dense_data": "rows are drawn at random"}


@parametrize_with_checks(
    [GPBonusReward(), BootstrapReward()],
    expected_failed_checks=lambda estimator: RESAMPLED if isinstance(estimator, BootstrapReward) else {},
)
def test_estimator(estimator, check):
    check(estimator)
