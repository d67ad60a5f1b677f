"""One reader of designs: every container of text gives the same rows, and what is missing is named by row."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braidkit.exceptions import InvalidDesignError
from braidkit.spaces import SequenceSpace, VectorSpace, design_groups, infer_space, is_strings, read_designs


class Column:
    """A column of another table library: neither a list nor an array, but with a method that gives one of them."""

    def __init__(self, rows, method):
        setattr(self, method, lambda: rows)


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "array of str": np.array,
    "array of objects": lambda rows: np.array(rows, dtype=object),
    "array of StringDType": lambda rows: np.array(rows, dtype=np.dtypes.StringDType()),
    "array of bytes": lambda rows: np.array(rows).astype("S"),
    "list of bytes": lambda rows: [row.encode() for row in rows],
    "list of np.str_": lambda rows: list(np.array(rows)),
    "series": pd.Series,
    "filtered series": lambda rows: pd.Series(["AAAA", *rows]).iloc[1:].sort_index(ascending=True),
    "series.values": lambda rows: pd.Series(rows).values,
    "series.array": lambda rows: pd.Series(rows).array,
    "series of objects": lambda rows: pd.Series(rows, dtype=object),
    "series of categories": lambda rows: pd.Series(rows, dtype="category"),
    "series of string": lambda rows: pd.Series(rows, dtype="string"),
    "categories": lambda rows: pd.Series(rows, dtype="category").values,
    "index": pd.Index,
    "frame": lambda rows: pd.DataFrame({"sequence": rows}, index=range(7, 7 + len(rows))),
    "column array": lambda rows: np.array(rows)[:, None],
    "to_numpy": lambda rows: Column(np.array(rows, dtype=object), "to_numpy"),
    "to_pylist": lambda rows: Column(rows, "to_pylist"),
}
ROWS = ["ACGT", "TTTT", "GGCA"]


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_every_container_of_text_gives_the_same_rows(container):
    X = container(ROWS)
    assert is_strings(X)
    read = read_designs(X)
    assert read.dtype == object and read.tolist() == ROWS and all(isinstance(row, str) for row in read)
    assert infer_space(X) == SequenceSpace("DNA", 4)
    assert SequenceSpace("DNA", 4).decode(SequenceSpace("DNA", 4).encode(X)) == ROWS


@given(
    st.lists(st.text("ACGT", min_size=1, max_size=5), min_size=1, max_size=8),
    st.sampled_from(sorted(set(CONTAINERS) - {"filtered series"})),
)
def test_any_text_survives_any_container(rows, name):
    assert read_designs(CONTAINERS[name](rows)).tolist() == rows


def test_unique_values_of_a_column_are_read():
    assert read_designs(pd.Series([*ROWS, "ACGT"]).unique()).tolist() == ROWS


MISSING = {
    "list": list,
    "array": lambda rows: np.array(rows, dtype=object),
    "series": pd.Series,
    "series of string": lambda rows: pd.Series(rows, dtype="string"),
    "series of categories": lambda rows: pd.Series(rows, dtype="category"),
    "frame": lambda rows: pd.DataFrame({"sequence": rows}),
}


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA], ids=str)
@pytest.mark.parametrize("container", MISSING.values(), ids=MISSING.keys())
def test_a_missing_value_is_named_by_its_row_in_any_place(container, missing, row):
    rows = list(ROWS)
    rows[row] = missing
    with pytest.raises(InvalidDesignError, match=rf"row {row} is (None|nan|<NA>), not a string; drop such rows"):
        infer_space(container(rows))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (["ACGT", 3.0], r"row 1 is 3.0, not a string"),
        ([None, None], r"row 0 is None, not a string"),
        ("ACGT", r"X is one string \('ACGT'\); pass a list"),
        (5, r"X is 5, not a collection of designs"),
        (None, r"X is None, not a collection of designs"),
        ((row for row in ROWS), r"not a collection of designs"),
        ([[1.0, 2.0], [3.0]], r"rows of different lengths: row 0 has 2 entries, row 1 has 1"),
        ([["A", "C"], ["G", "T"]], r"text in an array of shape \(2, 2\); pass one string a row"),
        (pd.DataFrame({"a": ["AC", "GT"], "b": [1.0, 2.0]}), r"text in an array of shape \(2, 2\)"),
        (pd.to_datetime(pd.Series(["2024-01-02", "2024-01-03"])), r"X holds dates \(2024-01-02"),
        (np.zeros((3, 5, 4)), r"shape \(3, 5, 4\).*name the space: space=SequenceSpace"),
        (np.zeros((3, 5, 4, 3)), r"name the space: space=ImageSpace"),
        ([], r"X is empty"),
    ],
    # A generator's repr has its address, which differs between the processes of a parallel run.
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_objects_without_designs_are_refused_by_name(X, message):
    with pytest.raises(InvalidDesignError, match=message):
        infer_space(X)


def test_numeric_designs_are_not_changed():
    X = np.random.default_rng(0).normal(size=(4, 3))
    assert read_designs(X) is X
    assert not is_strings(X) and not is_strings([[1, 2], [3, 4]])
    assert np.array_equal(VectorSpace(3).encode(torch.from_numpy(X).requires_grad_()), X.astype(np.float32))
    assert read_designs(torch.zeros(2, 2, dtype=torch.bfloat16)).dtype == np.float32


def test_characters_outside_the_codes_are_no_letters():
    with pytest.raises(InvalidDesignError, match="row 0: 'é' at position 2 is not in the alphabet A?"):
        SequenceSpace("A?", 2).encode(["Aé"])


@given(st.lists(st.sampled_from(["AC", "AG", "CC", "TT"]), min_size=1, max_size=12))
def test_groups_number_identical_designs_alike(rows):
    space = SequenceSpace("DNA", 2)
    groups = design_groups(rows)
    assert groups.dtype == np.int64 and groups[0] == 0
    assert [[a == b for a in rows] for b in rows] == (groups[:, None] == groups).tolist()
    assert np.array_equal(groups, design_groups(space.encode(rows)))
    assert np.array_equal(groups, design_groups(pd.Series(rows, index=range(3, 3 + len(rows)))))


def test_groups_of_vectors_take_minus_zero_for_zero():
    assert design_groups(np.array([[0.0, 1.0], [2.0, 1.0], [-0.0, 1.0]])).tolist() == [0, 1, 0]
    assert design_groups([[1, 2], [1, 2]]).tolist() == [0, 0]
