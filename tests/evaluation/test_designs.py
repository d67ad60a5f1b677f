import copy

import numpy as np
import pandas as pd
import pytest
import torch

from braidkit import ConservativeDiffusionFinetuner, MaskedDiffusion, SequenceSpace, SimplexDiffusion
from braidkit.datasets.table import read_table
from braidkit.evaluation.arguments import usual_draws
from braidkit.evaluation.designs import design_table, write_designs
from braidkit.evaluation.edit_distance import edit_distances
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning import sample_with_kl
from tests.language_models import tiny_bert

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SCORES = ["mean", "penalty", "lower", "judge"]
COLUMNS = ["id", "sequence", *SCORES, "nearest", "nearest_value", "distance", "kl", "gc", "flags"]


@pytest.fixture(scope="module")
def table(run):
    return design_table(*run, n_designs=40, n_candidates=300, random_state=0)


def test_designs_differ_and_come_best_lower_bound_first(run, table):
    assert len(table) == table["sequence"].nunique() == 40
    assert table.columns.tolist() == COLUMNS
    assert table["id"].tolist() == [f"design_{i + 1}" for i in range(40)]
    assert table["lower"].is_monotonic_decreasing
    # Fine-tuned designs beat the data they came from, by the reward that was optimised.
    assert table["lower"].mean() > run.finetuner.reward_.predict_lower(run.X).mean()


def test_scores_are_those_of_the_estimator(run, table):
    sequences = table["sequence"].tolist()
    np.testing.assert_allclose(table["mean"], run.finetuner.reward_.predict(sequences))
    np.testing.assert_allclose(table["lower"], run.finetuner.reward_.predict_lower(sequences))
    np.testing.assert_allclose(table["mean"] - table["penalty"], table["lower"])
    np.testing.assert_allclose(table["judge"], run.finetuner.judge_.predict(sequences))
    assert table["gc"].tolist() == [(row.count("G") + row.count("C")) / 10 for row in sequences]


def test_path_kl_is_that_of_the_kept_checkpoint(run, table):
    history = run.finetuner.history_
    kept = history["kl"][history["iteration"].index(run.finetuner.best_iter_)]
    assert (table["kl"] >= 0).all()
    assert table["kl"].mean() == pytest.approx(kept, rel=0.3)


def test_nearest_measured_sequence_with_its_value(run, table):
    distances = edit_distances(table["sequence"].tolist(), run.X)
    assert table["distance"].tolist() == distances.min(axis=1).tolist()
    lower_case = design_table(
        run.finetuner, [row.lower() for row in run.X], run.y, n_designs=40, n_candidates=300, random_state=0
    )
    pd.testing.assert_frame_equal(lower_case, table)
    for (_, row), index in zip(table.iterrows(), distances.argmin(axis=1), strict=True):
        assert row["nearest"] == run.X[index]
        assert row["nearest_value"] == run.y[index]


def test_flags_say_what_to_look_at(run, table):
    known = table["sequence"][3]
    everything = {"n_designs": 400, "n_candidates": 400, "max_identity": 1, "random_state": 0}
    flagged = design_table(run.finetuner, [*run.X, known], [*run.y, 77.0], **everything)
    assert flagged["flags"].str.contains("measured already").tolist() == (flagged["distance"] == 0).tolist()
    assert flagged.loc[flagged["sequence"] == known, "nearest_value"].tolist() == [77.0]
    penalty = run.finetuner.reward_.predict(run.X) - run.finetuner.reward_.predict_lower(run.X)
    unusual = table["penalty"] > np.quantile(penalty, 0.95)
    assert table["flags"].str.contains("penalty above that of 95 % of measured").tolist() == unusual.tolist()


def test_designs_that_the_judge_finds_much_worse_are_flagged(run):
    # Measurements far apart have a large usual error, equal ones nearly none.
    for scale, share in ((100.0, 0.0), (1e-9, None)):
        table = design_table(
            run.finetuner, run.X, scale * run.y, n_designs=400, n_candidates=400, max_identity=1, random_state=0
        )
        flagged = table["flags"].str.contains("judge below the bound by more than the usual error")
        below = table["judge"] < table["lower"]
        assert flagged.mean() == (below.mean() if share is None else share)
        assert 0 < below.mean() < 1


