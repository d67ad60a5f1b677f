"""The judge's veto and the early stop, on a world where the reward misleads and the judge does not."""

import math

import numpy as np
import pytest
import torch

from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning import DirectSolver, sample_with_kl
from braidkit.finetuning.choice import HighestMeasured, HighestObjective
from braidkit.finetuning.measurement import Evaluation, Measurement
from braidkit.finetuning.monitor import Monitor
from braidkit.finetuning.oracle_rounds import OracleRounds
from braidkit.training import train
from tests.worlds import normal_chain, problem_on


class Upwards:
    """A reward that wants ever larger designs, with a penalty of one tenth."""

    y_mean_ = 0.0
    y_std_ = 1.0

    def standardised(self, x):
        return x[:, 0].double(), torch.full((len(x),), 0.1).double()

    def lower(self, x):
        return x[:, 0] - 0.1


class Judge:
    """The truth, of which designs near 1 are best, and how sure it is of differences."""

    y_mean_ = 0.0
    y_std_ = 1.0

    def __init__(self, error=0.0):
        self.error = error

    def standardised(self, x):
        return -(x[:, 0].mean() - 1).abs().expand(len(x)), None

    def mean_difference(self, x, other):
        return float(self.standardised(x)[0][0] - self.standardised(other)[0][0]), self.error

    posterior_difference = mean_difference


def judged(solver, noise):
    """What the truth is of the designs of a solver's chain."""
    designs = sample_with_kl(solver.problem.model, solver.problem.pretrained, noise).point
    return float(Judge().standardised(designs)[0][0])


class Script:
    """A reward, or a judge who is sure of differences above 2, whose values at the evaluations are given."""

    y_mean_ = 0.0
    y_std_ = 1.0

    def __init__(self, *values):
        self.values, self.seen = list(values), {}

    def value(self, x):
        return float(self.values[self.seen.setdefault(float(x.sum()), len(self.seen))])

    def standardised(self, x):
        return torch.full((len(x),), self.value(x)).double(), torch.zeros(len(x)).double()

    def mean_difference(self, x, other):
        return self.value(x) - self.value(other), 1.0


def run(max_iter=60, error=0.0, alpha=1e-3, judge=None, aim=None, maximises="lower", selection=None, **settings):
    pretrained = normal_chain(n_steps=6)
    reward = Upwards()
    solver = DirectSolver().setup(problem_on(pretrained, reward.lower, alpha=alpha))
    noise = pretrained.draw_noise(500, torch.Generator().manual_seed(0))
    settings = {"every": 2, "patience": 3} | settings
    judge = judge or Judge(error)
    choice = HighestObjective(judge, n_evaluations=2)
    choice.sure = 2.0
    if selection is not None:
        choice = HighestMeasured(OracleRounds(selection, pretrained.space.decode, settings.get("checkpoint")), 31)
    monitor = Monitor(solver, Measurement(solver.problem, aim or reward, judge, maximises, noise), choice, **settings)
    n_iter = train(solver, max_iter, start=monitor.begin(max_iter), callbacks=[monitor])
    return solver, monitor, noise, n_iter


def test_over_optimising_run_is_stopped_and_keeps_the_checkpoint_before():
    solver, monitor, noise, n_iter = run()
    history = monitor.history
    assert 0 < monitor.best_iter < n_iter == monitor.best_iter + 2 * 3
    assert history["lower"][-1] == max(history["lower"]) and history["judge"][-1] < max(history["judge"])
    monitor.restore_best()
    assert judged(solver, noise) == pytest.approx(max(history["judge"]), abs=1e-5)


@pytest.mark.parametrize(("sure", "kept"), [(2.0, [True, True, False, False]), (None, [True, True, False, True])])
def test_after_a_worse_checkpoint_none_is_kept_where_each_goes_further(sure, kept):
    choice = HighestObjective(Judge(error=0.01), n_evaluations=2, sure=sure)
    found = []
    for n_done, place in enumerate([0.0, 1.0, 3.0, 1.0]):
        seen = Evaluation(n_done, torch.full((5, 1), place), float(n_done), -abs(place - 1), {})
        found.append(choice(seen).is_best)
        again = HighestObjective(Judge(error=0.01), n_evaluations=2, sure=sure)
        again.load_state(*choice.state())
        choice = again
    assert found == kept


