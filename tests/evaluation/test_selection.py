"""Batches of designs keep every limit, are the best that do, and say what each limit cost."""

import warnings

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from sklearn.base import BaseEstimator

from braidkit import ConservativeDiffusionFinetuner, SequenceSpace
from braidkit.evaluation import select
from braidkit.evaluation.edit_distance import edit_distances
from braidkit.exceptions import InvalidParameterError

LENGTH = 10


class CountingReward:
    """G counts one, A a half; the bound is 0.25 below."""

    def predict(self, X):
        return np.array([row.count("G") + 0.5 * row.count("A") for row in X])

    def predict_lower(self, X):
        return self.predict(X) - 0.25


class Drawn(BaseEstimator):
    """A fitted estimator that draws from given candidates."""

    def __init__(self, candidates, alphabet="DNA"):
        self.space_ = SequenceSpace(alphabet, len(candidates[0]))
        self.reward_ = CountingReward()
        self.candidates = candidates

    def fit(self, X, y):
        return self

    def sample(self, n_samples=1, random_state=None):
        return self.candidates[:n_samples]


def random_rows(n, seed=0, letters="ACGT"):
    return ["".join(row) for row in np.random.default_rng(seed).choice(list(letters), (n, LENGTH))]


def designs_of(table):
    return table.loc[table["role"] == "design", "sequence"].tolist()


templates = st.lists(st.sampled_from("ACGT......................"), min_size=LENGTH, max_size=LENGTH).map("".join)


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    n=st.integers(1, 12),
    max_identity=st.floats(0.1, 1),
    gc=st.none() | st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)),
    max_homopolymer=st.none() | st.integers(1, 4),
    forbidden=st.lists(st.text("ACGT", min_size=2, max_size=4), max_size=3),
    template=st.none() | templates,
    seed=st.integers(0, 3),
)
def test_every_design_keeps_every_limit(n, max_identity, gc, max_homopolymer, forbidden, template, seed):
    rows = random_rows(150, seed)
    measured = rows[:20]
    limits = {"gc": gc, "max_homopolymer": max_homopolymer, "forbidden": forbidden, "template": template}
    limits |= {"max_identity": max_identity, "n_designs": n}
    held = template or ""
    hypothesis.assume(not any(word in held for word in forbidden))
    hypothesis.assume(not any(letter * ((max_homopolymer or LENGTH) + 1) in held for letter in "ACGT"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = select(Drawn(rows), measured, np.arange(20), random_state=0, **limits)
    chosen = designs_of(table)
    assert len(chosen) == n or (len(chosen) < n and len(caught) == 1)
    assert not set(chosen) & set(measured) and len(set(chosen)) == len(chosen)
    for row in table["sequence"]:
        share = (row.count("G") + row.count("C")) / LENGTH
        assert gc is None or gc[0] <= share <= gc[1]
        assert max_homopolymer is None or not any(letter * (max_homopolymer + 1) in row for letter in "ACGT")
        assert not any(word in row for word in forbidden)
        assert template is None or all(held in (".", letter) for held, letter in zip(template, row, strict=True))
    if len(chosen) > 1:
        apart = edit_distances(chosen, chosen)[~np.eye(len(chosen), dtype=bool)]
        assert (1 - apart / LENGTH).max() <= max_identity + 1e-6
    assert table["lower"][: len(chosen)].is_monotonic_decreasing


def test_a_template_may_hold_every_letter():
    rows = ["GGGGGAAAAA", "GGGGGAAAAC", "ACACACACAC"]
    with pytest.warns(UserWarning, match="1 of 2 designs"):
        table = select(Drawn(rows), n_designs=2, template="GGGGGAAAAC", n_controls=0)
    assert table["sequence"].tolist() == ["GGGGGAAAAC"]


def test_the_best_bounds_are_taken_and_their_likes_passed_over():
    rows = ["GGGGGAAAAA", "GGGGGAAAAC", "GGGGGAAATT", "CCCCCTTTTT", "TTTTTCCCCG", "ACACACACAC"]
    table = select(Drawn(rows), n_designs=3, max_identity=0.8, n_controls=0)
    # The second is like the first (9 of 10 letters), the third just different enough (8 of 10).
    assert table["sequence"].tolist() == ["GGGGGAAAAA", "GGGGGAAATT", "ACACACACAC"]
    assert table.attrs == {"n_candidates": 6, "rejected": {"max_homopolymer": 0, "max_identity": 1}}
    assert table["lower"].tolist() == [7.25, 6.25, 2.25] and table["mean"].tolist() == [7.5, 6.5, 2.5]
    assert table["id"].tolist() == ["design_1", "design_2", "design_3"]


def test_select_counts_rejections_by_limit():
    rows = ["GGGGCCCCAA", "AAAATTTTCC", "ACACGTGTAC", "GAATTCACAC", "ACGTACGTAC", "ACGTACGTAC"]
    table = select(
        Drawn(rows), ["ACGTACGTAC"], n_designs=1, gc=(0.3, 0.6), max_homopolymer=3, forbidden=["GAATTC"],
        template="AC........", n_controls=0,
    )  # fmt: skip
    assert table["sequence"].tolist() == ["ACACGTGTAC"]
    assert table.attrs["n_candidates"] == 5  # different ones
    assert table.attrs["rejected"] == {
        "gc": 2, "max_homopolymer": 2, "forbidden": 1, "template": 3, "X": 1, "max_identity": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"gc": (0.8, 1.0)},
            r"1 of 6 designs found among 5 different candidates; gc rejected 4: loosen gc, or pass more",
        ),
        ({"max_homopolymer": 3}, r"max_homopolymer rejected 2: loosen max_homopolymer"),
        ({"max_identity": 0.2}, r"max_identity rejected \d.*: loosen max_identity"),
        # One is rejected by both, one by its G's alone, two by words alone: loosening forbidden gives most.
        (
            {"max_homopolymer": 3, "forbidden": ["CCCC", "TTC", "ACG"]},
            r"rejected 3 \(others: max_homop.* 2\): loosen f",
        ),
        ({}, "5 of 6 designs found among 5 different candidates; no limit rejected any: pass more n_candidates"),
    ],
)
def test_a_shortage_names_the_limit_to_loosen(limits, message):
    rows = ["GGGGCCCCAG", "GGGGTACACT", "ACTCGTGTAC", "GAATTCACAC", "ACGTACGTAC"]
    with pytest.warns(UserWarning, match=message):
        select(Drawn(rows), n_designs=6, n_controls=0, **limits)