def test_homopolymers_and_unusual_gc_are_flagged(run):
    # Against measured sequences without G and C, every design with one is out of the usual range.
    X = ["".join(row) for row in np.random.default_rng(1).choice(list("AT"), (50, 10))]
    table = design_table(run.finetuner, X, np.arange(50.0), n_designs=200, random_state=0)
    flagged = table["flags"].str.contains("GC outside that of 99 % of measured sequences")
    assert flagged.tolist() == (table["gc"] > 0).tolist()
    runs = table["sequence"].str.contains("A{9}|C{9}|G{9}|T{9}")
    assert table["flags"].str.contains("homopolymer longer than 8").tolist() == runs.tolist()


def test_the_seed_gives_the_same_table(run, table):
    pd.testing.assert_frame_equal(table, design_table(*run, n_designs=40, n_candidates=300, random_state=0))
    assert set(table["sequence"]) != set(design_table(*run, n_designs=40, n_candidates=300, random_state=1)["sequence"])


def test_fewer_designs_when_there_are_no_more():
    X = [a + b for a in "ACGT" for b in "ACGT"] * 3
    y = np.array([row.count("G") for row in X], dtype=float)
    chain = SimplexDiffusion(SequenceSpace("DNA", 2), n_steps=5).fit(X, max_iter=50, random_state=0)
    finetuner = ConservativeDiffusionFinetuner(chain, max_iter=2, batch_size=16, random_state=0).fit(X, y)
    table = design_table(finetuner, X, y, n_designs=50, random_state=0)
    assert 1 < len(table) <= 16
    assert table["sequence"].is_unique
    assert table["flags"].str.contains("measured already").all()


def test_design_table_refuses_no_designs(run):
    with pytest.raises(InvalidParameterError, match="n_designs must be a whole number of at least 1; got 0"):
        design_table(*run, n_designs=0)


def test_written_files_read_back(table, tmp_path):
    write_designs(table, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["designs.csv", "designs.fasta"]
    back = pd.read_csv(tmp_path / "designs.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(back, table, rtol=1e-5, check_dtype=False)
    lines = (tmp_path / "designs.fasta").read_text().splitlines()
    assert [line.split()[0] for line in lines[::2]] == [f">{name}" for name in table["id"]]
    assert lines[1::2] == table["sequence"].tolist()


def test_designs_are_the_best_of_many_candidates(run, table):
    assert table.attrs["n_drawn"] == 300
    few = design_table(*run, n_designs=40, n_candidates=40, max_identity=1, random_state=0)
    assert few.attrs["n_drawn"] == 40
    # The best 40 of 300 lie above 40 draws as they come.
    assert table["lower"].mean() > few["lower"].mean() + 0.5
    assert few["lower"].min() < table["lower"].min()


def test_near_duplicates_are_passed_over_and_counted(run):
    table = design_table(*run, n_designs=30, n_candidates=300, max_identity=0.7, random_state=0)
    sequences = table["sequence"].tolist()
    distances = edit_distances(sequences, sequences)[~np.eye(len(sequences), dtype=bool)]
    assert distances.min() >= 3
    assert table.attrs["rejected"]["max_identity"] > 0
    loose = design_table(*run, n_designs=30, n_candidates=300, max_identity=1, random_state=0)
    assert loose.attrs["rejected"]["max_identity"] == 0
    assert loose["lower"].mean() >= table["lower"].mean()


def test_measured_sequences_give_way_to_new_ones(run, table):
    known = table["sequence"].tolist()[:5]
    again = design_table(
        run.finetuner, [*run.X, *known], [*run.y, *[1.0] * 5], n_designs=40, n_candidates=300, random_state=0
    )
    assert not set(known) & set(again["sequence"])
    assert again.attrs["rejected"]["X"] >= 5


def test_concerns_are_warned_of_and_kept(run):
    with pytest.warns(UserWarning) as caught:
        table = design_table(run.finetuner, run.X, run.y + 100, n_designs=20, n_candidates=100, random_state=0)
    texts = [str(warning.message) for warning in caught]
    assert texts == table.attrs["warnings"]
    assert any("below the best measurement" in text for text in texts)


def test_a_run_that_kept_the_pretrained_model_says_so(run):
    finetuner, X, y = run
    unchanged = copy.copy(finetuner)
    unchanged.best_iter_ = 0
    with pytest.warns(UserWarning, match="these are the best of its own 20 draws"):
        table = design_table(unchanged, X, y, n_designs=5, n_candidates=20, random_state=0)
    assert any("best of its own" in text for text in table.attrs["warnings"])


def test_a_flag_of_a_large_penalty_alone_is_no_doubt(table):
    others = table["flags"].str.replace("penalty above that of 95 % of measured ones", "").str.strip("; ")
    assert table.attrs["n_doubtful"] == (others != "").sum()


@pytest.mark.parametrize("extra", [{"n_candidates": 100_000}, {}])
def test_candidates_are_drawn_in_batches(run, monkeypatch, extra):
    class Enough(Exception):
        pass

    sizes = []
    draw = run.finetuner.model_.draw_noise

    def counted(n, generator):
        sizes.append(n)
        if len(sizes) == 3:
            raise Enough
        return draw(n, generator)

    monkeypatch.setattr(run.finetuner.model_, "draw_noise", counted)
    with pytest.raises(Enough):
        design_table(*run, n_designs=10_000, random_state=0, **extra)
    assert max(sizes) <= 256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_designs": 2.5}, "n_designs must be a whole number of at least 1; got 2.5"),
        ({"n_designs": np.nan}, "n_designs must be a whole number of at least 1; got nan"),
        ({"n_candidates": 5}, "n_candidates must be a whole number of at least 10; got 5"),
        ({"max_identity": np.nan}, "max_identity must be a number above 0 and at most 1; got nan"),
    ],
)
def test_arguments_out_of_range_are_refused_before_any_work(run, monkeypatch, arguments, message):
    monkeypatch.setattr(run.finetuner, "model_", None)
    with pytest.raises(InvalidParameterError, match=message):
        design_table(*run, **({"n_designs": 10} | arguments))


