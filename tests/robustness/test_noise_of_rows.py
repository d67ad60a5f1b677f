"""Weights, standard errors and groups that are none: refused by name and row by every estimator that takes them."""

import numpy as np
import pandas as pd
import pytest

from braidkit import BootstrapReward, ConservativeDiffusionFinetuner, GPBonusReward
from braidkit.exceptions import InvalidDesignError, InvalidTargetError
from braidkit.rewards import ObjectiveReward

N = 20
ROWS = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), (N, 4))]
Y = np.arange(float(N))
Y2 = pd.DataFrame({"a": Y, "b": Y[::-1]})
ESTIMATORS = {
    "GPBonusReward": lambda: (GPBonusReward(random_state=0), Y),
    "BootstrapReward": lambda: (BootstrapReward(random_state=0), Y),
    "finetuner": lambda: (ConservativeDiffusionFinetuner(random_state=0), Y),
    "ObjectiveReward": lambda: (ObjectiveReward("a - b"), Y2),
    "finetuner of an objective": lambda: (ConservativeDiffusionFinetuner(objective="a - b", random_state=0), Y2),
}
NUMBERS = {
    "a number": (5, "should be a 1d array"),
    "a word": ("x", "should be a 1d array"),
    "words": (["x"] * N, "row 0 is 'x', which is not a number"),
    "too few": (np.ones(5), "has 5 entries for 20 rows"),
    "negative": (np.where(np.arange(N) == 3, -1.0, 1.0), "row 3 is -1"),
    "missing": (np.where(np.arange(N) == 3, np.nan, 1.0), "contains NaN: row 3 is nan"),
    "infinite": (np.where(np.arange(N) == 3, np.inf, 1.0), "contains infinity: row 3"),
    "huge": (np.full(N, 1e300), "row 0 is 1e.300 .20 such rows.; too large"),
    "complex": (np.ones(N) * 1j, "has complex numbers"),
    "dates": (pd.Series(pd.date_range("2024", periods=N)), "holds dates"),
    "ragged": ([[1.0]] * (N - 1) + [[1.0, 2.0]], "rows differ in length"),
    "a dictionary": ({"a": 1}, "should be a 1d array"),
    "three axes": (np.ones((N, 2, 2)), "should be a 1d array"),
}
GROUPS = [5, "x", [{}] * N, [None] * N, np.full(N, np.nan), np.ones(5), np.ones((N // 2, 2)), [[1], [2, 3]] * (N // 2)]


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize(("values", "words"), NUMBERS.values(), ids=NUMBERS)
def test_weights(make, values, words):
    estimator, y = make()
    with pytest.raises(InvalidTargetError, match=f"sample_weight.*{words}"):
        estimator.fit(ROWS, y, sample_weight=values)


@pytest.mark.parametrize("name", ["GPBonusReward", "BootstrapReward", "finetuner"])
@pytest.mark.parametrize(("values", "words"), NUMBERS.values(), ids=NUMBERS)
def test_standard_errors(name, values, words):
    estimator, y = ESTIMATORS[name]()
    with pytest.raises(InvalidTargetError, match=f"y_error.*{words}"):
        estimator.fit(ROWS, y, y_error=values)


@pytest.mark.parametrize("name", ["ObjectiveReward", "finetuner of an objective"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_standard_errors_of_several_quantities(name, kind):
    estimator, y = ESTIMATORS[name]()
    values, words = NUMBERS[kind]
    if kind in ("words", "negative", "missing", "infinite", "huge", "complex", "dates"):
        values = pd.DataFrame({"a": 1.0, "b": values})
    else:
        words = "must have a column for each of a, b|rows differ in length"
    with pytest.raises(InvalidTargetError, match=f"y_error.*{words}"):
        estimator.fit(ROWS, y, y_error=values)


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("size", [0.0, 1e-300])
def test_standard_errors_that_no_measurement_has(make, size):
    estimator, y = make()
    with pytest.raises(InvalidTargetError, match="y_error.* row 0 is (0|1e-300)"):
        estimator.fit(ROWS, y, y_error=np.full(np.shape(y), size))


@pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("groups", GROUPS, ids=range(len(GROUPS)))
def test_groups(make, groups):
    estimator, y = make()
    with pytest.raises(InvalidDesignError, match="^groups"):
        estimator.fit(ROWS, y, groups=groups)