def test_measured_sequences_that_come_again_are_named_in_a_shortage():
    rows = random_rows(10)
    with pytest.warns(UserWarning, match="X rejected 9: measured sequences were drawn again"):
        table = select(Drawn(rows), [row.lower() for row in rows[:9]], n_designs=2, max_identity=1, n_controls=0)
    assert table["sequence"].tolist() == rows[9:]


def test_no_design_at_all_leaves_an_empty_table():
    with pytest.warns(UserWarning, match="0 of 3 designs found"):
        table = select(Drawn(random_rows(20)), n_designs=3, forbidden=["A", "C", "G"], max_homopolymer=None)
    assert len(table) == 0 and "lower" in table


def test_controls_come_after_the_designs():
    rows, measured = random_rows(100), random_rows(30, seed=1)
    y = np.random.default_rng(2).permutation(30).astype(float)
    table = select(Drawn(rows), measured, y, n_designs=8, n_controls=3, forbidden=["AA"], template="G.........")
    assert table["role"].tolist() == ["design"] * 8 + ["best measured"] * 3 + ["shuffled design"] * 3
    best = table[table["role"] == "best measured"]
    allowed = [i for i in np.argsort(-y) if "AA" not in measured[i] and measured[i][0] == "G"][:3]
    assert best["sequence"].tolist() == [measured[i] for i in allowed]
    assert best["measured"].tolist() == y[allowed].tolist()
    assert table.loc[table["role"] != "best measured", "measured"].isna().all()
    reward = CountingReward()
    assert table["lower"].tolist() == reward.predict_lower(table["sequence"]).tolist()
    shuffled = table.loc[table["role"] == "shuffled design", "sequence"]
    assert not set(shuffled) & set(designs_of(table))
    assert all("AA" not in row and row[0] == "G" for row in shuffled)
    assert table["id"].is_unique and table["id"].iloc[-1] == "shuffled_design_3"


def test_shuffled_designs_keep_their_pairs_of_letters():
    table = select(Drawn(random_rows(50)), n_designs=5, n_controls=5, max_homopolymer=None)
    pairs = [sorted(row[i : i + 2] for i in range(LENGTH - 1)) for row in table["sequence"]]
    assert len(pairs) == 10 and all(shuffled in pairs[:5] for shuffled in pairs[5:])


