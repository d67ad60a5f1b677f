"""A fit that several processes share is that of one process, and is written and told once."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from braidkit.finetuning.processes import Processes
from tests.finetuning import two_processes

ROOT = Path(__file__).parents[2]


def results(folder):
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of one process and of two: results by rank, and what was said."""
    alone, two = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("two")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        two_processes.main(alone)
    # Launched as for two GPUs; the script asks for the CPU, where the two speak by gloo.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    ended = subprocess.run(
        [*launch, two_processes.__file__, str(two)],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return (results(alone), said.getvalue()), (results(two), ended.stdout + ended.stderr)


def test_two_processes_fit_what_one_does(runs):
    ((alone,), _), (two, _) = runs
    assert [alone["count"], *(result["count"] for result in two)] == [1, 2, 2]
    for name in ("resumed", "trained", "adjoint matching"):
        for result in two:
            np.testing.assert_allclose(result[name]["weights"], alone[name]["weights"], rtol=0, atol=2e-5)
            assert result[name]["best_iter"] == alone[name]["best_iter"]
            for column, values in alone[name]["history"].items():
                np.testing.assert_allclose(result[name]["history"][column], values, rtol=0, atol=1e-4)
        assert two[0][name] == two[1][name]


def test_the_first_process_alone_writes_and_speaks(runs):
    ((alone,), said_alone), ((first, second), said) = runs
    assert first["saves"] == alone["saves"] > 0 and second["saves"] == 0
    assert first["updates"] == second["updates"] == alone["updates"] == [2, 4]
    for word in ("reward: held-out", "update 3", "update 4"):
        assert said.count(word) == said_alone.count(word) > 0


def test_solvers_that_cannot_divide_a_batch_are_refused_in_all_processes(runs):
    ((alone,), _), (two, _) = runs
    for result in two:
        assert "cannot divide it among 2 processes" in result["policy gradient"]
        assert "batch_size must be a multiple of the number of processes; got 7 for 2" in result["odd batch"]
        assert "a run of several processes needs a whole number as random_state" in result["no seed"]
    assert alone["policy gradient"] is alone["odd batch"] is alone["no seed"] is None


def test_processes_with_other_data_or_models_are_refused(runs):
    (_, _), ((first, second), _) = runs
    assert first["other data"] is None
    assert "y of process 1 differ from the first process's" in second["other data"]


def test_an_error_of_the_first_process_is_raised_in_all(runs):
    ((alone,), _), (two, _) = runs
    for result in (alone, *two):
        assert result["error"] == "ZeroDivisionError: integer division or modulo by zero"


def test_a_process_alone_works_on_all_rows():
    alone, batch = Processes(), torch.arange(5)
    assert (alone.rank, alone.count) == (0, 1)
    assert torch.equal(alone.own_rows(batch), batch)
    assert alone.once(lambda: 3) == 3
