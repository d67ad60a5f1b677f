import contextlib
import json

import pytest
import torch

from braidkit import persistence
from braidkit.cli.run_directory import RunDirectory
from braidkit.exceptions import CheckpointError, InvalidParameterError
from braidkit.persistence import locked, read_json, write_json
from tests.kills import killed_at

SETTINGS = {"command": "design", "data": "3 sequences", "n": 10, "alpha": 0.001, "pretrained": None}
OUTPUTS = ("designs.csv", "model")


class PowerCut(Exception):
    pass


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def finished(path):
    """A finished run in whose directory somebody else keeps a file, as its files are."""
    run(path)
    (path / "notes.txt").write_text("mine")
    return contents(path)


def write_outputs(directory, word="old"):
    with directory.writing("designs.csv") as target:
        target.write_text(word)
    with directory.writing("model") as target:
        persistence.save(target, config={"word": word}, tensors={"w": torch.ones(2)})


def keep_work(directory, *, config=None):
    """What a fit leaves in its checkpoint."""
    (directory / "checkpoint").mkdir(exist_ok=True)
    (directory / "checkpoint" / "settings.json").write_text("{}")
    persistence.save(directory / "checkpoint" / "fine-tuning", config=config or {}, tensors={})


def run(path, settings=SETTINGS, *, overwrite=False, stop=None, word="old", work=True):
    """A run that ends, or is stopped by an error before it writes its outputs."""
    directory = RunDirectory(path, OUTPUTS)
    with directory.claimed(settings, overwrite=overwrite) as resumed:
        if work:
            keep_work(directory)
        if stop is not None:
            raise stop
        write_outputs(directory, word)
        directory.finish(best_iter=7)
    return resumed


