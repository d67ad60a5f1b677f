"""Which of the two runs, what is said where triton is missing, and that the compiler takes the kernels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from braidkit.exceptions import MissingExtraError
from braidkit.kernels import _backend, gaussian_step
from braidkit.kernels.gaussian import gaussian_step_torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def without_triton(monkeypatch):
    """An installation that lacks triton."""
    monkeypatch.setitem(sys.modules, "triton", None)
    cached = _backend.load_triton, _backend.has_triton
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def test_a_cpu_runs_plain_torch(monkeypatch):
    monkeypatch.setattr("braidkit.kernels.gaussian._GaussianStep", None)
    one = torch.ones(2, 3)
    for found, expected in zip(gaussian_step(one, one, one, one), gaussian_step_torch(one, one, one, one), strict=True):
        assert torch.equal(found, expected)


def test_triton_takes_narrow_types_only(triton_device):
    narrow = torch.ones(2, device=triton_device)
    assert _backend.runs_triton(narrow, narrow.half(), narrow.bfloat16())
    assert not _backend.runs_triton(narrow, narrow.double())


def test_without_triton_the_error_names_the_extra(without_triton):
    assert not _backend.has_triton()
    with pytest.raises(MissingExtraError, match=r'pip install "braidkit\[gpu\]"'):
        _backend.load_triton()


def test_without_a_c_compiler_triton_cannot_run(without_triton, monkeypatch):
    monkeypatch.setattr(_backend, "load_triton", lambda: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("CC", "cc")
    assert _backend.has_triton()
    _backend.has_triton.cache_clear()
    monkeypatch.delenv("CC")
    assert not _backend.has_triton()


def test_every_kernel_compiles_for_cuda(tmp_path):
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("compile_all.py")
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sizes = [int(line) for line in done.stdout.split()]
    assert len(sizes) == 14
    assert min(sizes) > 0
