import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.evaluation.edit_distance import edit_distances, nearest
from braidkit.exceptions import InvalidDesignError


def by_table(a, b):
    """The textbook recursion."""
    previous = list(range(len(b) + 1))
    for i, x in enumerate(a):
        current = [i + 1]
        for j, y in enumerate(b):
            current.append(min(previous[j] + (x != y), previous[j + 1] + 1, current[j] + 1))
        previous = current
    return previous[-1]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("ACGTé", min_size=1, max_size=12), min_size=1, max_size=4),
    st.lists(st.text("ACGN", min_size=1, max_size=12), min_size=1, max_size=6),
)
def test_equals_the_textbook_recursion(queries, references):
    assert edit_distances(queries, references).tolist() == [[by_table(a, b) for b in references] for a in queries]


@pytest.mark.parametrize("length", [63, 64, 65, 128, 150])
def test_equals_the_textbook_recursion_over_several_words(length, rng):
    references = ["".join(rng.choice(list("ACGT"), n)) for n in (length, length - 7, length + 40, 5)]
    # One letter gone, one replaced and one put in, besides a random sequence.
    edited = "T" + references[0][1:20] + references[0][21:60] + "G" + references[0][60:]
    queries = [edited, "".join(rng.choice(list("ACGT"), length))]
    assert edit_distances(queries, references).tolist() == [[by_table(a, b) for b in references] for a in queries]


@settings(max_examples=50, deadline=None)
@given(*[st.text("ACGT", min_size=1, max_size=80)] * 3)
def test_is_a_metric(a, b, c):
    d = edit_distances([a, b, c], [a, b, c])
    assert (np.diag(d) == 0).all()
    assert (d == d.T).all()
    assert d[0, 2] <= d[0, 1] + d[1, 2]
    assert (d[0, 1] == 0) == (a == b)


def test_nearest_works_in_blocks_and_gives_the_first_of_equals(rng, monkeypatch):
    monkeypatch.setattr("braidkit.evaluation.edit_distance._BLOCK", 80)
    reference = ["".join(rng.choice(list("ACGT"), 12)) for _ in range(40)]
    designs = [reference[31][:-1], reference[3], "A" * 12]
    index, distance = nearest(designs, reference)
    every = edit_distances(designs, reference)
    assert distance.tolist() == every.min(axis=1).tolist()
    assert index.tolist() == every.argmin(axis=1).tolist()
    assert distance[1] == 0


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "empty; pass at least one"),
        (["ACGT", ""], "row 1 is ''"),
        (["ACGT", 3], "row 1 is 3"),
        ("ACGT", r"one string \('ACGT'\); pass a list"),
    ],
)
def test_rows_that_are_no_sequences_are_refused(sequences, message):
    with pytest.raises(InvalidDesignError, match=message):
        nearest(sequences, ["ACGT"])
