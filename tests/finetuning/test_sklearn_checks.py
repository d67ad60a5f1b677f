"""scikit-learn's own checks, with nothing excused."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from braidkit import ConservativeDiffusionFinetuner


@parametrize_with_checks([ConservativeDiffusionFinetuner(max_iter=3)], expected_failed_checks=lambda _: {})
def test_scikit_learn_s_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([ConservativeDiffusionFinetuner()], expected_failed_checks=lambda _: {})
def test_scikit_learn_s_checks_with_the_usual_updates(estimator, check):
    check(estimator)
