"""What fine-tuning asks of a reward: braidkit's, and a user's own in y's units."""

import pytest
import torch

from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.contracts import check_scale, standardised


class InUnits:
    """A user's reward with a bound alone, of y around 1e9."""

    y_mean_, y_std_, space_ = 1e9, 2.0, None

    def lower(self, x):
        return x.sum(dim=1).double() + 1e9


class WithPenalty(InUnits):
    def mean_and_penalty(self, x):
        return self.lower(x) + 1.0, torch.ones(len(x))


@pytest.mark.parametrize(("reward", "penalty"), [(InUnits(), 0.0), (WithPenalty(), 0.5)])
def test_a_reward_in_the_units_of_y_is_standardised_with_its_gradient(reward, penalty):
    x = torch.tensor([[1.0, 2.0], [0.0, -4.0]], requires_grad=True)
    mean, found = standardised(reward, x)
    assert mean.tolist() == pytest.approx([1.5 + penalty, -2.0 + penalty]) and found.tolist() == [penalty] * 2
    assert mean.dtype == found.dtype == torch.float64
    assert torch.autograd.grad(mean.sum(), x)[0].tolist() == [[0.5, 0.5]] * 2


def test_a_reward_that_does_not_tell_its_scale_is_refused():
    class NoScale:
        y_mean_ = 0.0

    check_scale(InUnits())
    with pytest.raises(InvalidParameterError, match="reward has no y_std_ after fit; its fit must set"):
        check_scale(NoScale())
