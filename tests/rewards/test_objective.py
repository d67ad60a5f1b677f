"""Objectives of several quantities: what may be written, and bounds that lie on the right side."""

import ast
import pickle
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from torch import nn

from braidkit import GPBonusReward, SequenceEncoder
from braidkit.data import read_target_errors
from braidkit.exceptions import InvalidParameterError, InvalidTargetError
from braidkit.rewards import ObjectiveReward
from braidkit.rewards.objective import SHORTFALL_COST, Bounds, Objective

TEXTS = [
    "a - b",
    "-a + 0 * b",
    "0.7*a + 0.3*b",
    "min(a, b)",
    "max(a, 2 - b) / 2",
    "-(a - 2*b) - 1",
    "a if b >= 0.5",
    "b - a if a <= 0.2 and a - b >= -1",
    "min(a, b, 0.3) - max(-a, b)",
]


def python_value(text, a, b, scales):
    """The same by Python itself."""
    value, _, conditions = text.partition(" if ")
    total = eval(value)  # of this test's own texts
    for condition, scale in zip(conditions.split(" and ") if conditions else [], scales[1:], strict=True):
        sign = 1 if ">=" in condition else -1
        left, right = re.split("[<>]=", condition)
        total += SHORTFALL_COST * scales[0] / scale * min(0.0, sign * (eval(left) - float(right)))
    return total


numbers = st.floats(-3, 3)
widths = st.floats(0, 2)


@settings(max_examples=60, deadline=None)
@given(text=st.sampled_from(TEXTS), a=numbers, b=numbers, wide_a=widths, wide_b=widths, at=st.tuples(widths, widths))
def test_bounds_hold_wherever_the_quantities_lie_within_theirs(text, a, b, wide_a, wide_b, at):
    objective, scales = (
        Objective.parse(text, ["a", "b"]),
        (1.5, 0.7, 2.0)[: 1 + len(Objective.parse(text, "ab").conditions)],
    )
    quantities = {
        name: Bounds(*(torch.tensor([v], dtype=torch.float64) for v in (value, value - wide, value + wide)))
        for name, value, wide in (("a", a, wide_a), ("b", b, wide_b))
    }
    found = objective.bounds(quantities, scales)
    assert float(found.mean) == pytest.approx(python_value(text, a, b, scales), abs=1e-9)
    inside = (a - wide_a + at[0] * wide_a, b - wide_b + at[1] * wide_b)  # from the lower to the upper bound
    value = python_value(text, *inside, scales)
    assert float(found.low) - 1e-9 <= value <= float(found.high) + 1e-9


def test_the_bound_of_a_difference_is_attained():
    one, other = (Bounds(*torch.tensor([[m], [m - 1.0], [m + 1.0]])) for m in (5.0, 2.0))
    found = Objective.parse("a - b", ["a", "b"]).bounds({"a": one, "b": other}, (1.0,))
    assert [float(part) for part in found] == [3.0, 1.0, 5.0]  # an upper bound of b is taken off


def test_directions():
    found = {text: [Objective.parse(text, "ab").direction(name) for name in "ab"] for text in TEXTS}
    assert found["a - b"] == [1, -1] and found["-(a - 2*b) - 1"] == [-1, 1] and found["a if b >= 0.5"] == [1, 1]
    assert found["max(a, 2 - b) / 2"] == [1, -1] and found["b - a if a <= 0.2 and a - b >= -1"] == [0, 0]


def test_an_objective_is_its_text_and_names():
    objective = Objective.parse(TEXTS[-2], ["a", "b"])
    again = pickle.loads(pickle.dumps(objective))
    assert (again.text, again.names) == (objective.text, objective.names)
    assert ast.dump(again.value) == ast.dump(objective.value) and len(again.conditions) == 2


