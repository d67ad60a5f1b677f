"""The estimator as a user meets it: strings and vectors, clones and grids, stops and resumes, and bad input."""

import copy
import functools
import json

import numpy as np
import pytest
import torch
from gpytorch.kernels import MaternKernel, RBFKernel
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from torch import nn

from braidkit import (
    BootstrapReward,
    ConservativeDiffusionFinetuner,
    DesignPipeline,
    GaussianDiffusion,
    GPBonusReward,
    SequenceEncoder,
    SequenceSpace,
    SimplexDiffusion,
    VectorSpace,
)
from braidkit.baselines import StandardFinetuner
from braidkit.evaluation import BudgetedSelection
from braidkit.exceptions import (
    CheckpointError,
    IncompatibleModelError,
    InvalidDesignError,
    InvalidParameterError,
    InvalidTargetError,
)
from braidkit.finetuning import DirectSolver, PolicyGradientSolver, TrajectoryBalanceSolver
from braidkit.finetuning.defaults import auto_alpha
from braidkit.finetuning.held_out import split_for_judge
from braidkit.persistence import write_json
from braidkit.rewards import BlackBoxReward
from tests.worlds import untrained

LENGTH = 8


# So few that the default reward trains no network.
N_ROWS = 76


@pytest.fixture(scope="module")
def many_sequences():
    """400 random octamers, measured by their share of G."""
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(400, LENGTH))]
    y = np.array([row.count("G") / LENGTH for row in X]) + 0.02 * rng.normal(size=400)
    return X, y


@pytest.fixture(scope="module")
def sequences(many_sequences):
    X, y = many_sequences
    return X[:N_ROWS], y[:N_ROWS]


@pytest.fixture(scope="module")
def pretrained(many_sequences):
    X, _ = many_sequences
    return SimplexDiffusion(SequenceSpace("DNA", LENGTH), n_steps=10).fit(X, max_iter=60, random_state=0)


@pytest.fixture(scope="module")
def vectors():
    X = np.random.default_rng(0).normal(size=(N_ROWS, 2))
    return X, X.sum(axis=1)


@pytest.fixture(scope="module")
def chain(vectors):
    return GaussianDiffusion(VectorSpace.from_data(vectors[0]), n_steps=5).fit(vectors[0], random_state=0)


def quick(pretrained=None, **parameters):
    settings = {"alpha": 1e-3, "max_iter": 4, "random_state": 0, "batch_size": 32}
    settings["reward"] = GPBonusReward(torch.nn.Flatten())  # without networks
    return ConservativeDiffusionFinetuner(pretrained, **(settings | parameters))


def same_weights(a, b):
    return all(torch.equal(a.state_dict()[name], b.state_dict()[name]) for name in a.state_dict())


def test_strings_in_better_strings_out(sequences, pretrained):
    X, y = sequences
    finetuner = quick(pretrained, max_iter=40, learning_rate=3e-3).fit(X, y)
    designs = finetuner.sample(200, random_state=1)
    assert all(isinstance(design, str) and len(design) == LENGTH and set(design) <= set("ACGT") for design in designs)
    share = np.mean([design.count("G") for design in designs]) / LENGTH
    assert share > np.mean([design.count("G") for design in pretrained.sample(200, random_state=1)]) / LENGTH + 0.2
    assert designs == finetuner.sample(200, random_state=1)


@pytest.mark.parametrize("kind", ["tokens", "one_hot", "flat"])
def test_sample_returns_the_kind_that_fit_saw(sequences, pretrained, kind):
    X, y = sequences
    space = pretrained.space
    designs = quick(pretrained, max_iter=1).fit(space.decode(space.encode(X), kind), y).sample(3, random_state=0)
    assert space.kind_of(designs) == kind and len(designs) == 3


def test_the_pretrained_model_is_shared_by_clones_and_never_changed(sequences, pretrained):
    before = copy.deepcopy(pretrained)
    finetuner = quick(pretrained)
    assert clone(finetuner).pretrained is pretrained
    finetuner.fit(*sequences)
    assert finetuner.pretrained_ is pretrained and same_weights(pretrained, before)
    assert not same_weights(finetuner.model_.network, pretrained.network)
    assert same_weights(finetuner.model_.readout_network, pretrained.network)


