"""Spaces: round trips for every kind, and errors that name row, position and remedy."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.spaces import ImageSpace, SequenceSpace, VectorSpace, infer_space, space_from_config

KINDS = ("strings", "tokens", "one_hot", "flat")


@st.composite
def sequences(draw):
    alphabet = draw(st.sampled_from(["DNA", "RNA", "protein", "xyz01"]))
    space = SequenceSpace(alphabet, draw(st.integers(2, 7)))
    letters = st.text(space.alphabet, min_size=space.length, max_size=space.length)
    return space, draw(st.lists(letters, min_size=1, max_size=6))


@given(sequences(), st.sampled_from(KINDS))
def test_sequences_survive_a_round_trip_in_every_kind(case, kind):
    space, rows = case
    x = space.encode(rows)
    assert x.shape == (len(rows), *space.shape) and x.dtype == torch.float32
    assert torch.equal(x.sum(dim=2), torch.ones(len(rows), space.length))
    designs = space.decode(x, kind)
    assert space.kind_of(designs) == kind
    assert torch.equal(space.encode(designs), x)
    assert space.decode(x, "strings") == rows


@given(sequences())
def test_a_space_is_equal_to_the_one_made_from_its_config(case):
    space, _ = case
    assert space_from_config(space.to_config()) == space
    assert hash(space_from_config(space.to_config())) == hash(space)
    assert space != SequenceSpace(space.alphabet, space.length + 1)


@pytest.mark.parametrize(
    "X", [["ACGT", "acgt"], ("ACGT", "ACGT"), np.array(["ACGT"] * 2), np.array(["ACGT"] * 2, dtype=object)]
)
def test_every_collection_of_strings_is_read(X):
    assert SequenceSpace("DNA", 4).encode(X).argmax(dim=2).tolist() == [[0, 1, 2, 3]] * 2


def test_a_pandas_column_is_read_whatever_its_index():
    column = pd.Series(["ACGT", "AAAA"], index=[7, 3])
    assert infer_space(column) == SequenceSpace("DNA", 4)
    assert SequenceSpace("DNA", 4).encode(column)[1, :, 0].tolist() == [1, 1, 1, 1]


def test_caller_s_arrays_are_neither_changed_nor_shared():
    space = SequenceSpace("DNA", 2)
    flat = np.eye(4, dtype=np.float32)[[[0, 1], [2, 3]]].reshape(2, 8)
    before = flat.copy()
    space.encode(flat).zero_()
    assert np.array_equal(flat, before)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (["ACGT", "ACNT"], r"row 1: 'N' at position 3 is not in the alphabet ACGT; drop"),
        (["ACGé", "ACGT"], r"row 0: 'é' at position 4"),
        (["ACGT", "ACG"], r"row 1 has 3 letters, but the space has length 4: lengths run from 3 to 4"),
        (["ACG", "ACG"], r"row 0 has 3 letters, but the space has length 4: all rows have 3 letters"),
        (["ACGT", None], r"row 1 is None, not a string; drop such rows"),
        (np.array([[0, 1, 2, 4]]), r"row 0: token np.int64\(4\) at position 4 is not a whole number from 0 to 3"),
        (np.array([[0, 1, 2.5, 3]]), r"row 0: token np.float64\(2.5\) at position 3"),
        (np.full((1, 4, 4), 0.25), r"row 0: position 1 is not one-hot"),
        (np.zeros((2, 16)), r"row 0: position 1 is not one-hot"),
        (np.zeros((2, 15)), r"X has rows of shape \(15,\), but the space has 4 positions of 4 letters"),
        ("ACGT", r"X is one string \('ACGT'\); pass a list"),
    ],
)
def test_errors_name_row_position_letter_and_remedy(X, message):
    with pytest.raises(InvalidDesignError, match=message):
        SequenceSpace("DNA", 4).encode(X)


def test_letters_first_one_hot_is_told_apart():
    with pytest.raises(InvalidDesignError, match=r"letters first; pass them as \(n, 6, 4\)"):
        SequenceSpace("DNA", 6).encode(np.zeros((2, 4, 6)))


@pytest.mark.parametrize(("alphabet", "length"), [("A", 3), ("AAC", 3), ("DNA", 0), ("DNA", 2.5)])
def test_impossible_sequence_spaces_are_refused(alphabet, length):
    with pytest.raises(InvalidParameterError):
        SequenceSpace(alphabet, length)


@pytest.mark.parametrize(
    ("X", "space"),
    [
        (["ACG", "TTT"], SequenceSpace("DNA", 3)),
        (["ACG", "UUU"], SequenceSpace("RNA", 3)),
        (["MKV", "ACD"], SequenceSpace("protein", 3)),
    ],
)
def test_the_alphabet_is_found_from_the_letters(X, space):
    assert infer_space(X) == space


@pytest.mark.parametrize("letter", ["N", "X"])
def test_one_ambiguous_letter_does_not_make_dna_a_protein(letter):
    X = ["ACGT"] * 5 + ["ACG" + letter]
    with pytest.raises(InvalidDesignError, match=f"row 5: '{letter}' at position 4 is not in the alphabet ACGT"):
        infer_space(X).encode(X)


def test_discretising_gives_one_hot_rows_and_passes_the_gradient_straight_through():
    space = SequenceSpace("DNA", 3)
    x = torch.rand(2, 3, 4).softmax(dim=-1).requires_grad_(True)
    weights = torch.randn(2, 3, 4)
    hard = space.discretise(x)
    assert torch.allclose(hard, torch.nn.functional.one_hot(x.argmax(-1), 4).float(), atol=1e-6)
    (hard * weights).sum().backward()
    assert torch.equal(x.grad, weights)


@given(st.integers(1, 5), st.integers(2, 20), st.integers(0, 100))
def test_vectors_survive_a_round_trip_and_are_standardised(width, n, seed):
    X = np.random.default_rng(seed).normal(3, 100, size=(n, width))
    space = VectorSpace.from_data(X)
    x = space.encode(X)
    assert np.allclose(x.numpy().mean(axis=0), 0, atol=1e-4) and np.allclose(x.numpy().std(axis=0), 1, atol=1e-4)
    assert np.allclose(space.decode(x), X, atol=1e-3)
    assert space_from_config(space.to_config()) == space


def test_a_constant_column_keeps_scale_one():
    assert VectorSpace.from_data(np.full((5, 2), 0.1)).scale.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.array([[1.0, np.nan]]), "row 0: column 1 is nan; drop or impute"),
        (np.ones((2, 3)), r"X has shape \(2, 3\), but the space holds vectors of 2 features"),
        (["AC"], "designs are strings, but the space holds vectors"),
    ],
)
def test_vectors_out_of_the_space_are_refused(X, message):
    with pytest.raises(InvalidDesignError, match=message):
        VectorSpace(2).encode(X)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_images_survive_a_round_trip(channels, kind):
    space = ImageSpace(4, 5, channels)
    shape = (3, 4, 5) if channels == 1 else (3, 4, 5, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    X = images if kind == "uint8" else images / 255
    x = space.encode(X)
    assert x.shape == (3, channels, 4, 5) and x.min() >= -1 and x.max() <= 1
    assert np.allclose(space.decode(x, space.kind_of(X)), X, atol=1e-6)
    assert space_from_config(space.to_config()) == space


def test_images_out_of_range_or_shape_are_refused():
    with pytest.raises(InvalidDesignError, match=r"row 1: pixels run from 0 to 200"):
        ImageSpace(1, 2, 1).encode(np.array([[[0.5, 1.0]], [[0.0, 200.0]]]))
    with pytest.raises(InvalidDesignError, match="channels last"):
        ImageSpace(4, 5, 3).encode(np.zeros((2, 3, 4, 5)))