@pytest.mark.parametrize(
    ("told", "kept"),
    [({}, [True, True, True, False, False]), ({"largest_decline": math.inf}, [True, True, True, True, False])],
    ids=["judge", "judge that knows too little"],
)
def test_a_decline_of_a_tenth_of_a_deviation_ends_a_path_that_only_goes_further(told, kept):
    choice = HighestObjective(Judge(error=0.2), n_evaluations=5, sure=2.0, **told)
    found = []
    for n_done, place in enumerate([0.0, 1.0, 1.05, 1.2, 1.6]):
        seen = Evaluation(n_done, torch.full((5, 1), place), float(n_done), -abs(place - 1), {})
        found.append(choice(seen).is_best)
    assert found == kept


def test_a_judge_that_is_not_sure_lets_the_objective_choose():
    _, sure, _, _ = run()
    solver, doubtful, noise, n_iter = run(error=2.0)
    _, ignorant, _, _ = run(error=1e6, max_iter=8)
    history = doubtful.history
    # Kept is the best by the objective of those whose fall by the judge is within two errors.
    within = [fall < 4 for fall in max(history["judge"]) - np.array(history["judge"])]
    objective = np.where(within, np.array(history["lower"]) - 1e-3 * np.array(history["kl"]), -np.inf)
    assert history["iteration"][objective.argmax()] == doubtful.best_iter > sure.best_iter
    assert n_iter == doubtful.best_iter + 2 * 3
    doubtful.restore_best()
    assert judged(solver, noise) == pytest.approx(history["judge"][objective.argmax()], abs=1e-5)
    assert ignorant.best_iter == 8


NAN = float("nan")


@pytest.mark.parametrize(
    ("objective", "judge", "kept"),
    [
        ((0, 1, 3, 2), (0, 1, 0, -1), 2),  # the best objective, while falls are not sure
        ((0, 1, 2, 3), (0, 4, 4, 1), 2),  # not where the judge has seen much better
        ((0, 9, 5, 4), (0, 0, 3, 3), 2),  # a new favourite shows up the best so far
        ((0, 1, NAN, 3), (0, 0, 9, 0), 3),  # what is not a number is no checkpoint, nor a favourite
        ((0, 1, 3, 0), (0, 0, NAN, 0), 1),
    ],
)
def test_the_best_objective_is_kept_of_what_the_judge_does_not_veto(objective, judge, kept):
    judge, aim = Script(*judge), Script(*objective)
    _, monitor, _, _ = run(max_iter=3, alpha=1e-12, judge=judge, aim=aim, every=1, patience=9)
    assert monitor.best_iter == kept


def test_the_objective_pays_for_the_kl():
    always = {"judge": Script(*[0.0] * 5), "every": 1, "patience": 9, "max_iter": 4}
    _, monitor, _, _ = run(aim=Script(*[0.0] * 5), **always)
    assert monitor.best_iter == 0 and monitor.history["kl"][1] > 0


@pytest.mark.parametrize(("maximises", "kept"), [("mean", 1), ("lower", 2)])
def test_the_objective_is_of_the_mean_or_of_the_bound(maximises, kept):
    class Penalised(Script):
        def standardised(self, x):
            mean = super().standardised(x)[0]
            return mean, (mean > 8) * 5.0

    always = {"judge": Script(0, 0, 0), "every": 1, "patience": 9, "max_iter": 2, "alpha": 1e-12}
    _, monitor, _, _ = run(aim=Penalised(0, 9, 8), maximises=maximises, **always)
    assert monitor.best_iter == kept


def test_designs_without_a_reward_are_refused_before_the_first_update():
    with pytest.raises(InvalidParameterError, match="have the objective nan and, by the judge, 1.0; pass a reward"):
        run(aim=Script(NAN), judge=Script(1.0))