def test_cells_are_no_formulas_to_a_spreadsheet_and_come_back_as_they_were(tmp_path):
    sequences = ["-ACG", "=CMD", "+AAA", "@SUM", "'-AC", "ACG-"]
    numbers = {name: np.arange(-2.0, 4.0) for name in ("mean", "lower")}
    ids = [f"design_{i}" for i in range(6)]
    write_designs(pd.DataFrame({"id": ids, "sequence": sequences, "nearest": sequences, **numbers}), tmp_path)
    written = pd.read_csv(tmp_path / "designs.csv", dtype=str, keep_default_na=False)
    for column in ("sequence", "nearest"):
        assert not written[column].str.contains(r"^[=+\-@]").any()
    letters = "".join(sorted(set("".join(sequences))))
    table = read_table(tmp_path / "designs.csv", sequence="sequence", target="mean", alphabet=letters)
    assert table.sequences == sequences and table.y[0] == -2


def test_of_a_language_model_few_candidates_are_drawn_and_the_pretrained_one_passes_the_chosen_only(monkeypatch):
    """The KL in the table is that of each design's own path."""
    lm, tokenizer = tiny_bert("ACGT")
    chain = MaskedDiffusion.from_masked_lm(lm, SequenceSpace("DNA", 12), tokenizer=tokenizer, n_steps=3)
    X = chain.sample(60, random_state=1)
    y = np.array([row.count("G") for row in X]) + 0.01 * np.arange(60)
    finetuner = ConservativeDiffusionFinetuner(chain, 0.3, max_iter=4, batch_size=32, random_state=0).fit(X, y)
    seen, policy = [], chain.policy
    monkeypatch.setattr(finetuner.pretrained_, "policy", lambda x, t: seen.append(len(x)) or policy(x, t))
    table = design_table(finetuner, X, y, n_designs=10, random_state=0)
    assert table.attrs["n_drawn"] == 250
    assert sum(seen) == 3 * 10
    # The candidates come again, all with their KL; of a design that is drawn twice the first path counts.
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    noise = chain.draw_noise(250, torch.Generator().manual_seed(seed))
    path = sample_with_kl(finetuner.model_, finetuner.pretrained_, noise)
    kl = dict(zip(reversed(chain.space.decode(path.point, "strings")), reversed(path.kl.tolist()), strict=True))
    np.testing.assert_allclose(table["kl"], [kl[row] for row in table["sequence"]], rtol=1e-4, atol=1e-5)
    assert table["kl"].max() > 0.1
    assert usual_draws(finetuner, 500) == 50
