"""The parts of the benchmark of antibodies that its numbers rest on."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from braidkit import MaskedDiffusion, SequenceSpace
from tests.language_models import tiny_bert

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from antibodies import N_DRAWS, best_stage, finetuned_stage, over_seeds, paired, particles_stage, prior_chain, spread
from antibody_tables import Antibodies, among_measured, pseudo_perplexity, quality, replaced, split, varying


@pytest.fixture(scope="module")
def data():
    """Rows that differ at three places; the affinity counts W. So few that no reward trains a network."""
    rng = np.random.default_rng(0)
    X = np.array(["CA" + a + b + "GG" + c for a, b, c in rng.choice(list("ACDWY"), size=(70, 3))], dtype=object)
    X = np.unique(X.astype(str)).astype(object)
    y = np.array([row.count("W") + 0.01 * i for i, row in enumerate(X)])
    return Antibodies(X, y, X, y, varying(X))


def test_positions_that_vary_are_free_and_the_others_held(data):
    assert data.free == [2, 3, 6] and data.space.template == "CA__GG_"
    assert data.below[1].max() <= data.cut < data.y[np.isin(data.X, data.binders)].min()
    assert len(data.binders) == pytest.approx(0.2 * len(data.X), abs=1)


def test_a_split_at_the_quantile_learns_from_below_and_judges_all_above(data):
    training, judged = split(data, "quantile", 0)
    assert data.y[training].max() <= data.cut and set(data.X[judged]) == set(data.binders)
    training, judged = split(data, "random", 0)
    assert not set(training) & set(judged) and len(training) + len(judged) == len(data.X)
    assert len(judged) == len(data.X) // 5 and not np.array_equal(judged, split(data, "random", 1)[1])


def test_quality_of_predictions():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert quality(y, y) == {"R2": 1, "rank": 1, "too low": 0}
    found = quality(np.full(4, 1.5) + 1e-9 * y, y)
    assert found["R2"] == pytest.approx(1 - 9 / 5) and found["too low"] == pytest.approx(1)


def test_pseudo_perplexity_hides_each_free_letter_alone():
    lm, tokenizer = tiny_bert()
    chain = MaskedDiffusion.from_masked_lm(lm, SequenceSpace("protein", template="AC_E_"), tokenizer=tokenizer)
    nats = []
    for text, position, letter in (("AC[MASK]EF", 2, "D"), ("ACDE[MASK]", 4, "F")):
        words = text.replace("[MASK]", "?")
        ids = tokenizer(" ".join("[MASK]" if word == "?" else word for word in words), return_tensors="pt")["input_ids"]
        letters = tokenizer.convert_tokens_to_ids(list(chain.space.alphabet))
        with torch.no_grad():
            log_probs = lm(ids).logits[0, 1 + position, letters].log_softmax(dim=-1)
        nats.append(-float(log_probs[chain.space.alphabet.index(letter)]))
    assert pseudo_perplexity(chain, ["ACDEF", "ACDEF"]) == pytest.approx(np.exp(np.mean(nats)), rel=1e-5)


def test_mutants_differ_from_a_row_in_three_free_letters(data):
    for mutant in replaced(data.X, data.free, 20, 0):
        distances = [[a != b for a, b in zip(mutant, row, strict=True)] for row in data.X]
        assert min(map(sum, distances)) <= 3 and mutant[:2] == "CA" and mutant[4:6] == "GG"
    assert replaced(data.X[:1], data.free, 1, 0)[0][6] != data.X[0][6]  # all three free letters are other ones


def test_measured_designs_are_found_with_their_values():
    X, y = np.array(["AC", "AD"], dtype=object), np.array([5.0, 7.0])
    assert among_measured(["AC", "WW", "AC", "AD"], X, y) == {"measured": 0.75, "their mean": pytest.approx(17 / 3)}
    assert np.isnan(among_measured(["WW"], X, y)["their mean"])


def test_the_uniform_prior_knows_nothing_of_the_rows(data):
    chain = prior_chain(data, "uniform", Path(), 0)
    draws = chain.sample(400, random_state=0)
    assert all(row.startswith("CA") and row[4:6] == "GG" for row in draws)
    counts = pd.Series([row[2] for row in draws]).value_counts()
    assert len(counts) == 20 and counts.max() < 50
    assert set(prior_chain(data, "Markov", Path(), 0).sample(400, random_state=0)) <= {
        f"CA{a}{b}GG{c}" for a in "ACDWY" for b in "ACDWY" for c in "ACDWY"
    }


def test_the_best_of_each_four_draws_have_the_highest_bounds(data):
    draws = prior_chain(data, "uniform", Path(), 0).sample(16, random_state=1)
    best = best_stage(data, {"uniform": draws}, 0)["uniform"]
    assert len(best) == 4 and all(design in draws[4 * i : 4 * i + 4] for i, design in enumerate(best))
    counts = [row.count("W") for row in draws]
    assert np.mean([row.count("W") for row in best]) >= np.mean(counts)


def test_fine_tuned_designs_are_better_than_the_rows_that_they_learned_from(data):
    found = finetuned_stage(data, "Markov", Path(), 0)
    assert found["kl"] > 0.1 and 0.02 <= found["alpha"] < 5
    assert np.mean([row.count("W") for row in found["designs"]]) > data.below[1].mean() + 0.2


def test_differences_are_paired_by_seed():
    rows = [("a", 0, 1.0), ("a", 1, 2.0), ("b", 0, 1.5), ("b", 1, 2.7), ("once", 0, 9.0)]
    table = pd.DataFrame(rows, columns=["designs", "seed", "affinity by the judge"])
    (row,) = paired(table, "a").to_dict("records")
    # Differences of 0.5 and 0.7: mean 0.6, standard error 0.1, and 12.7 of these by Student's t with one degree.
    assert row["designs"] == "b" and row["less a"] == pytest.approx(0.6)
    assert row["half interval"] == pytest.approx(1.27, abs=0.005)


def test_particles_of_an_adapted_language_model_are_sequences_of_the_template(data, tmp_path):
    for part in tiny_bert():
        part.save_pretrained(tmp_path)
    few = Antibodies(data.X[:40], data.y[:40], data.X, data.y, data.free[:2])
    found = particles_stage(few, tmp_path, 0, adapts=True, n_steps=2)
    assert len(found["designs"]) == N_DRAWS and {row[:2] + row[4:] for row in found["designs"]} == {
        "CAGG" + few.X[0][6]
    }
    assert found["alpha"] >= 0.02
    assert found["kl"] > -0.1 and 1 / N_DRAWS <= found["ess"] <= 1 and set(found["nats a letter"]) == {0.15, 0.5, 1.0}


def test_cells_show_means_and_the_range_of_seeds():
    table = pd.DataFrame({"a": ["x", "x", "z"], "seed": [0, 1, 0], "value": [1.0, 2.0, 3.0], "none": np.nan})
    cells = over_seeds(table, ["a"])
    assert cells["value"].tolist() == ["1.50 (1.00 to 2.00)", "3.00"] and cells["none"].tolist() == ["", ""]
    assert spread(list("abcdefg"), 4) == ["a", "c", "e", "g"] and spread(["a"], 4) == ["a"]