WRONG = [
    ("", "objective must be an expression such as 'a - b'"),
    ("a - c", "names 'c', but what is measured is: a, b; name one of them"),
    ("a", "does not name 'b'; leave that target out"),
    ("a * b", "multiply or divide by numbers only"),
    ("a / 0 + b", "not by zero"),
    ("a +", "cannot be read at"),
    ("a ** 2 + b", r"has 'a \*\* 2', which is none of what an objective may have"),
    ("__import__('os').system('true') + a + b", "which is none of what an objective may have"),
    ("min(a) + b", "give min and max two or more"),
    ("a if b > 1", "has the condition 'b > 1'; write 'name >= number'"),
    ("a if 1 <= b", "whose right side is no number"),
    ("a if b >= 1 if a >= 0", "has 'if' more than once"),
    ("a if b >= x", "whose right side is no number"),
    ("(" * 500 + "a" + ")" * 500 + "- b", "cannot be read at"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_an_objective_may_not_be_is_refused(text, message):
    with pytest.raises(InvalidParameterError, match=message):
        Objective.parse(text, ["a", "b"])


def world(n=80, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    y = pd.DataFrame({"a": X[:, 0] + 0.1 * rng.normal(size=n), "b": X[:, 1] - X[:, 0] + 0.3 * rng.normal(size=n)})
    return X, y


@pytest.fixture(scope="module")
def fitted():
    X, y = world()
    return {
        text: ObjectiveReward(text, GPBonusReward(nn.Flatten(), random_state=0)).fit(X, y)
        for text in ("a - b", "min(a, b)", "a if b >= 0.2")
    }


@pytest.mark.parametrize("text", ["a - b", "min(a, b)", "a if b >= 0.2"])
def test_a_reward_of_an_objective_is_one_of_its_parts(fitted, text):
    X, y = world(seed=1)
    reward = fitted[text]
    parts = reward.predict_parts(X)
    one, other = parts["a"], parts["b"]
    cost = SHORTFALL_COST * reward.scales_[0] / reward.scales_[-1]  # of the only condition
    low = {
        "a - b": one.low - other.high,
        "min(a, b)": torch.minimum(one.low, other.low),
        "a if b >= 0.2": one.low - cost * (0.2 - other.low).clamp(min=0),
    }[text]
    np.testing.assert_allclose(reward.predict_lower(X), low)
    assert (reward.predict_lower(X) <= reward.predict(X)).all() and reward.score(X, y) > 0.8
    x = torch.from_numpy(X).float().requires_grad_()
    lower = reward.lower(reward.space_.encode(X)) if reward.space_ is not None else None
    np.testing.assert_allclose(lower.detach(), low, rtol=1e-4, atol=1e-4)
    mean, penalty = reward.standardised(x)
    assert torch.autograd.grad((mean - penalty).sum(), x)[0].abs().sum() > 0
    assert reward.y_std_ == pytest.approx({"a - b": y["a"] - y["b"]}.get(text, y["a"]).std(), rel=0.5)


def test_a_single_quantity_may_be_one_to_keep_small():
    X, y = world()
    reward = ObjectiveReward("-a", GPBonusReward(nn.Flatten(), random_state=0)).fit(X, y["a"])
    alone = GPBonusReward(nn.Flatten(), random_state=0).fit(X, -y["a"])
    np.testing.assert_allclose(reward.predict_lower(X), alone.predict_lower(X), rtol=1e-5)
    np.testing.assert_allclose(reward.combine(y["a"]), -y["a"])


@pytest.mark.parametrize("features", [None, nn.Flatten()])
def test_differences_of_a_linear_objective_are_those_of_its_quantities(features):
    X, y = world()
    reward = ObjectiveReward("a - 2*b", GPBonusReward(features, random_state=0, max_iter=2)).fit(X, y)
    x, other = (reward.space_.encode(world(30, seed)[0]) for seed in (2, 3))
    difference, std = reward.mean_difference(x, other)
    parts = [reward.rewards_[name] for name in "ab"]
    found = [part.mean_difference(x, other) for part in parts]
    scales = [part.y_std_ / reward.y_std_ for part in parts]
    assert difference == pytest.approx(found[0][0] * scales[0] - 2 * found[1][0] * scales[1], rel=1e-6)

    def posterior(part):  # without what chance sets pairs apart by
        with torch.no_grad():
            return float(part.process_.difference(x, other)[1]) * part.y_std_**2

    mean = [reward.mean_and_penalty(points)[0] for points in (x, other)]
    chance = float((mean[0] - mean[1]).var(correction=0)) / len(x)
    variance = posterior(parts[0]) + 4 * posterior(parts[1]) + chance
    assert std == pytest.approx(variance**0.5 / reward.y_std_, rel=1e-5)


def test_shares_of_a_difference_are_of_its_points():
    X, y = world()
    for features in (None, nn.Flatten()):
        process = GPBonusReward(features, random_state=0, max_iter=2).fit(X, y["a"]).process_
        x, other = (torch.from_numpy(world(20, seed)[0]).float() for seed in (2, 3))
        shares = (torch.cat([torch.full((10,), 2.0), torch.zeros(10)]).double(),) * 2
        with torch.no_grad():
            whole, half = process.difference(x, other, shares), process.difference(x[:10], other[:10])
        torch.testing.assert_close(whole[0][:10], 2 * half[0])
        torch.testing.assert_close(whole[1], half[1])


def test_errors_of_measurements_are_found_by_the_names_of_their_quantities():
    X, y = world()
    error = pd.DataFrame({"a": np.full(len(X), 1e-3), "b": np.full(len(X), 3.0)})
    reward = ObjectiveReward("a - b", GPBonusReward(nn.Flatten(), random_state=0))
    bounds = [reward.fit(X, y, y_error=columns).predict_lower(X) for columns in (error, error[["b", "a"]])]
    np.testing.assert_array_equal(*bounds)


def test_what_is_told_of_noise_is_refused_if_the_reward_would_not_hear_it():
    X, y = world()
    deaf = make_pipeline(SequenceEncoder(), KNeighborsRegressor())
    for told in ({"sample_weight": np.ones(len(X))}, {"y_error": np.ones((len(X), 2))}):
        with pytest.raises(InvalidParameterError, match=f"a Pipeline, takes no {next(iter(told))} in fit"):
            ObjectiveReward("a - b", deaf).fit(X, y, **told)


@pytest.mark.parametrize("text", ["-" * 2000 + "a - b", "-" * 100_000 + "a", "a" + "[0]" * 500, "a+" * 150 + "b"])
def test_an_objective_too_deep_to_compute_is_refused(text):
    with pytest.raises(InvalidParameterError, match="cannot be read at|more than 100 deep"):
        Objective.parse(text, ["a", "b"])


def test_errors_of_the_only_target_may_be_a_column():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (errors,) = read_target_errors(np.full((3, 1), 0.5), ["kd"], 3)
    assert errors.tolist() == [0.5] * 3


def test_errors_of_columns_are_named_by_column():
    X, y = world()
    with pytest.raises(InvalidTargetError, match="b contains NaN: row 3"):
        ObjectiveReward("a - b").fit(X, y.assign(b=y["b"].mask(np.arange(80) == 3)))
    with pytest.raises(InvalidParameterError, match="'a - b' is the same in all rows; check the columns"):
        ObjectiveReward("a - b").fit(X, y.assign(b=y["a"]))
    with pytest.raises(InvalidTargetError, match="y_error must have a column for each of a, b, by their names"):
        ObjectiveReward("a - b").fit(X, y, y_error=np.ones(80))
    with pytest.raises(InvalidTargetError, match="y_error of 'b': row 3 is -1"):
        ObjectiveReward("a - b").fit(X, y, y_error=pd.DataFrame({"b": np.where(np.arange(80) == 3, -1, 1), "a": 1.0}))
    with pytest.raises(InvalidTargetError, match="target 'b' is constant"):
        ObjectiveReward("a - b").fit(X, y.assign(b=1.0))
    fitted = ObjectiveReward("y0 - y1", GPBonusReward(nn.Flatten(), random_state=0))
    fitted.fit(X, y.to_numpy(), y_error=np.c_[np.full(80, np.nan), np.ones(80)])
    with pytest.raises(InvalidTargetError, match="y has the columns a, b, but the objective is of y0, y1"):
        fitted.combine(y)


@pytest.mark.data
def test_bounds_of_enhancers_in_two_cell_types_hold_for_held_out_rows(data_dir):
    table = pd.read_csv(data_dir / "enhancer_lentimpra.csv.gz")
    y = table.pivot_table(index="sequence", columns="cell", values="activity").dropna()
    rows = np.random.default_rng(0).permutation(len(y))
    seen, unseen = y.iloc[rows[:58]], y.iloc[rows[58:]]
    for objective in ("HepG2 - WTC11", "min(HepG2, WTC11)"):
        reward = ObjectiveReward(objective, GPBonusReward(c=1.0, random_state=0)).fit(seen.index, seen)
        assert (reward.combine(unseen) >= reward.predict_lower(unseen.index)).mean() > 0.75, objective