def test_a_fine_tuned_model_can_be_saved_and_fine_tuned_again(sequences, pretrained, tmp_path):
    finetuner = quick(pretrained).fit(*sequences)
    finetuner.model_.save_pretrained(tmp_path / "model")
    loaded = SimplexDiffusion.from_pretrained(tmp_path / "model")
    assert loaded.sample(5, random_state=0) == finetuner.sample(5, random_state=0)
    again = quick(loaded).fit(*sequences)
    assert same_weights(again.model_.readout_network, pretrained.network)


def test_the_history_tells_the_run(vectors, chain):
    finetuner = quick(chain, alpha=100, solver="direct", max_iter=6, n_iter_no_change=7).fit(*vectors)
    history = {name: np.array(values) for name, values in finetuner.history_.items()}
    assert list(history) == ["iteration", "mean", "lower", "penalty", "kl", "judge"]
    assert history["iteration"].tolist() == list(range(7)) and finetuner.n_iter_ == 6
    assert np.allclose(history["lower"], history["mean"] - history["penalty"])
    assert history["kl"][0] == 0 and (history["kl"][1:] > 0).all() and (history["penalty"] > 0).all()
    objective = history["lower"] - finetuner.alpha * finetuner.reward_.y_std_ * history["kl"]
    # The KL weighs so much that the best bound is not the best checkpoint.
    assert objective[finetuner.best_iter_] > objective[history["lower"].argmax()]


class FewerThanThree:
    """A selection that likes designs whose first feature is below 3, in three rounds of 50."""

    n_rounds, n_designs = 3, 50

    def __init__(self):
        self.asked = []

    def open_run(self, run, n_done, n_to_come):
        assert n_done + n_to_come <= self.n_rounds

    def query(self, run, X):
        self.asked.append(X)
        return np.where(X[:, 0] < 3, X[:, 0], -100.0)


