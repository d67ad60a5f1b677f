"""Measurements of one design stay together: what a bound and R2 promise is for new designs."""

import numpy as np
import pytest

from braidkit import BootstrapReward, ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace, SimplexDiffusion
from braidkit.datasets import offline_split
from braidkit.evaluation import CalibrationReport
from braidkit.finetuning.held_out import split_for_judge
from braidkit.spaces import design_groups
from tests.worlds import untrained

LENGTH = 10


def replicated(n_designs=300, seed=0, times=5):
    """Sequences measured several times each, whose values no letters tell: R2 on new ones cannot be above 0."""
    rng = np.random.default_rng(seed)
    X = np.array(["".join(row) for row in rng.choice(list("ACGT"), size=(n_designs, LENGTH))])
    y = rng.normal(size=n_designs).repeat(times) + 0.1 * rng.normal(size=times * n_designs)
    order = rng.permutation(times * n_designs)
    return X.repeat(times)[order], y[order]


def test_a_calibrated_bound_holds_for_new_sequences():
    shares = []
    for seed in range(4):
        X, y = replicated(200, seed=seed, times=3)
        new, truth = replicated(400, seed=100 + seed, times=1)
        reward = GPBonusReward(c="calibrated", max_iter=20, random_state=seed).fit(X, y)
        shares.append(np.mean(truth >= reward.predict_lower(new)))
    assert np.mean(shares) > 0.93


def test_what_a_run_says_of_its_reward_is_of_new_sequences():
    X, y = replicated(80)
    chain = untrained(SimplexDiffusion(SequenceSpace("DNA", LENGTH), n_steps=2))
    finetuner = ConservativeDiffusionFinetuner(chain, max_iter=1, batch_size=8, random_state=0).fit(X, y)
    assert finetuner.reward_check_["r2"] < 0.1
    in_judge = np.isin(np.arange(len(X)), finetuner.judge_rows_)
    assert set(X[in_judge]).isdisjoint(X[~in_judge]) and in_judge.sum() == len(X) // 4


@pytest.mark.parametrize("kind", [GPBonusReward, BootstrapReward])
def test_no_split_of_a_reward_tears_a_design_or_a_group_apart(kind):
    X, y = replicated(40)
    own, families = design_groups(X), np.array([row[:1] for row in X])
    reward = kind(validation_fraction=0.2, max_iter=1, random_state=0)
    for groups, expected in ((own, 40), (design_groups(families), 4)):
        parts = reward._split_rows(groups, expected // 4, np.random.RandomState(0))
        assert sorted(np.concatenate(parts)) == list(range(len(X)))
        sets = [set(groups[part]) for part in parts]
        assert len(sets[0]) == expected // 4 and sum(map(len, sets)) == len(set.union(*sets)) == expected
    assert kind(max_iter=1, random_state=0).fit(X, y, groups=families).predict(X[:3]).shape == (3,)


def test_without_replicates_the_splits_are_of_rows():
    y = np.random.default_rng(0).normal(size=100)
    both = [split_for_judge(y, 0.25, 0, groups) for groups in (None, np.arange(100))]
    assert all(np.array_equal(*pair) for pair in zip(*both, strict=True))
    parts = GPBonusReward()._split_rows(np.arange(100), 10, np.random.RandomState(0))
    assert np.array_equal(np.concatenate(parts), np.random.RandomState(0).permutation(100))


def test_offline_split_and_the_backtest_keep_replicates_together():
    X, y = replicated(60)
    split = offline_split(X, y, random_state=0)
    assert set(X[split.oracle_indices]).isdisjoint(X[split.pool_indices])

    class Spy(GPBonusReward):
        seen: list = []

        def fit(self, X, y, groups=None):
            self.seen.append(set(X))
            return super().fit(X, y, groups)

    reward = Spy(max_iter=1, random_state=0).fit(X, y)
    report = CalibrationReport.from_reward(reward, X, y)
    # Three of 60 designs lie above the quantile, with all their rows.
    assert report.loc("backtest")["n"] == 15 and len(Spy.seen[1]) == 57