def test_the_history_holds_the_averages_of_designs_and_the_path_kl():
    solver, monitor, noise, n_iter = run(max_iter=4)
    path = sample_with_kl(solver.problem.model, solver.problem.pretrained, noise)
    last = {name: values[-1] for name, values in monitor.history.items()}
    assert last["iteration"] == n_iter == 4
    assert last["mean"] == pytest.approx(float(path.point.mean()), abs=1e-5)
    assert last["lower"] == pytest.approx(last["mean"] - last["penalty"]) and last["penalty"] == pytest.approx(0.1)
    assert last["kl"] == pytest.approx(float(path.kl.mean()), rel=1e-5)


def test_over_optimisation_is_told(capsys):
    _, monitor, _, n_iter = run(verbose=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("update")]
    assert len(lines) == n_iter // 2 + 1
    assert lines[-1].endswith(f"over-optimising since update {monitor.best_iter}")
    assert "over-optimising" not in lines[1]
    assert monitor.over_optimising_since == monitor.best_iter
    assert monitor.alarm().startswith(
        f"over-optimisation: after update {monitor.best_iter} the reward's lower bound rose, and the judge"
    )


def test_over_optimisation_warning_considers_all_later_checkpoints():
    """The last evaluation may be content, or the favourite be one that the objective did not choose."""
    always = {"every": 1, "patience": 9, "alpha": 1e-12}
    for judged, means, kept, since in (
        ((0, 5, 1, 4), (0, 3, 4, 2), 1, 1),  # the last is not surely worse, but one before it was, and promised more
        ((0, 5, 4, 1), (0, 3, 4, 5), 2, 2),  # kept is the best objective, not the judge's favourite
        ((0, 5, 4, 1), (0, 3, 4, 2), 2, None),  # worse by both: nobody was fooled
        ((0, -9, 0, 0), (0, 3, 4, 2), 2, None),  # before what is kept
    ):
        _, monitor, _, _ = run(max_iter=3, judge=Script(*judged), aim=Script(*means), **always)
        assert monitor.best_iter == kept and monitor.over_optimising_since == since
        assert (monitor.alarm() or f"Those of update {kept} are kept").count(f"update {kept}") == 1 + (
            since is not None
        )


def test_over_optimisation_warning_names_the_optimised_quantity_and_ends_with_the_judge():
    class Penalised(Script):
        def standardised(self, x):
            mean = super().standardised(x)[0]
            return mean, mean * 2.0

    always = {"every": 1, "patience": 9, "alpha": 1e-12}
    judged, means = (0, 5, NAN, 0, 6), (0, 1, 2, 3, 4)
    for maximises, max_iter, since in (("mean", 3, 1), ("lower", 3, None), ("mean", 4, None)):
        settings = {"judge": Script(*judged), "aim": Penalised(*means), "maximises": maximises, "max_iter": max_iter}
        _, monitor, _, _ = run(**settings, **always)
        assert monitor.over_optimising_since == since
        assert (monitor.alarm() is None) == (since is None)


def test_a_judge_that_may_be_wrong_by_more_than_all_measurements_differ_is_told(tmp_path):
    for error, told in ((0.9, False), (1.1, True)):
        _, monitor, _, _ = run(max_iter=4, error=error, checkpoint=tmp_path / str(error))
        assert monitor.best_iter == 4
        assert (monitor.doubt() is not None) == told
    _, resumed, _, _ = run(max_iter=0, error=1.1, checkpoint=tmp_path / "1.1")
    difference = float(Judge().standardised(resumed.choice.state()[1]["best"])[0][0]) - float(
        Judge().standardised(resumed.choice.state()[1]["first"])[0][0]
    )
    assert f"update 4 are good: it finds them {difference:+.2g} standard" in resumed.doubt()
    assert "may be wrong by 1.1" in resumed.doubt()
    _, kept_first, _, _ = run(max_iter=3, error=9.0, judge=Script(9, 0, 0, 0), aim=Script(9, 0, 0, 0), every=1)
    assert kept_first.best_iter == 0 and kept_first.doubt() is None