@pytest.mark.parametrize("max_iter", [1, 2, 5, 6])
def test_a_selection_has_its_rounds_spread_over_the_run_and_picks(vectors, chain, max_iter):
    selection = FewerThanThree()
    finetuner = quick(chain, selection=selection, max_iter=max_iter).fit(*vectors)
    history = finetuner.history_
    assert history["iteration"] == list(range(0, max_iter + 1, max(1, (max_iter + 1) // 2)))
    assert len(selection.asked) == len(history["oracle"]) <= 3
    # As many designs as it wants, more than a batch, in the units of the user's X.
    assert {X.shape for X in selection.asked} == {(50, 2)}
    assert history["oracle"][history["iteration"].index(finetuner.best_iter_)] == max(history["oracle"])


def test_the_judge_s_rows_can_be_looked_up_and_each_reward_is_checked_on_the_other_s(vectors, chain):
    finetuner = quick(chain, max_iter=1).fit(*vectors)
    X, y = (part[finetuner.judge_rows_] for part in vectors)
    assert len(X) == N_ROWS // 4
    assert finetuner.reward_check_["r2"] == pytest.approx(finetuner.reward_.score(X, y))
    others = np.setdiff1d(np.arange(N_ROWS), finetuner.judge_rows_)
    X, y = (part[others] for part in vectors)
    assert finetuner.judge_check_["r2"] == pytest.approx(finetuner.judge_.score(X, y))


@functools.cache
def scaled_run(maximises, scale, shift):
    """A short run on octamers measured by their share of G in eighths, in other units."""
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(N_ROWS, LENGTH))]
    # Eighths and 256ths are exact, so that what was measured is still there after a shift.
    y = np.array([row.count("G") for row in X]) / 8 + rng.integers(-9, 9, size=N_ROWS) / 256
    chain = SimplexDiffusion(SequenceSpace("DNA", LENGTH), n_steps=4)
    chain = untrained(chain)
    kind = {"lower": ConservativeDiffusionFinetuner, "mean": StandardFinetuner}[maximises]
    reward = GPBonusReward(max_iter=20)
    settings = {"max_iter": 4, "learning_rate": 0.01, "batch_size": 16, "random_state": 0}
    return kind(chain, reward=reward, **settings).fit(X, scale * (y + shift))


@settings(max_examples=8, deadline=None)
@given(
    maximises=st.sampled_from(["lower", "mean"]),
    scale=st.sampled_from([1e-9, 1e-3, 1.0, 7.3, 1e9]),
    shift=st.sampled_from([0.0, 1e6, -1e7, 1e9]),
)
def test_the_scale_and_the_origin_of_y_change_no_design(maximises, scale, shift):
    """alpha, c and lam act on standardised y: y -> a y + b gives the same designs."""
    plain, other = scaled_run(maximises, 1.0, 0.0), scaled_run(maximises, scale, shift)
    assert plain.best_iter_ == other.best_iter_ > 0
    assert plain.sample(50, random_state=0) == other.sample(50, random_state=0)
    lower = np.array(other.history_["lower"]) / scale - shift
    assert np.allclose(lower, plain.history_["lower"], rtol=1e-3, atol=1e-3)


def test_alpha_is_larger_where_rows_are_few(vectors, chain):
    X, y = vectors
    assert quick(chain, alpha="auto", solver="direct", max_iter=1).fit(X, y).alpha_ == 0.1 == auto_alpha(999)
    assert quick(chain, alpha=0.5, solver="direct", max_iter=1).fit(X, y).alpha_ == 0.5
    assert auto_alpha(1000) == 0.02
    assert [auto_alpha(n, is_least=True) for n in (999, 1000)] == [0.02, 0.01]


def test_a_larger_alpha_stays_closer_to_the_pretrained_model(vectors, chain):
    settings = {"max_iter": 60, "learning_rate": 0.01}
    kls = [quick(chain, alpha=alpha, **settings).fit(*vectors).history_["kl"][-1] for alpha in (0.05, 5.0)]
    assert kls[1] < kls[0] / 3


def test_the_judge_never_sees_the_reward_s_rows():
    y = np.random.default_rng(0).normal(size=103)
    for_reward, for_judge = split_for_judge(y, 0.2, seed=0)
    assert sorted([*for_reward, *for_judge]) == list(range(103)) and len(for_judge) == 21
    assert abs(np.median(y[for_judge]) - np.median(y)) < 0.2


def test_where_one_design_would_be_left_for_the_reward_both_have_all():
    designs = np.arange(30) % 3
    for rows in split_for_judge(np.arange(30.0), 0.25, 0, designs, designs):
        assert rows.tolist() == list(range(30))


@pytest.mark.parametrize("reward", [GPBonusReward(c="calibrated", max_iter=5), BootstrapReward(n_estimators=2)])
def test_every_conservative_reward_will_do(many_sequences, pretrained, reward):
    finetuner = quick(pretrained, reward=reward, max_iter=2, validation_fraction=0.1).fit(*many_sequences)
    assert type(finetuner.reward_) is type(reward) and finetuner.reward_ is not reward
    assert not hasattr(reward, "space_")


def test_a_fitted_reward_is_used_as_it_is(sequences, pretrained):
    reward = GPBonusReward(max_iter=2, random_state=0).fit(*sequences)
    finetuner = quick(pretrained, reward=FrozenEstimator(reward), max_iter=2).fit(*sequences)
    assert finetuner.reward_.estimator is reward


def test_a_grid_over_alpha_and_c_on_strings(sequences, pretrained):
    X, y = sequences
    grid = {"alpha": [1e-3, 10.0], "reward__c": [0.1, 1.0]}
    search = GridSearchCV(quick(pretrained, reward=GPBonusReward(max_iter=2), max_iter=1), grid, cv=2)
    search.fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.pretrained is pretrained
    assert len(search.best_estimator_.sample(3, random_state=0)) == 3


def test_pipelines_with_an_encoder_and_with_a_scaler(sequences, pretrained, vectors):
    X, y = sequences
    pipeline = DesignPipeline([("encode", SequenceEncoder()), ("design", quick(pretrained, max_iter=1))]).fit(X, y)
    assert len(pipeline.sample(4, random_state=0)[0]) == LENGTH
    X, y = vectors
    pipeline = DesignPipeline([("scale", StandardScaler()), ("design", quick(max_iter=1))]).fit(100 + X, y)
    assert np.allclose(pipeline.sample(50, random_state=0).mean(axis=0), 100, atol=2)


def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(vectors, chain, tmp_path, monkeypatch):
    whole = quick(chain, max_iter=6).fit(*vectors)
    quick(chain, max_iter=3, checkpoint_dir=tmp_path).fit(*vectors)
    resumed = quick(chain, max_iter=6, checkpoint_dir=tmp_path).fit(*vectors)
    assert resumed.history_ == whole.history_
    assert np.array_equal(resumed.sample(5, random_state=0), whole.sample(5, random_state=0))


def test_a_pretrained_model_made_here_is_kept_with_the_checkpoint(vectors, tmp_path):
    first = quick(max_iter=1, checkpoint_dir=tmp_path).fit(*vectors)
    second = quick(max_iter=2, checkpoint_dir=tmp_path).fit(*vectors)
    assert same_weights(first.pretrained_, second.pretrained_)


def test_a_checkpoint_of_another_run_is_refused_and_left_alone(vectors, chain, tmp_path):
    X, y = vectors
    quick(chain, max_iter=1, checkpoint_dir=tmp_path).fit(X, y)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"other data or settings \(alpha was 0.001, now 0.5\)"):
        quick(chain, alpha=0.5, checkpoint_dir=tmp_path).fit(X, y)
    with pytest.raises(CheckpointError, match="data was .*, now .*; choose another checkpoint_dir"):
        quick(chain, checkpoint_dir=tmp_path).fit(X, 2 * y)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["settings"]["alpha"] == "0.001"
    del settings["settings"]["form"]
    write_json(tmp_path / "settings.json", {"settings": settings["settings"], "chain": None})
    with pytest.raises(CheckpointError, match="was written by another version of braidkit; remove it"):
        quick(chain, checkpoint_dir=tmp_path).fit(X, y)