def contents(path):
    """All files below a folder and what they hold."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def unfinished(path, **more):
    with pytest.raises(PowerCut):
        run(path, stop=PowerCut(), **more)


def test_a_new_directory_is_claimed_and_recorded(path):
    unfinished(path)
    record = read_json(path / "run.json")
    assert record["settings"] == SETTINGS
    assert record["finished"] is False


def test_an_unfinished_run_of_the_same_settings_is_resumed(path):
    unfinished(path)
    assert run(path) is True
    assert read_json(path / "run.json")["finished"] is True
    assert not (path / "checkpoint").exists()


def test_an_unfinished_run_of_other_settings_is_refused_by_name(path):
    unfinished(path)
    with pytest.raises(CheckpointError, match=r"\(n was 10, now 20; alpha was 0.001, now 0.1\).*pass --overwrite"):
        run(path, SETTINGS | {"n": 20, "alpha": 0.1})
    # A setting that one of the two lacks differs as well.
    with pytest.raises(CheckpointError, match=r"\(c was None, now 0.1\)"):
        run(path, SETTINGS | {"c": 0.1})


def test_an_unfinished_run_of_another_version_is_refused_and_kept(path):
    unfinished(path)
    write_json(path / "run.json", read_json(path / "run.json") | {"form": "0"})
    before = contents(path)
    with pytest.raises(CheckpointError, match="another version of braidkit; choose another directory, or pass --over"):
        run(path)
    assert contents(path) == before
    assert run(path, overwrite=True) is False


def test_a_finished_run_is_refused_unless_overwritten(path, finished):
    with pytest.raises(CheckpointError, match="holds a finished run; .*pass --overwrite to replace it"):
        run(path)
    assert contents(path) == finished
    assert run(path, SETTINGS | {"n": 20}, overwrite=True, word="new") is False
    assert sorted(file.name for file in path.iterdir()) == ["designs.csv", "model", "notes.txt", "run.json"]
    assert (path / "designs.csv").read_text() == "new"
    assert read_json(path / "run.json")["settings"]["n"] == 20


def test_a_run_that_is_replaced_stays_until_the_new_one_has_finished(path, finished):
    unfinished(path, settings=SETTINGS | {"n": 20}, overwrite=True)
    (aside,) = path.glob(".braidkit-replaced-*")
    assert {name: held for name, held in finished.items() if name != "notes.txt"} == contents(aside)
    # Its command resumes it, and so does --overwrite.
    with pytest.raises(PowerCut):
        run(path, SETTINGS | {"n": 20}, overwrite=True, stop=PowerCut())
    assert run(path, SETTINGS | {"n": 20}) is True
    assert not aside.exists()


@pytest.mark.parametrize("work", [False, True])
def test_a_replaced_run_comes_back_where_the_new_one_is_refused(path, finished, work):
    with pytest.raises(InvalidParameterError):
        run(path, SETTINGS | {"n": 20}, overwrite=True, work=work, stop=InvalidParameterError("alpha"))
    assert contents(path) == finished


def test_an_unfinished_run_comes_back_as_well_with_the_run_that_it_was_to_replace(path, finished):
    unfinished(path, settings=SETTINGS | {"n": 20}, overwrite=True)
    before = contents(path)
    with pytest.raises(InvalidParameterError):
        run(path, SETTINGS | {"n": 30}, overwrite=True, stop=InvalidParameterError("alpha"))
    assert contents(path) == before
    assert run(path, SETTINGS | {"n": 30}, overwrite=True) is False
    assert sorted(file.name for file in path.iterdir()) == ["designs.csv", "model", "notes.txt", "run.json"]


@pytest.mark.slow
@pytest.mark.parametrize("refuse", [False, True])
def test_a_kill_at_any_change_of_the_file_system_loses_nothing(tmp_path, monkeypatch, refuse):
    for n in range(1, 200):
        path = tmp_path / f"run-{n}"
        run(path)
        (path / "notes.txt").write_text("mine")
        before = contents(path)

        def replace(path=path):
            with contextlib.suppress(InvalidParameterError):
                run(path, SETTINGS | {"n": 20}, overwrite=True, stop=InvalidParameterError("") if refuse else None)

        killed = killed_at(n, monkeypatch, replace)
        # Wherever it was killed, each file of the old run is still there, or the new run has finished.
        held = set(contents(path).values())
        done = (path / "run.json").exists() and read_json(path / "run.json") or {}
        assert done.get("settings", {}).get("n") == 20 and done["finished"] or held >= set(before.values()), n
        # The old command is refused, and if the new run had not begun, leaves what was there; the new one ends.
        with contextlib.suppress(CheckpointError):
            run(path, SETTINGS | {"alpha": 9})
        assert (path / "notes.txt").read_text() == "mine"
        if RunDirectory(path).read()["settings"] == SETTINGS:
            assert contents(path) == before, n
        if not done.get("finished") or done["settings"] == SETTINGS:
            run(path, SETTINGS | {"n": 20}, overwrite=True)
        assert sorted(file.name for file in path.iterdir()) == ["designs.csv", "model", "notes.txt", "run.json"], n
        if not killed:
            return
    raise AssertionError("the run has more changes than were tried")


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_no_run_wrote_are_never_touched(path, overwrite):
    path.mkdir()
    (path / "designs.csv").write_text("mine")
    with pytest.raises(CheckpointError, match="has files of its own and no run in it; choose a new directory"):
        run(path, overwrite=overwrite)
    assert contents(path) == {"designs.csv": b"mine"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "cannot be read"),
        ('{"finished": true, "settings": {}}', "is not a file that braidkit wrote"),
        ('["another", "program"]', "is not a file that braidkit wrote"),
    ],
)
def test_a_record_of_another_program_claims_no_files(path, record, message, overwrite):
    (path / "model").mkdir(parents=True)
    (path / "model" / "weights.bin").write_text("mine")
    (path / "report.html").write_text("mine")
    (path / "run.json").write_text(record)
    before = contents(path)
    with pytest.raises(CheckpointError, match=f"run.json {message}"):
        run(path, overwrite=overwrite)
    assert contents(path) == before


def test_a_changed_record_is_refused(path, finished):
    record = json.loads((path / "run.json").read_text())
    record["files"]["notes.txt"] = None
    (path / "run.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="is damaged"):
        run(path, overwrite=True)
    assert (path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("designs.csv", "designs.csv was changed after the run had written it"),
        ("model/notes.txt", "model was changed after the run had written it"),
    ],
)
def test_outputs_that_were_changed_are_not_replaced(path, finished, name, message):
    (path / name).write_text("edited")
    before = contents(path)
    with pytest.raises(CheckpointError, match=message):
        run(path, overwrite=True)
    assert contents(path) == before


def test_an_output_that_a_link_took_the_place_of_is_not_followed(path, finished, tmp_path):
    (tmp_path / "precious.csv").write_text("precious")
    (path / "designs.csv").unlink()
    (path / "designs.csv").symlink_to(tmp_path / "precious.csv")
    with pytest.raises(CheckpointError, match="was changed after"):
        run(path, overwrite=True)
    assert (tmp_path / "precious.csv").read_text() == "precious"


def test_a_file_in_the_way_of_an_output_is_kept(path):
    unfinished(path)
    (path / "designs.csv").write_text("mine")
    with pytest.raises(CheckpointError, match=r"designs.csv is in the way, and no run of braidkit wrote it"):
        run(path)
    assert (path / "designs.csv").read_text() == "mine"


def cut_while_it_writes_pictures(path):
    """A run that was killed when it had written one picture of two, and half of the other."""
    directory = RunDirectory(path, ("designs",))
    with pytest.raises(PowerCut), directory.claimed(SETTINGS):
        keep_work(directory)
        with directory.writing("designs", members=["a.png", "b.png"]) as folder:
            folder.mkdir()
            (folder / "a.png").write_text("picture")
            (folder / ".braidkit-0123456789abcdef-b.png").write_text("half")
            raise PowerCut


def test_a_folder_that_was_not_finished_is_written_again(path):
    cut_while_it_writes_pictures(path)
    directory = RunDirectory(path, ("designs",))
    with directory.claimed(SETTINGS) as resumed:
        assert resumed
        with directory.writing("designs", members=["a.png", "b.png"]) as folder:
            assert sorted(file.name for file in folder.iterdir()) == ["a.png"]
            for name in ("a.png", "b.png"):
                (folder / name).write_text("again")
        directory.finish()
    assert contents(path / "designs") == {"a.png": b"again", "b.png": b"again"}


def test_a_folder_that_was_not_finished_is_removed_with_its_run(path):
    cut_while_it_writes_pictures(path)
    assert run(path, SETTINGS | {"n": 20}, overwrite=True) is False
    assert sorted(file.name for file in path.iterdir()) == ["designs.csv", "model", "run.json"]


def test_another_file_in_a_folder_that_was_not_finished_is_kept(path):
    cut_while_it_writes_pictures(path)
    (path / "designs" / "mine.png").write_text("mine")
    with pytest.raises(CheckpointError, match="designs was changed after"):
        run(path, SETTINGS | {"n": 20}, overwrite=True)
    assert (path / "designs" / "mine.png").read_text() == "mine"


def test_run_refuses_to_replace_its_own_inputs(path, finished, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(path)
    directory = RunDirectory(path, OUTPUTS)
    for used in (path / "model", path / "designs.csv", link / "model", path / "model" / "config.json"):
        with pytest.raises(CheckpointError, match="is part of the run in"):
            directory.check_input(used)
    directory.check_input(path / "notes.txt")
    directory.check_input(tmp_path / "elsewhere.csv")


def test_unusable_run_directory_is_refused(path, tmp_path):
    path.write_text("a file")
    with pytest.raises(CheckpointError, match="is a file; choose a directory"):
        run(path)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is a link to nothing; choose a directory"):
        run(path)


def test_a_refusal_before_any_work_gives_the_directory_up(path):
    with pytest.raises(InvalidParameterError):
        run(path / "in" / "folders", work=False, stop=InvalidParameterError("alpha must be > 0"))
    assert not path.exists()


def test_a_refusal_after_work_keeps_it(path):
    with pytest.raises(InvalidParameterError):
        run(path, stop=InvalidParameterError("too late"))
    assert run(path) is True


def test_files_of_a_run_killed_before_its_record_are_cleaned(path):
    path.mkdir()
    (path / ".braidkit-0123456789abcdef-run.json").write_text("{")
    assert run(path) is False
    assert sorted(file.name for file in path.iterdir()) == ["designs.csv", "model", "run.json"]


def test_a_directory_that_another_process_works_in_is_refused(path):
    path.mkdir()
    with locked(path), pytest.raises(CheckpointError, match="another process uses"):
        run(path)
    assert run(path) is False


def test_seconds_add_up_over_attempts(path, monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.5])
    monkeypatch.setattr("braidkit.cli.run_directory.monotonic", lambda: next(clock))
    for _ in range(2):
        directory = RunDirectory(path)
        with directory.claimed(SETTINGS), directory.timed("fit"):
            pass
    assert directory.read()["seconds"] == {"fit": 5.5}
