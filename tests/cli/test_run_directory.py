import json

import pytest

from braidkit.cli.run_directory import OUTPUTS, RunDirectory
from braidkit.exceptions import CheckpointError, InvalidParameterError

SETTINGS = {"command": "design", "data": "3 sequences", "n": 10, "alpha": 0.001, "pretrained": None}


@pytest.fixture
def directory(tmp_path):
    return RunDirectory(tmp_path / "run")


def leave_outputs(directory):
    """What a run leaves behind, besides its record."""
    for name in OUTPUTS[1:]:
        if "." in name:
            (directory / name).write_text("old")
        else:
            (directory / name).mkdir()
            (directory / name / "config.json").write_text("{}")


def test_a_new_directory_is_claimed_and_recorded(directory):
    assert directory.open(SETTINGS) is False
    record = json.loads((directory / "run.json").read_text())
    assert record["settings"] == SETTINGS
    assert record["finished"] is False
    assert {"python", "torch", "braidkit"} <= record["versions"].keys()


def test_an_unfinished_run_of_the_same_settings_is_resumed(directory):
    directory.open(SETTINGS)
    leave_outputs(directory)
    again = RunDirectory(directory.path)
    assert again.open(dict(SETTINGS)) is True
    assert (directory / "checkpoint" / "config.json").exists()


def test_an_unfinished_run_of_other_settings_is_refused_by_name(directory):
    directory.open(SETTINGS)
    with pytest.raises(CheckpointError, match=r"\(n was 10, now 20; alpha was 0.001, now 0.1\).*pass --overwrite"):
        directory.open(SETTINGS | {"n": 20, "alpha": 0.1})
    # A setting that one of the two lacks differs as well.
    with pytest.raises(CheckpointError, match=r"\(c was None, now 0.1\)"):
        directory.open(SETTINGS | {"c": 0.1})


def test_an_unfinished_run_of_another_version_is_refused_and_kept(directory):
    directory.open(SETTINGS)
    leave_outputs(directory)
    directory.record["form"] = "0"
    (directory / "run.json").write_text(json.dumps(directory.record))
    with pytest.raises(CheckpointError, match="another version of braidkit; choose another directory, or pass --over"):
        directory.open(SETTINGS)
    assert (directory / "checkpoint" / "config.json").exists()
    assert directory.open(SETTINGS, overwrite=True) is False
    assert RunDirectory(directory.path).open(SETTINGS) is True


def test_a_finished_run_is_refused_unless_overwritten(directory):
    directory.open(SETTINGS)
    leave_outputs(directory)
    directory.finish(best_iter=7)
    assert not (directory / "checkpoint").exists()
    assert directory.read()["best_iter"] == 7
    (directory / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds a finished run; .*pass --overwrite to replace it"):
        directory.open(SETTINGS)
    assert directory.open(SETTINGS | {"n": 20}, overwrite=True) is False
    assert sorted(path.name for path in directory.path.iterdir()) == ["notes.txt", "run.json"]
    assert directory.read()["settings"]["n"] == 20
    assert "best_iter" not in directory.read()


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_no_run_wrote_are_never_touched(directory, overwrite):
    directory.path.mkdir()
    (directory / "designs.csv").write_text("mine")
    with pytest.raises(CheckpointError, match="has files of its own and no run in it; choose a new directory"):
        directory.open(SETTINGS, overwrite=overwrite)
    assert (directory / "designs.csv").read_text() == "mine"


def test_what_cannot_be_a_run_directory_is_refused(directory):
    directory.path.write_text("a file")
    with pytest.raises(CheckpointError, match="is a file; choose a directory"):
        directory.open(SETTINGS)
    directory.path.unlink()
    directory.path.mkdir()
    (directory / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match="run.json cannot be read"):
        directory.open(SETTINGS)


def test_a_refusal_before_any_work_gives_the_directory_up(directory):
    directory.open(SETTINGS)
    with pytest.raises(InvalidParameterError), directory.released_if_refused():
        raise InvalidParameterError("alpha must be > 0")
    assert not directory.path.exists()


def test_a_refusal_after_work_keeps_it(directory):
    directory.open(SETTINGS)
    with pytest.raises(InvalidParameterError), directory.released_if_refused():
        (directory / "checkpoint").mkdir()
        raise InvalidParameterError("too late")
    assert RunDirectory(directory.path).open(SETTINGS) is True


def test_seconds_add_up_over_attempts(directory, monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.5])
    monkeypatch.setattr("braidkit.cli.run_directory.monotonic", lambda: next(clock))
    directory.open(SETTINGS)
    with directory.timed("fit"):
        pass
    again = RunDirectory(directory.path)
    again.open(SETTINGS)
    with again.timed("fit"):
        pass
    assert again.read()["seconds"] == {"fit": 5.5}