def reward_of(y, **parameters):
    X = np.random.default_rng(0).normal(size=(N_ROWS, 2))  # those of `vectors`
    reward = GPBonusReward(max_iter=2, random_state=0, **parameters)
    return reward if y is None else FrozenEstimator(reward.fit(X, y(X)))


def network(scale):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4 * scale), nn.Linear(4 * scale, 4))


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("reward", lambda: reward_of(lambda X: X[:, 0]), lambda: reward_of(lambda X: X[:, 1])),
        ("reward", lambda: reward_of(None, features=network(1)), lambda: reward_of(None, features=network(2))),
        ("reward", lambda: reward_of(None, kernel=RBFKernel()), lambda: reward_of(None, kernel=MaternKernel())),
        ("solver", lambda: DirectSolver(truncation=2), lambda: DirectSolver(truncation=3)),
        (
            "selection",
            lambda: BudgetedSelection(lambda X: X[:, 0], n_queries=40, n_rounds=9),
            lambda: BudgetedSelection(lambda X: X[:, 1], n_queries=40, n_rounds=9),
        ),
    ],
    ids=["frozen", "features", "kernel", "solver", "selection"],
)
def test_a_resumed_run_notices_what_its_parameters_hold(vectors, chain, tmp_path, name, first, second):
    settings = {"max_iter": 1, "checkpoint_dir": tmp_path}
    quick(chain, **settings, **{name: first()}).fit(*vectors)
    quick(chain, **settings, **{name: first()}).fit(*vectors)
    with pytest.raises(CheckpointError, match=rf"other data or settings \({name} was \w+ \w+, now \w+ \w+\)"):
        quick(chain, **settings, **{name: second()}).fit(*vectors)


def test_a_chain_that_the_run_did_not_train_is_not_taken_for_its_own(vectors, chain, tmp_path):
    chain.save_pretrained(tmp_path / "a" / "pretrained")
    with pytest.raises(CheckpointError, match="pretrained is there, but no settings.json"):
        quick(max_iter=1, checkpoint_dir=tmp_path / "a").fit(*vectors)
    trained = quick(max_iter=1, checkpoint_dir=tmp_path / "b").fit(*vectors).pretrained_
    chain.save_pretrained(tmp_path / "b" / "pretrained")
    again = quick(max_iter=2, checkpoint_dir=tmp_path / "b").fit(*vectors).pretrained_
    assert same_weights(again, trained) and again.n_steps == trained.n_steps


