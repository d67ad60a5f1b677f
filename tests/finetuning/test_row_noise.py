"""What is known of the noise of rows reaches reward, judge and chosen checkpoints."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace, TabularDiffusion
from braidkit.exceptions import InvalidParameterError, InvalidTargetError
from tests.worlds import untrained


def finetuner_and_data(**settings):
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(80, 4))]
    y = np.array([row.count("G") for row in X]) + 0.1 * rng.normal(size=80)
    chain = untrained(TabularDiffusion(SequenceSpace("DNA", 4), n_steps=2))
    return ConservativeDiffusionFinetuner(chain, max_iter=1, batch_size=8, random_state=0, **settings), X, y


def test_reward_and_judge_of_a_run_know_the_noise():
    finetuner, X, y = finetuner_and_data(reward=GPBonusReward(max_iter=2))
    y[:20] += 50.0
    weights = np.repeat([0.0, 1.0], [20, 60])
    finetuner.fit(X, y, sample_weight=weights)
    assert min(finetuner.judge_rows_) >= 20  # a row of weight 0 is nowhere
    assert max(finetuner.reward_.y_mean_, finetuner.judge_.y_mean_) < 4
    errors = np.linspace(0.1, 5, 80)
    finetuner.fit(X, y, y_error=errors)
    judge = GPBonusReward(random_state=0).fit(np.array(X)[finetuner.judge_rows_], y[finetuner.judge_rows_])
    assert finetuner.judge_.noise_ < judge.noise_  # what the errors explain is not the judge's


def test_a_regressor_that_takes_no_weights_is_refused():
    finetuner, X, y = finetuner_and_data(reward=KNeighborsRegressor(), solver="policy_gradient")
    with pytest.raises(InvalidParameterError, match="a KNeighborsRegressor, takes no sample_weight in fit; leave it"):
        finetuner.check(X, y, sample_weight=np.ones(80))


def test_weights_that_cannot_be_are_refused_before_any_work():
    finetuner, X, y = finetuner_and_data()
    with pytest.raises(InvalidTargetError, match="sample_weight: row 79 is -1"):
        finetuner.fit(X, y, sample_weight=[1.0] * 79 + [-1.0])
    with pytest.raises(InvalidTargetError, match="y_error: row 0 is 0 "):
        finetuner.check(X, y, y_error=np.arange(80))


@pytest.mark.parametrize(("noise", "text"), [(0.5, "they differ by 0.4"), (0.0, "they do not differ, so they are")])
def test_a_run_says_how_many_rows_are_replicates_and_what_they_differ_by(capsys, noise, text):
    finetuner, X, _ = finetuner_and_data(reward=GPBonusReward(max_iter=2), verbose=1)
    y = np.array([row.count("G") for row in X] * 2) + noise * np.random.default_rng(1).normal(size=160)
    finetuner.fit(X * 2, y)
    said = capsys.readouterr().out
    assert f"{160 - len(set(X))} of 160 rows repeat a design; {text}" in said, said
