"""After the judge has chosen a checkpoint, reward and chain are fitted again to all rows."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward
from braidkit.evaluation import CalibrationReport
from braidkit.finetuning import TemperingSolver
from braidkit.training import noted_interrupts

RNG = np.random.default_rng(0)
X = ["".join(row) for row in RNG.choice(list("ACGT"), (120, 6))]
Y = np.array([row.count("G") + 0.3 * (row[0] == row[5]) + 0.3 * RNG.normal() for row in X])


REWARD = GPBonusReward(torch.nn.Flatten())


class StoppedAtSecondFit(GPBonusReward):
    """A reward that is stopped by the user when it is fitted on all rows."""

    def fit(self, X, y, **told):
        if len(X) == len(Y):
            raise KeyboardInterrupt
        return super().fit(X, y, **told)


@pytest.fixture(scope="module")
def finetuner():
    return ConservativeDiffusionFinetuner(reward=REWARD, random_state=0).fit(X, Y)


def test_refit_learns_from_all_rows_and_the_check_is_of_rows_never_seen(finetuner):
    held_out = finetuner.judge_rows_
    assert len(held_out) == 30
    # Rows that a reward has learned from have a smaller penalty than rows that it has not.
    penalties = {}
    for name in ("reward_", "checked_reward_"):
        reward = getattr(finetuner, name)
        penalties[name] = (reward.predict(X) - reward.predict_lower(X))[held_out].mean()
    assert penalties["reward_"] < penalties["checked_reward_"]
    rows = [X[i] for i in held_out]
    assert finetuner.reward_check_["r2"] == pytest.approx(finetuner.checked_reward_.score(rows, Y[held_out]))


def test_refitted_chain_is_the_optimum_of_the_reward_of_all_rows(finetuner):
    designs = finetuner.model_.designs(torch.arange(4**6))
    reward = finetuner.reward_
    lower = (torch.from_numpy(reward.predict_lower(designs.numpy())) - reward.y_mean_) / reward.y_std_
    # Equation (7)
    optimum = (finetuner.pretrained_.table().log_probs() + lower / finetuner.alpha_).softmax(dim=0)
    torch.testing.assert_close(finetuner.model_.table().log_probs().exp(), optimum, rtol=0, atol=1e-6)


def test_calibration_report_is_of_the_reward_before_the_refit(finetuner):
    report = CalibrationReport.from_estimator(finetuner, X, Y, backtest=False, random_state=0)
    share = report.loc("held out")["one_sided"]
    assert share == pytest.approx(finetuner.reward_check_["overall"])


def test_both_rewards_are_saved(finetuner, tmp_path):
    finetuner.save(tmp_path / "run")
    loaded = ConservativeDiffusionFinetuner.load(tmp_path / "run")
    for name in ("reward_", "checked_reward_"):
        np.testing.assert_array_equal(getattr(loaded, name).predict(X), getattr(finetuner, name).predict(X))


def test_frozen_reward_is_not_refitted():
    reward = clone(REWARD).fit(X, Y)
    finetuner = ConservativeDiffusionFinetuner(reward=FrozenEstimator(reward), random_state=0).fit(X, Y)
    assert finetuner.checked_reward_ is finetuner.reward_


def test_resumed_run_refits_from_the_alpha_of_an_undisturbed_one(finetuner, tmp_path, monkeypatch):
    fit = GPBonusReward.fit

    def stopped(reward, X, y, **told):
        if len(X) == len(Y):
            raise KeyboardInterrupt
        return fit(reward, X, y, **told)

    resumed = clone(finetuner).set_params(checkpoint_dir=tmp_path)
    with noted_interrupts(), monkeypatch.context() as patch:
        patch.setattr(GPBonusReward, "fit", stopped)
        resumed.fit(X, Y)
    assert resumed.checked_reward_ is resumed.reward_
    resumed.fit(X, Y)
    assert (resumed.alpha_, resumed.history_) == (finetuner.alpha_, finetuner.history_)


def test_refit_that_is_stopped_keeps_what_the_judge_chose(capsys):
    with noted_interrupts() as noted:
        stopped = ConservativeDiffusionFinetuner(reward=StoppedAtSecondFit(torch.nn.Flatten()), random_state=0).fit(
            X, Y
        )
    assert noted == ["refit"]
    assert stopped.checked_reward_ is stopped.reward_
    assert "refit: stopped by the user" in capsys.readouterr().out
    assert stopped.best_iter_ == 1
    assert len(set(stopped.sample(20, random_state=0))) > 5


def test_tempering_refits_at_the_alpha_of_the_kept_checkpoint():
    rows = ["".join(row) for row in np.random.default_rng(1).choice(list("ACGT"), (150, 12))]
    y = np.array([row.count("G") for row in rows]) + 0.1 * np.random.default_rng(2).normal(size=150)
    finetuner = ConservativeDiffusionFinetuner(reward=REWARD, max_iter=12, batch_size=64, random_state=0).fit(rows, y)
    assert finetuner.checked_reward_ is not finetuner.reward_
    assert 0.02 <= finetuner.alpha_ < 10
    assert np.mean([row.count("G") for row in finetuner.sample(100, random_state=0)]) > y.mean() + y.std()


def test_a_refit_finds_the_alpha_of_a_limit_again(capsys):
    """The kept alpha of a run that a limit ended belongs to the reward before the refit."""
    rows = ["".join(row) for row in np.random.default_rng(1).choice(list("ACGT"), (150, 12))]
    y = np.array([row.count("G") for row in rows]) + 0.1 * np.random.default_rng(2).normal(size=150)
    settings = {"reward": REWARD, "alpha": 0.01, "batch_size": 64, "random_state": 0, "verbose": 1}
    solver = TemperingSolver(n_effective=5000)
    limited = ConservativeDiffusionFinetuner(solver=solver, max_iter=25, **settings).fit(rows, y)
    said = capsys.readouterr().out
    assert "chain from alpha 0.01 on" in said and f"refit: done, at alpha {limited.alpha_:.3g}" in said
    assert limited.alpha_ > 0.02  # the limit ended the refit too
    ConservativeDiffusionFinetuner(solver=solver, max_iter=2, **settings).fit(rows, y)
    assert "chain from alpha 0.01 on" not in capsys.readouterr().out  # the run was on its way
