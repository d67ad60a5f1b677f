"""Fine-tuning for several measured quantities."""

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator
from torch import nn

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward
from braidkit.datasets import read_table
from braidkit.exceptions import CheckpointError, InvalidParameterError, InvalidTargetError
from braidkit.rewards import ObjectiveReward

RNG = np.random.default_rng(0)
X = ["".join(row) for row in RNG.choice(list("ACGT"), (78, 4))]


def count(designs, letter):
    return np.array([design.count(letter) for design in designs])


Y = pd.DataFrame(
    {
        "on": count(X, "G") + count(X, "A") + 0.2 * RNG.normal(size=78),
        "off": count(X, "A") + 0.2 * RNG.normal(size=78),
    }
)


# Without networks, which no claim here is about.
REWARD = GPBonusReward(nn.Flatten())


def finetuner(objective, reward=REWARD, **settings):
    return ConservativeDiffusionFinetuner(alpha=0.1, reward=reward, objective=objective, random_state=0, **settings)


def run(objective, y=Y, **settings):
    return finetuner(objective, **settings).fit(X, y)


@pytest.fixture(scope="module")
def runs():
    return {text: run(text) for text in ("on - off", "min(on, off)", "on if off <= 0.5")}


def test_designs_are_high_in_one_quantity_and_low_in_the_other(runs):
    for text in ("on - off", "on if off <= 0.5"):
        designs = runs[text].sample(100, random_state=0)
        assert count(designs, "G").mean() > 2.5 and count(designs, "A").mean() < 0.5, text


def test_a_minimum_wants_both(runs):
    designs = runs["min(on, off)"].sample(100, random_state=0)
    assert count(designs, "A").mean() > 2.5


def test_reward_and_judge_have_a_part_for_each_quantity(runs):
    fitted = runs["on - off"]
    for reward in (fitted.reward_, fitted.judge_):
        assert isinstance(reward, ObjectiveReward) and list(reward.rewards_) == ["on", "off"]
    assert 1 <= fitted.judge_spread_ < 20 and fitted.reward_check_["r2"] > 0.5
    assert fitted.score(X[:50], Y[:50]) > (Y["on"] - Y["off"]).mean()


def test_one_quantity_may_be_made_small():
    designs = run("-off", Y["off"]).sample(50, random_state=0)
    assert count(designs, "A").mean() < 0.5


def test_scale_and_origin_of_a_quantity_change_no_design(runs):
    designs = run("on - 0.001 * off", Y.assign(off=1000 * Y["off"] + 7)).sample(20, random_state=0)
    assert designs == runs["on - off"].sample(20, random_state=0)


def test_errors_and_weights_of_quantities_reach_their_rewards():
    errors = np.c_[np.full(78, np.nan), np.full(78, 0.2)]
    fitted = finetuner("on - off").fit(X, Y, y_error=errors, sample_weight=np.repeat([0.0, 1.0], [10, 68]))
    assert min(fitted.judge_rows_) >= 10
    noise = {name: reward.noise_ for name, reward in fitted.reward_.rewards_.items()}
    assert noise["off"] < 0.1 < noise["on"]  # the errors explain that of one


def test_a_saved_estimator_keeps_its_objective(runs, tmp_path):
    fitted = runs["on if off <= 0.5"]
    fitted.save(tmp_path)
    again = ConservativeDiffusionFinetuner.load(tmp_path)
    np.testing.assert_allclose(again.reward_.predict_lower(X), fitted.reward_.predict_lower(X))
    np.testing.assert_array_equal(again.judge_.combine(Y), fitted.judge_.combine(Y))


def test_a_run_resumes_only_for_the_same_objective(tmp_path):
    run("on - off", checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match="objective was 'on - off', now 'on - 2[*]off'"):
        run("on - 2*off", checkpoint_dir=tmp_path)


@pytest.mark.parametrize(
    ("objective", "y", "error", "text"),
    [
        ("on - of", Y, InvalidParameterError, "names 'of', but what is measured is: on, off"),
        (None, Y, InvalidTargetError, "Several quantities need an objective of them"),
        ("on - off", Y.assign(off=1.0), InvalidTargetError, "target 'off' is constant"),
        ("on - off", Y.assign(off=np.nan), InvalidTargetError, "off contains NaN: row 0"),
    ],
)
def test_what_cannot_be_is_refused(objective, y, error, text):
    with pytest.raises(error, match=text):
        run(objective, y)


@pytest.mark.data
def test_affinity_of_tite_seq_without_loss_of_expression(data_dir):
    targets = [
        f"{name}={','.join(f'{column}_rep{i}' for i in (1, 2, 3))}"
        for name, column in (("affinity", "minus_log10_kd"), ("expression", "expression"))
    ]
    table = read_table(data_dir / "antibody_titeseq.csv.gz", target=targets)
    y = pd.DataFrame(table.y, columns=table.targets)
    rng = np.random.default_rng(0)
    some = np.concatenate([np.argsort(-y["affinity"])[:20], rng.permutation(len(y))[:38]])
    chosen = {}
    for objective in ("affinity + 0*expression", "affinity if expression >= 0.9"):
        reward = ObjectiveReward(objective, REWARD)
        reward.fit(np.array(table.sequences)[some], y.iloc[some], y_error=table.y_error[some])
        best = np.argsort(-reward.predict_lower(table.sequences))[:20]
        chosen[objective] = y.iloc[best].mean()
    plain, kept = chosen.values()
    assert kept["expression"] > plain["expression"] and kept["affinity"] > y["affinity"].mean()


def test_a_frozen_reward_is_refused():
    reward = FrozenEstimator(GPBonusReward(nn.Flatten()).fit(X, Y["on"]))
    with pytest.raises(InvalidParameterError, match="a frozen reward has its quantities"):
        run("on - off", reward=reward)
