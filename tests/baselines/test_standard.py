"""Fine-tuning without a penalty is fine-tuning with a penalty of zero."""

import numpy as np
import pytest

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward
from braidkit.baselines import StandardFinetuner
from tests.baselines.worlds import trained


@pytest.mark.parametrize("kind", ["gaussian", "masked", "simplex"])
def test_standard_finetuner_is_the_objective_without_the_penalty(kind):
    """The same designs as with c = 0, whatever the penalty of its own reward."""
    chain, X, y = trained(kind, max_iter=20)
    X, y = X[::6], y[::6]
    settings = {"max_iter": 3, "batch_size": 16, "random_state": 0}
    small, large = GPBonusReward(c=0.0, max_iter=2), GPBonusReward(c=300.0, max_iter=2)
    standard = StandardFinetuner(chain, 0.1, reward=large, **settings).fit(X, y)
    without = ConservativeDiffusionFinetuner(chain, 0.1, reward=small, **settings).fit(X, y)
    conservative = ConservativeDiffusionFinetuner(chain, 0.1, reward=large, **settings).fit(X, y)
    assert standard.history_["mean"] == without.history_["mean"]
    assert standard.history_["kl"] == without.history_["kl"]
    assert np.array_equal(standard.sample(20, random_state=0), without.sample(20, random_state=0))
    assert standard.history_["kl"] != conservative.history_["kl"]
    # The penalty is still told.
    assert min(standard.history_["penalty"]) > 0 and max(without.history_["penalty"]) == 0


def test_its_parameters_are_those_of_the_conservative_one():
    assert StandardFinetuner(alpha=0.3).get_params() == ConservativeDiffusionFinetuner(alpha=0.3).get_params()
