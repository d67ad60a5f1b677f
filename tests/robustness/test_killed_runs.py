"""Runs that are killed at their changes of the file system: the same call ends with the same designs."""

import numpy as np
import pandas as pd
import pytest
from click import ClickException
from sklearn.frozen import FrozenEstimator

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace, SimplexDiffusion
from braidkit.cli import main
from tests.kills import killed_at

pytest.importorskip("matplotlib").use("Agg")
# A run of the command makes about 130 changes.
AT = range(1, 140, 12)
# Sequences of so few letters are listed; longer ones are tempered.
LENGTHS = {"exact": 6, "tempering": 12}
N_ROWS = 44


def rows_of(length):
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (N_ROWS, length))]
    return X, [row.count("G") + 0.1 * rng.normal() for row in X]


@pytest.fixture(scope="module", params=["given", *LENGTHS])
def design(request, tmp_path_factory):
    """The command on a small table, into a directory; whether that held a finished run already."""
    folder = tmp_path_factory.mktemp("data")
    X, y = rows_of(LENGTHS.get(request.param, 6))
    pd.DataFrame({"seq": X, "mrl": y}).to_csv(folder / "t.csv", index=False)
    options = ["--sequence", "seq", "--target", "mrl", "--n", "4", "--max-iter", "2", "--quiet"]
    if request.param == "given":
        chain = SimplexDiffusion(SequenceSpace("DNA", 6), n_steps=2).fit(X, max_iter=2, random_state=0)
        chain.save_pretrained(folder / "chain")
        options += ["--pretrained", str(folder / "chain")]

    def run(out):
        try:
            main(["design", str(folder / "t.csv"), *options, "--out", str(out)], standalone_mode=False)
        except ClickException as error:
            if error.exit_code == 130:
                raise
            assert "holds a finished run" in str(error)
            return True
        except SystemExit as end:
            assert end.code in (0, 3)
        return False

    return run


@pytest.fixture(scope="module")
def straight(design, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "straight"
    design(out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("n", AT)
def test_a_run_killed_at_any_change_ends_with_the_same_designs(design, straight, tmp_path, monkeypatch, n):
    out = tmp_path / "run"
    killed_at(n, monkeypatch, lambda: design(out))
    finished = design(out)
    assert (out / "designs.csv").read_text() == (straight / "designs.csv").read_text()
    names, expected = ({path.name for path in folder.iterdir()} for folder in (out, straight))
    # Killed after its record said so, a finished run may still have its checkpoint.
    assert names == expected or (finished and names == expected | {"checkpoint"})


@pytest.mark.slow
@pytest.mark.parametrize("design", LENGTHS, indirect=True)
def test_ctrl_c_in_the_refit_keeps_the_run_to_go_on_with(design, straight, tmp_path, monkeypatch):
    fit = GPBonusReward.fit

    def interrupted(reward, X, y, **told):
        if len(X) == N_ROWS:
            raise KeyboardInterrupt
        return fit(reward, X, y, **told)

    with monkeypatch.context() as patch, pytest.raises(ClickException, match="give the same command again") as stopped:
        patch.setattr(GPBonusReward, "fit", interrupted)
        design(tmp_path / "run")
    assert stopped.value.exit_code == 130
    best_so_far = (tmp_path / "run" / "designs.csv").read_text()
    design(tmp_path / "run")
    assert (tmp_path / "run" / "designs.csv").read_text() == (straight / "designs.csv").read_text() != best_so_far


@pytest.mark.slow
@pytest.mark.parametrize("refits", [True, False])
@pytest.mark.parametrize("solver", LENGTHS)
def test_a_fit_killed_at_any_change_gives_the_designs_of_an_undisturbed_one(tmp_path, monkeypatch, solver, refits):
    X, y = rows_of(LENGTHS[solver])
    reward = None
    if not refits:
        fitted = GPBonusReward(max_iter=2, random_state=0, space=SequenceSpace("DNA", LENGTHS[solver])).fit(X, y)
        reward = FrozenEstimator(fitted)

    def outcome(name):
        finetuner = ConservativeDiffusionFinetuner(
            reward=reward, max_iter=3, batch_size=16, checkpoint_dir=tmp_path / name, random_state=0
        ).fit(X, y)
        assert (finetuner.checked_reward_ is not finetuner.reward_) == refits
        return finetuner.sample(20, random_state=0), finetuner.alpha_, finetuner.best_iter_, finetuner.history_

    straight = outcome("straight")
    for n in range(1, 100):
        if not killed_at(n, monkeypatch, lambda name=str(n): outcome(name)):
            assert n > 10
            return
        assert outcome(str(n)) == straight, n
    raise AssertionError("the fit has more changes than were tried")
