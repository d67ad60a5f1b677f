"""Saving: exact round trips, nothing lost when interrupted, damage named."""

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from braidkit.exceptions import CheckpointError
from braidkit.persistence import (
    CONFIG,
    TENSORS,
    digest,
    is_saved,
    load,
    load_weights,
    read_json,
    replace_file,
    save,
    write_json,
)
from tests.kills import killed_at


def test_saved_values_and_tensors_load_back(tmp_path):
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
    with pytest.raises(CheckpointError, match=r"holds no saved model of braidkit's alone \(thesis.tex is another's"):
        save(tmp_path, config={}, tensors={})
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "text"),
    [("notes.txt", "mine"), (CONFIG, '{"hidden_size": 8}'), (CONFIG, "["), (TENSORS, "mine"), ("tokenizer/a", "mine")],
)
def test_a_directory_with_anything_that_we_did_not_write_is_left_alone(tmp_path, name, text):
    folder = tmp_path / "model"
    save(folder, config={}, tensors={"a": torch.ones(3)})
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="nothing was changed"):
        save(folder, config={}, tensors={})
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_weights_of_another_program_are_not_replaced(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / TENSORS)
    with pytest.raises(CheckpointError, match="nothing was changed"):
        save(tmp_path, config={}, tensors={})
    assert load_file(tmp_path / TENSORS)["a"].sum() == 3


def test_a_save_goes_into_an_empty_directory_the_current_one_or_through_a_link(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save(tmp_path / "link", config={"value": 1}, tensors={})
    assert (tmp_path / "link").is_symlink() and load(tmp_path / "real")[0] == {"value": 1}
    monkeypatch.chdir(tmp_path / "real")
    save(".", config={"value": 2}, tensors={})
    assert load(".")[0] == {"value": 2}
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path, message in ((tmp_path / "dangling", "is a link to nothing"), (tmp_path / "real" / CONFIG, "is a file")):
        with pytest.raises(CheckpointError, match=message):
            save(path, config={}, tensors={})


@pytest.mark.parametrize("n_before", [0, 1])
def test_a_save_killed_at_any_change_of_the_file_system_leaves_the_old_or_the_new(tmp_path, monkeypatch, n_before):
    found = set()
    for n in range(1, 20):
        folder = tmp_path / str(n)
        for value in range(n_before):
            save(folder, config={"value": value}, tensors={"a": torch.full((2,), float(value))})
        tensors = {"a": torch.full((2,), float(n_before))}
        killed_at(n, monkeypatch, functools.partial(save, folder, config={"value": n_before}, tensors=tensors))
        if is_saved(folder):
            config, tensors = load(folder)
            assert tensors["a"].tolist() == [config["value"]] * 2
            found.add(config["value"])
        else:
            assert n_before == 0
        save(folder, config={"value": 9}, tensors={})
        assert load(folder)[0] == {"value": 9}
        assert sorted(path.name for path in folder.iterdir()) == [CONFIG, TENSORS]
    assert found == set(range(n_before + 1))


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
def test_unloadable_save_names_the_fault(tmp_path, prepare, message):
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
def test_digests_are_equal_for_equal_data_only(a, b):
    digests = [digest([row for row, _ in data], np.array([value for _, value in data])) for data in (a, b)]
    assert (digests[0] == digests[1]) == (a == b)


def test_digests_see_values_kinds_shapes_and_other_state():
    layer = torch.nn.Linear(2, 1)
    before = digest(layer, np.array(["AC", "GGT"], dtype=object))
    frozen = copy.deepcopy(layer).requires_grad_(False).eval()
    assert before == digest(layer, ["AC", "GGT"]) == digest(frozen, ["AC", "GGT"])
    assert digest(np.zeros((2, 3))) != digest(np.zeros((3, 2)))
    assert digest(torch.arange(3.0)) == digest(np.arange(3.0, dtype=np.float32)) != digest(np.arange(3.0))
    assert digest(torch.zeros(2, dtype=torch.int32)) != digest(torch.zeros(2))
    assert digest(torch.ones(2, dtype=torch.bfloat16)) != digest(torch.ones(2, dtype=torch.float16))
    assert digest(torch.tensor(1.0), torch.tensor(True), torch.empty(0)) != digest(torch.tensor(1.0))
    assert digest(torch.eye(3)[:, 1:]) == digest(torch.eye(3)[:, 1:].contiguous())
    assert digest(torch.nn.Dropout(0.1)) != digest(torch.nn.Dropout(0.2))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
    with torch.no_grad():
        layer.bias += 1
    assert digest(layer, ["AC", "GGT"]) != before


def test_an_object_may_say_what_its_digest_is_of():
    class Adapted:
        def __init__(self, adapter, name):
            self.adapter, self.name = adapter, name

        def digest_parts(self):
            return self.adapter, "of a backbone"

    a, b = torch.zeros(2), torch.ones(2)
    assert digest(Adapted(a, "one")) == digest(Adapted(a, "other")) != digest(Adapted(b, "one"))


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_flipped_bits_of_a_save_are_refused_or_change_nothing(tmp_path, name):
    folder = tmp_path / "model"
    config, tensors = {"class": "SimplexDiffusion", "n_steps": 8}, {"a": torch.arange(6.0), "b": torch.ones(2, 2)}
    save(folder, config=config, tensors=tensors)
    whole = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(8 * len(whole), size=60):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << (position % 8)
        (folder / name).write_bytes(damaged)
        try:
            found = load(folder)
        except CheckpointError as error:
            assert str(folder) in str(error)
        else:
            assert found[0] == config and all(torch.equal(found[1][key], tensors[key]) for key in tensors)
    for cut in (0, len(whole) // 2):
        (folder / name).write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="model"):
            load(folder)


@given(st.dictionaries(st.text(max_size=3), st.floats() | st.text(max_size=3) | st.none()), st.integers(0, 10**4))
def test_json_files_are_read_back_whole_or_refused(tmp_path_factory, content, position):
    path = tmp_path_factory.mktemp("json") / "record.json"
    write_json(path, content)
    assert digest(read_json(path)) == digest({key: value for key, value in content.items() if key != "digest"})
    damaged = bytearray(path.read_bytes())
    damaged[position // 8 % len(damaged)] ^= 1 << (position % 8)
    path.write_bytes(damaged)
    try:
        assert digest(read_json(path)) == digest(content)
    except CheckpointError as error:
        assert str(path) in str(error)


def test_saved_weights_have_the_permissions_of_the_umask(tmp_path):
    save(tmp_path / "saved", config={"a": 1}, tensors={"w": torch.zeros(2)})
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode & 0o777 for path in [tmp_path / "plain", *(tmp_path / "saved").iterdir()]}
    assert len(modes) == 1
