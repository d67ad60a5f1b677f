"""scikit-learn's own checks of estimators; networks of the Gaussian process are trained briefly."""

from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from braidkit.rewards import BlackBoxReward, BootstrapReward, GPBonusReward, ObjectiveReward

# As of scikit-learn's own bagging: which rows a network draws depends on how many there are.
RESAMPLED = {"check_sample_weight_equivalence_on_dense_data": "rows are drawn at random"}


@parametrize_with_checks(
    [
        GPBonusReward(max_iter=20),
        BootstrapReward(max_iter=60),
        ObjectiveReward("2*y", GPBonusReward(max_iter=2, random_state=0)),
    ],
    expected_failed_checks=lambda estimator: RESAMPLED if isinstance(estimator, BootstrapReward) else {},
)
def test_estimator(estimator, check):
    check(estimator)


@parametrize_with_checks([BlackBoxReward(Ridge())], expected_failed_checks=lambda _: {})
def test_a_regressor_as_a_reward(estimator, check):
    check(estimator)