def test_a_checkpoint_holds_the_best_weights_as_well_as_the_last(tmp_path):
    solver, monitor, _, n_iter = run(checkpoint=tmp_path / "run")
    monitor.restore_best()
    best = {name: value.clone() for name, value in solver.problem.model.network.state_dict().items()}
    again, resumed, _, _ = run(checkpoint=tmp_path / "run", max_iter=0)
    assert resumed.best_iter == monitor.best_iter and resumed.history == monitor.history
    assert resumed.over_optimising_since == monitor.over_optimising_since == monitor.best_iter
    assert resumed.gave_up(n_iter)
    resumed.restore_best()
    assert all(torch.equal(value, best[name]) for name, value in again.problem.model.network.state_dict().items())


class Laboratory:
    """A selection that measures the first designs exactly: those near 2 are best. It notes what it is asked."""

    n_rounds, n_designs = 31, 40

    def __init__(self):
        self.opened, self.rounds = [], []

    def open_run(self, run, n_done, n_to_come):
        self.opened.append((run, n_done, n_to_come))

    def query(self, run, X):
        self.rounds.append((run, X))
        return -np.abs(X[: self.n_designs, 0] - 2)


def test_a_selection_takes_the_place_of_the_judge():
    laboratory = Laboratory()
    _, by_judge, _, _ = run()
    solver, monitor, noise, n_iter = run(selection=laboratory)
    history = monitor.history
    assert list(history)[-1] == "oracle" and len(history["oracle"]) == len(laboratory.rounds)
    assert history["oracle"].index(max(history["oracle"])) == history["iteration"].index(monitor.best_iter)
    # It likes larger designs than the judge does, so it goes on for longer.
    assert monitor.best_iter > by_judge.best_iter and n_iter == monitor.best_iter + 2 * 3
    assert len({name for name, _ in laboratory.rounds}) == 1 and len(laboratory.rounds[0][1]) == len(noise)
    assert laboratory.opened == [(laboratory.rounds[0][0], 0, 31)]
    monitor.restore_best()
    kept = sample_with_kl(solver.problem.model, solver.problem.pretrained, noise).point.numpy()
    assert laboratory.query(None, kept).mean() == pytest.approx(max(history["oracle"]), abs=1e-5)


def test_a_resumed_run_tells_the_selection_what_it_has_had(tmp_path):
    first, second, third = Laboratory(), Laboratory(), Laboratory()
    run(max_iter=6, selection=first, checkpoint=tmp_path / "run")
    _, monitor, _, n_iter = run(selection=second, checkpoint=tmp_path / "run")
    run(selection=third, checkpoint=tmp_path / "run")
    assert [one.opened[0][1:] for one in (first, second)] == [(0, 4), (4, 27)]
    assert third.opened[0][1:] == (n_iter // 2 + 1, 0)  # it had given up
    assert len(first.rounds) + len(second.rounds) == len(monitor.history["oracle"]) == n_iter // 2 + 1
    assert first.opened[0][0] == second.opened[0][0] == third.opened[0][0]


def test_a_run_killed_before_its_checkpoint_asks_no_round_again(tmp_path, monkeypatch):
    whole, killed, resumed = Laboratory(), Laboratory(), Laboratory()
    _, expected, _, _ = run(max_iter=6, selection=whole, checkpoint=tmp_path / "whole")
    save = Monitor.save

    def fails_at_the_second(monitor, n_done):
        if n_done == 4:
            raise MemoryError
        save(monitor, n_done)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Monitor, "save", fails_at_the_second)
        run(max_iter=6, selection=killed, checkpoint=tmp_path / "run")
    _, monitor, _, _ = run(max_iter=6, selection=resumed, checkpoint=tmp_path / "run")
    assert len(whole.rounds) == 4 and len(killed.rounds) == 3 and len(resumed.rounds) == 1
    # Rounds 0, 2 and 4 are done, the last of them not in the checkpoint.
    assert resumed.opened[0][1:] == (3, 1)
    assert monitor.history == expected.history and monitor.best_iter == expected.best_iter
