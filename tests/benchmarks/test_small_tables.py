"""The parts of the benchmark of small tables that its numbers rest on."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from simple_methods import MODELS, exhaustive, genetic_algorithm
from small_landscapes import ehrlich
from small_tables import overview


@pytest.fixture(scope="module")
def landscape():
    return ehrlich("ABCDE", 8, 2, 3)


@pytest.fixture(scope="module")
def rows(landscape):
    return landscape.rows(100, seed=0)


def test_rows_lie_below_the_quantile_and_fresh_ones_are_others(landscape, rows):
    assert len(rows.X) == 100 and landscape.valid(rows.X).all()
    assert rows.truth.mean() < rows.truth_high.mean()
    assert not set(rows.X) & set(rows.X_fresh) and not set(rows.X) & set(rows.X_high)
    np.testing.assert_array_equal(landscape.truth(rows.X), rows.truth)
    assert (landscape.strings(landscape.tokens(rows.X)) == rows.X).all()


def test_small_tables_are_decided_by_their_seed(landscape, rows):
    again, other = landscape.rows(100, seed=0), landscape.rows(100, seed=1)
    assert (again.X == rows.X).all() and (again.y == rows.y).all() and (other.X != rows.X).any()


@pytest.mark.parametrize("name", MODELS)
def test_simple_models_learn_what_letters_add(name):
    rng = np.random.default_rng(0)
    tokens, weights = rng.integers(4, size=(400, 6)), rng.normal(size=(6, 4))
    y = weights[np.arange(6), tokens].sum(axis=1)
    model = MODELS[name](4, 0).fit(tokens[:300], y[:300])
    assert np.corrcoef(model.predict(tokens[300:]), y[300:])[0, 1] > (0.7 if name == "forest" else 0.85)


def test_genetic_algorithm_finds_the_best_of_all_designs(landscape, rows):
    weights = np.random.default_rng(1).normal(size=(8, 5))

    def score(tokens):
        return weights[np.arange(8), tokens].sum(axis=1)

    tokens = landscape.tokens(rows.X)
    found = genetic_algorithm(score, tokens, rows.y, 5, seed=0)
    assert len(np.unique(found, axis=0)) == 100
    assert score(found[:1]) == pytest.approx(weights.max(axis=1).sum())
    assert score(exhaustive(score, 5, 8)[:1]) == pytest.approx(weights.max(axis=1).sum())
    seen = {pair for row in tokens for pair in zip(row, row[1:], strict=False)}
    kept = genetic_algorithm(score, tokens, rows.y, 5, seed=0, seen_pairs=True)
    assert {pair for row in kept for pair in zip(row, row[1:], strict=False)} <= seen


def test_overview_pairs_braidkit_with_the_best_simple_method_by_seed():
    values = {
        "braidkit": (3.0, 5.0),
        "ridge, GA": (1.0, 2.0),
        "ridge, GA, seen pairs": (2.0, 4.5),
        "forest, GA": (0.0, 0.0),
        "braidkit's mean, GA": (9.0, 9.0),
    }
    records = [("world", 500, s, m, "mean", v[s]) for m, v in values.items() for s in (0, 1)]
    records += [("world", 500, s, "braidkit", name, 1.0) for s in (0, 1) for name in ("valid", "bound holds")]
    row = overview(pd.DataFrame(records, columns=["landscape", "rows", "seed", "method", "metric", "value"])).iloc[0]
    assert row["braidkit"] == "4.00 (3.00 to 5.00)"
    assert row["ridge"] == "3.25" and row["forest"] == "0.00"
    assert row["less the best of these"] == "0.75 (0.50 to 1.00)"
