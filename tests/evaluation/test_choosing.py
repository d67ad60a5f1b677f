"""The choice of different candidates is the greedy one, and its cost does not explode; concerns are said."""

import time
from types import SimpleNamespace

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest

from braidkit.evaluation import choosing
from braidkit.evaluation.choosing import (
    choose_different,
    concerns,
    default_candidates,
    default_identity,
    poor_predictions,
)
from braidkit.evaluation.edit_distance import edit_distances
from braidkit.spaces import SequenceSpace

rows_of_ten = st.lists(st.text("AC", min_size=10, max_size=10), min_size=1, max_size=60, unique=True)


def greedy(candidates, order, n, max_identity):
    """One candidate at a time, each compared with every one that was taken."""
    chosen, n_alike = [], 0
    for i in order:
        identity = [1 - d / len(candidates[i]) for d in edit_distances([candidates[i]], candidates)[0][chosen]]
        if max(identity, default=0) > max_identity + 1e-9:
            n_alike += 1
        else:
            chosen.append(int(i))
        if len(chosen) == n:
            break
    return chosen, n_alike


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(rows_of_ten, st.sampled_from([0.05, 0.5, 0.7, 0.8, 0.9, 1]), st.integers(1, 20), st.integers(1, 9))
def test_choose_different_equals_one_at_a_time(rows, max_identity, n, block):
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "_BLOCK", block)
        assert choose_different(rows, order, n, max_identity) == greedy(rows, order, n, max_identity)


def test_choose_different_of_thousands_takes_seconds():
    rng = np.random.default_rng(0)
    rows = list(dict.fromkeys("".join(row) for row in rng.choice(list("ACGT"), (20_000, 50))))
    start = time.process_time()
    chosen, n_alike = choose_different(rows, np.arange(len(rows)), 2000, 0.9)
    assert (len(chosen), n_alike) == (2000, 0)
    assert time.process_time() - start < 5


def test_ten_candidates_are_drawn_for_each_design_and_at_least_a_thousand():
    assert [default_candidates(n) for n in (1, 100, 500)] == [1000, 1000, 5000]
    assert default_candidates(100, listed=True) == 10_000


def test_designs_differ_by_default_in_a_tenth_of_what_measured_ones_do():
    rng = np.random.default_rng(0)
    space = SequenceSpace("ACGT", 100)
    assert default_identity(space, []) == pytest.approx(0.9)
    random = ["".join(row) for row in rng.choice(list("ACGT"), (400, 100))]
    assert 0.93 < default_identity(space, random) < 0.96  # two of them are some 53 edits apart
    parent = random[0]
    single = [parent[:i] + ("A" if parent[i] != "A" else "C") + parent[i + 1 :] for i in range(100)]
    assert default_identity(space, single) == pytest.approx(1 - 0.1 * 2 / 100)
    # A sequence that was measured several times is one.
    assert default_identity(space, single + [parent] * 500) == pytest.approx(1 - 0.1 * 2 / 100)
    held = SequenceSpace("ACGT", 100, template="_" * 10 + parent[10:])
    assert default_identity(held, []) == pytest.approx(0.99)


def table(lower, flags=""):
    lower = np.asarray(lower, dtype=float)
    return pd.DataFrame({"mean": lower + 0.1, "lower": lower, "flags": flags})


Y = np.array([0.0, 1.0, 2.0])  # deviation 0.82


@pytest.mark.parametrize(
    ("designs", "counts", "sentence"),
    [
        (table([2.5, 2.6]), (2, 10, 10), None),
        (
            table([2.5, 2.6]),
            (5, 10, 10),
            "2 of 5 designs found among 10 candidates: the others are too much like these",
        ),
        (table([2.5, 2.6]), (5, 10, 2), "2 of 5 designs found among 10 candidates: the model made no other"),
        (table([2.5, 2.6]), (2, 10, 3), "few different designs: 3 among 10 draws"),
        (table([2.5, 2.6], "odd"), (2, 10, 10), r'all 2 designs have a flag, most often "odd" \(2\)'),
        (table([2.5, 2.6, 2.7], ["a; b", "b", ""]), (3, 10, 10), r'2 of 3 designs have a flag, most often "b" \(2\)'),
        (table([1.5, 1.6, 2.1]), (3, 10, 10), "bounds of 2 of 3 designs are below the best measurement, 2"),
        (table([2.5, 2.9]), (2, 10, 10), "bounds of 1 of 2 designs exceed every .* highest is 2.9, the best .* 2. The"),
    ],
)
def test_concerns_are_said_where_there_are_any(designs, counts, sentence):
    found = concerns(designs, Y, **dict(zip(("n_designs", "n_drawn", "n_different"), counts, strict=True)))
    if sentence is None:
        assert found == []
    else:
        assert len(found) == 1
        assert pd.Series(found).str.contains(sentence).all(), found


@pytest.mark.parametrize(
    ("check", "poor"),
    [
        ({"r2": 0.3}, []),
        (
            {"r2": -0.05},
            ["the reward predicts rows that it has not seen hardly better than their mean does (R2 -0.05)"],
        ),
        ({"r2": 0.01, "r2_on": 0.6, "r2_off": 0.02}, ["the reward of off predicts"]),
    ],
)
def test_a_reward_that_predicts_nothing_is_told(check, poor):
    found = poor_predictions(SimpleNamespace(reward_check_=check))
    assert len(found) == len(poor)
    assert all(text.startswith(beginning) for text, beginning in zip(found, poor, strict=True))
