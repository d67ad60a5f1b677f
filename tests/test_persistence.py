"""Saving: exact round trips, nothing lost when interrupted, damage named."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braidkit.exceptions import CheckpointError
from braidkit.persistence import CONFIG, TENSORS, fingerprint, load, load_weights, replace_file, save


def test_what_is_saved_comes_back(tmp_path):
    shared = torch.arange(6.0)
    tensors = {
        "a": shared.reshape(2, 3).t(),
        "b": shared,
        "c": torch.tensor(True),
        "d": torch.ones((), dtype=torch.float64),
    }
    save(tmp_path / "run", config={"x": [1, None, "two"]}, tensors=tensors)
    config, loaded = load(tmp_path / "run")
    assert config == {"x": [1, None, "two"]}
    assert all(
        torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )


def test_a_second_save_replaces_the_first_and_leaves_nothing_else(tmp_path):
    for value in (1, 2):
        save(tmp_path / "run", config={"value": value}, tensors={})
    assert load(tmp_path / "run")[0] == {"value": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failed_save_leaves_the_earlier_one(tmp_path):
    save(tmp_path / "run", config={"value": 1}, tensors={})
    with pytest.raises(TypeError):
        save(tmp_path / "run", config={"value": object()}, tensors={})
    assert load(tmp_path / "run")[0] == {"value": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_directory_of_other_files_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(CheckpointError, match="exists and holds no saved model"):
        save(tmp_path, config={}, tensors={})
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), replace_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    with replace_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def damaged(folder, name):
    save(folder, config={}, tensors={"a": torch.ones(3)})
    (folder / name).write_bytes(b"\x00{not this")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "is not a directory"),
        (lambda folder: folder.mkdir(), f"has no {CONFIG} and no {TENSORS}"),
        (lambda folder: damaged(folder, CONFIG), "cannot be read"),
        (lambda folder: damaged(folder, TENSORS), "cannot be read"),
    ],
)
def test_what_cannot_be_loaded_is_named(tmp_path, prepare, message):
    prepare(tmp_path / "run")
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "run")


def test_weights_of_another_shape_are_refused():
    with pytest.raises(CheckpointError, match="run/ does not hold the weights of this model"):
        load_weights(torch.nn.Linear(2, 1), torch.nn.Linear(3, 1).state_dict(), "run/")


DATA = st.lists(
    st.tuples(st.text("ACGT", min_size=2, max_size=2), st.sampled_from([0.0, 1.0, 2.5])), min_size=1, max_size=4
)


@given(DATA, DATA)
def test_fingerprints_are_equal_for_equal_data_only(a, b):
    prints = [fingerprint([row for row, _ in data], np.array([value for _, value in data])) for data in (a, b)]
    assert (prints[0] == prints[1]) == (a == b)


def test_fingerprints_see_weights_and_values_wherever_they_stand():
    layer = torch.nn.Linear(2, 1)
    before = fingerprint(layer, np.array(["AC", "GGT"], dtype=object))
    assert before == fingerprint(layer, ["AC", "GGT"])
    assert fingerprint(np.zeros((2, 3))) != fingerprint(np.zeros((3, 2)))
    assert fingerprint(torch.arange(3.0)) == fingerprint(np.arange(3.0, dtype=np.float32))
    with torch.no_grad():
        layer.bias += 1
    assert fingerprint(layer, ["AC", "GGT"]) != before
