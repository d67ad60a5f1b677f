"""Real measurements whose every design is known: the exact gap of a trained network, before and after."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import one_hot

from braidkit import GPBonusReward, MaskedDiffusion, SequenceSpace
from braidkit.finetuning import Problem, TrajectoryBalanceSolver
from braidkit.theory import masked_gap, masked_states, sequence_law, tilted


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.theorem
def test_trajectory_balance_closes_the_exact_gap_on_tfbind8(data_dir):
    """Path KL to the optimum (7) of a learned bound, over all 390,625 partly masked 8-mers."""
    data = pd.read_csv(data_dir / "tfbind8.csv.gz").sort_values("sequence")
    X, y = data["sequence"].to_numpy(), data["SIX6"].to_numpy()
    lower_half = y <= np.median(y)
    space, alpha = SequenceSpace("DNA", 8), 0.15
    chain = MaskedDiffusion(space).fit(X[lower_half], max_iter=600, batch_size=512, random_state=0)
    reward = GPBonusReward(space=space, random_state=0).fit(X[lower_half], y[lower_half])
    bound = torch.from_numpy(reward.predict_lower(X)) / reward.y_std_
    states = one_hot(masked_states(8, 4), 5)[..., :4].float()
    pretrained = chain.letter_log_probs(states)
    target = tilted(sequence_law(pretrained), bound, alpha).exp()

    model = chain.trainable_copy()
    problem = Problem(
        model, chain, lambda point: reward.lower(point) / reward.y_std_, alpha, 256, 3e-3, max_grad_norm=1.0, seed=0
    )
    solver = TrajectoryBalanceSolver(n_replay=0).setup(problem)
    assert float(masked_gap(pretrained, pretrained, bound, alpha)) > 2
    for i in range(200):
        solver.optimizer.param_groups[0]["lr"] = 3e-3 * (1 - i / 200)
        solver.update(i)
    tuned = model.letter_log_probs(states)
    assert 0 <= float(masked_gap(tuned, pretrained, bound, alpha)) < 0.25
    assert float((sequence_law(tuned).exp() - target).abs().sum() / 2) < 0.25
