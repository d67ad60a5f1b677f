"""Decide whether a Triton kernel or its version in plain torch runs."""

from __future__ import annotations

import functools
import os
import shutil
from typing import Any

import torch
from torch import Tensor

from braidkit.exceptions import MissingExtraError

# Send CPU tensors to Triton too; they need its interpreter, which is there if TRITON_INTERPRET=1 was set before triton
# was first imported.
ON_CPU = False

NARROW = (torch.float32, torch.bfloat16, torch.float16)


@functools.cache
def load_triton() -> Any:
    """The module triton, or an error that says how to get it."""
    try:
        import triton
    except ImportError as error:
        raise MissingExtraError('kernels need triton; install it with: pip install "braidkit[gpu]"') from error
    return triton


@functools.cache
def has_triton() -> bool:
    """Whether triton is installed, with the C compiler that it needs when it first runs a kernel."""
    try:
        load_triton()
    except MissingExtraError:
        return False
    return any([os.environ.get("CC"), shutil.which("gcc"), shutil.which("clang")])


def runs_triton(*tensors: Tensor) -> bool:
    """Whether these tensors go to Triton: all of 32 bits or fewer, on a device with kernels.

    Float64 runs in plain torch, because the kernels add up in float32.
    """
    if any([x.dtype not in NARROW for x in tensors]):
        return False
    return all([has_kernels(x.device) for x in tensors])


def has_kernels(device: torch.device) -> bool:
    """Whether kernels run on a device: it is of CUDA, and triton can run."""
    return ON_CPU or (device.type == "cuda" and has_triton())


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a kernel on the device of its first argument."""
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants)
