"""Torch as our code expects it, whatever the caller has set, and as it was afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_lock = threading.RLock()
_inside = 0
_dtype_before = torch.float32


@contextlib.contextmanager
def ordinary_torch() -> Iterator[None]:
    """Gradients on, float32 and the CPU by default, as a context or as the decorator of a method.

    The default type belongs to the process: the first to enter sets it, and the last to leave puts it back.
    """
    global _inside, _dtype_before
    with _lock:
        if _inside == 0:
            _dtype_before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _inside += 1
    try:
        with torch.inference_mode(False), torch.enable_grad(), _default_device():
            yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                torch.set_default_dtype(_dtype_before)


def _default_device() -> contextlib.AbstractContextManager[object]:
    """New tensors on the CPU; the context costs time at every call of torch, so there is one only where needed."""
    return contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generator, which weights and dropout draw from, and put it back.

    One thread at a time: others wait, so that no fit draws another's numbers.

    Parameters
    ----------
    seed : int
    device : torch.device, optional
        A GPU whose generator is seeded as well.
    """
    gpus = [] if device is None or device.type != "cuda" else [device]
    with _lock, torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