@pytest.mark.parametrize(
    "damage", [lambda text: b"", lambda text: text[:40], lambda text: text.replace(b"0.001", b"0.002")]
)
def test_damaged_settings_of_a_run_are_refused_by_name(vectors, chain, tmp_path, damage):
    quick(chain, max_iter=1, checkpoint_dir=tmp_path).fit(*vectors)
    path = tmp_path / "settings.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="settings.json .*to start afresh"):
        quick(chain, max_iter=1, checkpoint_dir=tmp_path).fit(*vectors)


def test_ctrl_c_keeps_the_best_so_far(vectors, chain, monkeypatch):
    update = DirectSolver.update

    def interrupted(self, i):
        if i == 3:
            raise KeyboardInterrupt
        return update(self, i)

    monkeypatch.setattr(DirectSolver, "update", interrupted)
    finetuner = quick(chain, solver="direct", max_iter=10).fit(*vectors)
    assert finetuner.n_iter_ == 3 and finetuner.best_iter_ <= 3
    assert finetuner.sample(2, random_state=0).shape == (2, 2)


def test_progress_is_told_when_asked_for(vectors, chain, capsys):
    quick(chain, max_iter=2).fit(*vectors)
    assert capsys.readouterr() == ("", "")
    quick(chain, max_iter=2, verbose=1).fit(*vectors)
    out = capsys.readouterr().out
    assert "update 2" in out and "judge" in out and "nats" in out


def test_sampling_and_scoring_need_a_fit():
    for call in (lambda f: f.sample(), lambda f: f.score([[0.0]], [0.0])):
        with pytest.raises(NotFittedError):
            call(ConservativeDiffusionFinetuner())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": 0}, "alpha must be a number > 0 or .auto.; got 0"),
        ({"alpha": -1.0}, "alpha must be a number > 0 or .auto.; got -1.0"),
        ({"alpha": "much"}, "alpha must be a number > 0 or \"auto\"; got 'much'"),
        ({"selection": "oracle"}, "selection must be a BudgetedSelection or None; got 'oracle', without open_run"),
        ({"reward": GPBonusReward(c="calibrated")}, "needs 190 different designs.*there are 57.*of 76, after"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"max_iter": "many"}, "max_iter must be a whole number"),
        ({"solver": DirectSolver(truncation=0)}, "truncation must be a whole number"),
        ({"solver": TrajectoryBalanceSolver(n_replay=-1)}, "n_replay must be a whole number of at least 0"),
        ({"solver": PolicyGradientSolver(clip=0)}, "clip must be a number > 0"),
        (
            {"solver": "newton"},
            "solver must be auto, one of direct, adjoint_matching, policy_gradient, trajectory_balance",
        ),
        ({"checkpoint_dir": "run", "random_state": None}, "needs a whole number as random_state"),
        ({"validation_fraction": 1.0}, "validation_fraction must be a number > 0 and < 1"),
        ({"pretrained": "sd15/"}, "pretrained must be a DiffusionModel or None; got 'sd15/'"),
    ],
)
def test_parameters_out_of_range(vectors, parameters, message):
    with pytest.raises(InvalidParameterError, match=message):
        quick(**parameters).fit(*vectors)


def test_a_model_that_was_never_trained_is_refused(sequences):
    with pytest.raises(NotFittedError, match="was never trained"):
        quick(SimplexDiffusion(SequenceSpace("DNA", LENGTH))).fit(*sequences)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (["ACGTACGTAC"] * 3, "pretrained makes 8-letter DNA, but X is 10-letter DNA"),
        (["ACGUACGU"] * 3, "pretrained makes 8-letter DNA, but X is 8-letter RNA"),
    ],
)
def test_a_model_of_other_sequences_is_refused(pretrained, X, message):
    with pytest.raises(IncompatibleModelError, match=message):
        quick(pretrained).fit(X, [1.0, 2.0, 3.0])


def test_a_model_of_another_width_is_refused(chain):
    with pytest.raises(IncompatibleModelError, match="pretrained makes designs of 2 features, but X has 3"):
        quick(chain).fit(np.eye(3), [1.0, 2.0, 3.0])


