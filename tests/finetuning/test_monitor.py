"""The judge's early stop, on a world where the reward misleads and the judge does not."""

import pytest
import torch

from braidkit.finetuning import DirectSolver, evaluate
from braidkit.finetuning.monitor import Monitor
from braidkit.training import train
from tests.worlds import normal_chain, problem_on


class Upwards:
    """A reward that wants ever larger designs, with a penalty of one tenth."""

    y_std_ = 1.0

    def mean_and_penalty(self, x):
        return x[:, 0], torch.full((len(x),), 0.1)

    def lower(self, x):
        return x[:, 0] - 0.1


def judge(x):
    """The truth: designs near 1 are best."""
    return -(x[:, 0].mean() - 1).abs().expand(len(x))


def run(max_iter=60, **settings):
    pretrained = normal_chain(n_steps=6)
    reward = Upwards()
    solver = DirectSolver().setup(problem_on(pretrained, reward.lower, alpha=1e-3))
    noise = pretrained.draw_noise(500, torch.Generator().manual_seed(0))
    monitor = Monitor(solver, reward, judge, noise, **({"every": 2, "patience": 3} | settings))
    if monitor.resume() == 0:
        monitor.evaluate(0)
    n_iter = train(solver, max_iter, callbacks=[monitor])
    return solver, monitor, noise, n_iter


def test_an_over_optimising_run_is_stopped_and_the_judge_s_favourite_kept():
    solver, monitor, noise, n_iter = run()
    history = monitor.history
    assert 0 < monitor.best_iter < n_iter == monitor.best_iter + 2 * 3
    assert history["lower"][-1] == max(history["lower"]) and history["judge"][-1] < max(history["judge"])
    monitor.restore_best()
    kept = judge(evaluate(solver.problem.model, solver.problem.pretrained, noise).point)[0]
    assert float(kept) == pytest.approx(max(history["judge"]), abs=1e-5)


def test_the_history_holds_the_averages_of_designs_and_the_path_kl():
    solver, monitor, noise, n_iter = run(max_iter=4)
    path = evaluate(solver.problem.model, solver.problem.pretrained, noise)
    last = {name: values[-1] for name, values in monitor.history.items()}
    assert last["iteration"] == n_iter == 4
    assert last["mean"] == pytest.approx(float(path.point.mean()), abs=1e-5)
    assert last["lower"] == pytest.approx(last["mean"] - last["penalty"]) and last["penalty"] == pytest.approx(0.1)
    assert last["kl"] == pytest.approx(float(path.kl.mean()), rel=1e-5)


def test_over_optimisation_is_told(capsys):
    _, monitor, _, n_iter = run(verbose=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert len(lines) == n_iter // 2 + 1
    assert lines[-1].endswith(f"over-optimising since step {monitor.best_iter}")
    assert "over-optimising" not in lines[1]


def test_a_checkpoint_holds_the_best_weights_as_well_as_the_last(tmp_path):
    solver, monitor, _, n_iter = run(checkpoint=tmp_path / "run")
    monitor.restore_best()
    best = {name: value.clone() for name, value in solver.problem.model.network.state_dict().items()}
    again, resumed, _, _ = run(checkpoint=tmp_path / "run", max_iter=0)
    assert resumed.best_iter == monitor.best_iter and resumed.history == monitor.history
    assert resumed.gave_up(n_iter)
    resumed.restore_best()
    assert all(torch.equal(value, best[name]) for name, value in again.problem.model.network.state_dict().items())