def test_a_fitted_estimator_gives_a_batch(run):
    table = select(*run, n_designs=20, max_identity=0.8, n_candidates=300, random_state=0)
    assert len(designs_of(table)) == 20
    sequences = table["sequence"].tolist()
    np.testing.assert_allclose(table["lower"], run.finetuner.reward_.predict_lower(sequences))
    np.testing.assert_allclose(table["judge"], run.finetuner.judge_.predict(sequences))
    again = select(*run, n_designs=20, max_identity=0.8, n_candidates=300, random_state=0)
    assert again["sequence"].tolist() == sequences


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"n_designs": 0}, "n_designs must be a whole number of at least 1; got 0"),
        ({"n_designs": 2.5}, "n_designs must be a whole number of at least 1; got 2.5"),
        ({"n_designs": True}, "n_designs must be a whole number of at least 1; got True"),
        ({"n_controls": -1}, "n_controls must be a whole number of at least 0; got -1"),
        ({"n_candidates": 0}, "n_candidates must be a whole number of at least 1; got 0"),
        ({"n_candidates": 1e3}, "n_candidates must be a whole number of at least 1; got 1000.0"),
        ({"max_identity": 0}, "max_identity must be a number above 0 and at most 1; got 0"),
        ({"max_identity": 90}, "max_identity must be a number above 0 and at most 1; got 90"),
        ({"max_identity": np.nan}, "max_identity must be a number above 0 and at most 1; got nan"),
        ({"max_identity": "90 %"}, "max_identity must be a number above 0 and at most 1; got '90 %'"),
        ({"gc": (0.6, 0.4)}, r"gc must be two shares, .*got \(0.6, 0.4\)"),
        ({"gc": 0.5}, "gc must be two shares, .*got 0.5"),
        ({"gc": (0.2, np.nan)}, r"gc must be two shares, .*got \(0.2, nan\)"),
        ({"gc": "ab"}, "gc must be two shares, .*got 'ab'"),
        ({"max_homopolymer": 0}, "max_homopolymer must be a whole number of at least 1; got 0"),
        ({"max_homopolymer": 2.5}, "max_homopolymer must be a whole number of at least 1; got 2.5"),
        ({"forbidden": "GAATTC"}, "forbidden must be a list of words, .*; got 'GAATTC'"),
        ({"forbidden": 5}, "forbidden must be a list of words, .*; got 5"),
        ({"forbidden": [5]}, "forbidden has 5, which is not written in ACGT"),
        ({"forbidden": ["GAAXTC"]}, "forbidden has 'GAAXTC', which is not written in ACGT"),
        ({"forbidden": [""]}, "forbidden has ''"),
        ({"template": "ACG"}, "template must have 10 characters, .*; got 'ACG'"),
        ({"template": "N........."}, "each one of ACGT or '.'"),
        ({"template": 7}, "template must have 10 characters, .*; got 7"),
        ({"y": [1.0]}, "y has no designs; pass X"),
    ],
)
def test_limits_that_none_can_meet_are_refused(limits, message):
    estimator = Drawn(random_rows(5))
    estimator.sample = None  # refused before anything is drawn
    with pytest.raises(InvalidParameterError, match=message):
        select(estimator, **({"n_designs": 1} | limits))


def test_limits_of_letters_are_for_sequences():
    with pytest.raises(InvalidParameterError, match="gc is for DNA and RNA, but the designs are written in LMNO"):
        select(Drawn(["LMNO"], alphabet="LMNO"), n_designs=1, gc=(0, 1))
    X = np.random.default_rng(0).normal(size=(60, 2))
    vectors = ConservativeDiffusionFinetuner(max_iter=1, batch_size=16, random_state=0).fit(X, X.sum(axis=1))
    with pytest.raises(InvalidParameterError, match="distances of vectors are told by the measured ones; pass X"):
        select(vectors, n_designs=5)
    for limit in ({"gc": (0.4, 0.6)}, {"max_homopolymer": 3}, {"forbidden": ["A"]}):
        with pytest.raises(InvalidParameterError, match=f"{next(iter(limit))} is a limit of sequences"):
            select(vectors, X, n_designs=5, **limit)