def test_bad_rows_are_named_before_any_work(sequences, pretrained):
    X, y = sequences
    with pytest.raises(InvalidDesignError, match="row 7: 'N' at position 2"):
        quick(pretrained).fit([*X[:7], "ANGTACGT", *X[8:]], y)
    with pytest.raises(InvalidDesignError, match="row 3 has 4 letters"):
        quick(pretrained).fit([*X[:3], "ACGT", *X[4:]], y)
    with pytest.raises(InvalidTargetError, match="Input y contains NaN: row 2"):
        quick(pretrained).fit(X, np.where(np.arange(N_ROWS) == 2, np.nan, y))
    with pytest.raises(InvalidTargetError, match="y is constant"):
        quick(pretrained).fit(X, np.ones(N_ROWS))
    with pytest.raises(InvalidDesignError, match="X has 76 designs, but y has 75 measurements"):
        quick(pretrained).fit(X, y[:-1])


def test_a_reward_without_a_gradient_is_refused(vectors, chain):
    class Rounded(torch.nn.Module):
        def forward(self, x):
            return x.round()

    with pytest.raises(InvalidParameterError, match="gradient at designs of the pretrained model is zero"):
        quick(chain, solver="direct", reward=GPBonusReward(features=Rounded())).fit(*vectors)


def test_a_black_box_reward_works_with_solvers_that_need_no_gradient(chain, vectors):
    X, y = vectors
    finetuner = quick(chain, alpha=0.5, reward=RandomForestRegressor(10), solver="policy_gradient", max_iter=3)
    finetuner.fit(X, y)
    assert isinstance(finetuner.reward_, BlackBoxReward) and len(finetuner.history_["lower"]) == 4
    assert finetuner.sample(4, random_state=0).shape == (4, 2)


@pytest.mark.parametrize("solver", ["direct", "adjoint_matching", DirectSolver(truncation=2)])
def test_a_black_box_reward_is_refused_by_solvers_that_differentiate(chain, vectors, solver):
    finetuner = quick(chain, reward=RandomForestRegressor(), solver=solver)
    with pytest.raises(InvalidParameterError, match='pass solver="policy_gradient" or solver="trajectory_balance"'):
        finetuner.fit(*vectors)


@pytest.mark.parametrize("solver", ["adjoint_matching", "policy_gradient", TrajectoryBalanceSolver(n_replay=50)])
def test_every_solver_fits_and_resumes(chain, vectors, solver, tmp_path):
    whole = quick(chain, solver=solver, max_iter=4).fit(*vectors)
    for max_iter in (2, 4):
        parts = quick(chain, solver=solver, max_iter=max_iter, checkpoint_dir=tmp_path / "run").fit(*vectors)
    assert parts.n_iter_ == whole.n_iter_ == 4
    assert parts.history_["lower"][-1] == pytest.approx(whole.history_["lower"][-1], rel=1e-6)


def test_adjoint_matching_is_refused_on_steps_of_euler_before_any_work():
    X = ["ACGT", "ACGA", "TCGA"] * 10
    chain = SimplexDiffusion(SequenceSpace("DNA", 4), n_steps=3, scheme="euler").fit(X, max_iter=1, random_state=0)
    finetuner = quick(chain, solver="adjoint_matching")
    with pytest.raises(IncompatibleModelError, match="SimplexDiffusion does not have"):
        finetuner.fit(X, np.arange(30.0))
    assert finetuner.set_params(pretrained=chain.with_steps(3, "bridge")).fit(X, np.arange(30.0)).history_


def test_options_of_a_solver_are_parameters_of_the_estimator():
    finetuner = ConservativeDiffusionFinetuner(solver=DirectSolver())
    finetuner.set_params(solver__truncation=3)
    assert clone(finetuner).solver.truncation == 3


def test_a_checkpoint_of_another_estimator_is_refused(chain, vectors, tmp_path):
    quick(chain, checkpoint_dir=tmp_path).fit(*vectors)
    other = StandardFinetuner(chain, max_iter=4, random_state=0, batch_size=32, checkpoint_dir=tmp_path)
    with pytest.raises(CheckpointError, match="estimator was ConservativeDiffusionFinetuner, now StandardFinetuner"):
        other.fit(*vectors)


def test_a_seed_that_the_user_gave_a_reward_is_kept(chain, vectors):
    finetuner = quick(chain, max_iter=1, reward=GPBonusReward(random_state=0), random_state=5).fit(*vectors)
    assert finetuner.reward_.random_state == 0 and finetuner.judge_.random_state not in (None, 0)
