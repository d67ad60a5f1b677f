"""The cost of a run: passes through the chain's network, and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from braidkit.diffusion import DiffusionModel

MIB = 2**20
_INTERVAL = 0.02  # seconds between two looks at the memory


class PassCounter:
    """A forward hook that adds up rows; copies of a module share it."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.rows += len(inputs[0])

    def __deepcopy__(self, memo: dict[int, Any]) -> PassCounter:
        return self


@contextlib.contextmanager
def count_network_passes(chain: DiffusionModel | None = None) -> Iterator[PassCounter]:
    """Count rows that pass through the networks of chains: of `chain`, of its copies, and of chains trained meanwhile.

    A network is counted once a row and call, backward passes are not; of a network that wraps another (guidance calls
    it twice) the inner one counts.
    """
    counter = PassCounter()
    handles = []

    def watch(network: Any) -> None:
        while isinstance(getattr(network, "network", None), nn.Module):
            network = network.network
        if isinstance(network, nn.Module) and counter not in network._forward_hooks.values():
            handles.append(network.register_forward_hook(counter))

    def watch_new(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
        if name == "network" and isinstance(module, DiffusionModel):
            watch(submodule)

    if chain is not None:
        watch(chain.network)
    handles.append(register_module_module_registration_hook(watch_new))
    try:
        yield counter
    finally:
        for handle in handles:
            handle.remove()


class MemoryRise:
    """Measure the rise of memory while a ``with`` block runs, in MiB: `host`, and `gpu` if there is one.

    `host` is the rise of this process's resident memory, measured every 20 ms by a thread. Memory that earlier work
    left free for reuse does not count. Where /proc does not tell, it is the rise of the process's all-time peak, which
    shows less. `gpu` is the rise of the memory that torch has allocated there.
    """

    host: float
    gpu: float | None = None

    def __enter__(self) -> MemoryRise:
        self._peak = self._start = resident_memory()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._gpu_start = torch.cuda.memory_allocated()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()
        self.host = (self._peak - self._start) / MIB
        if torch.cuda.is_available():
            self.gpu = (torch.cuda.max_memory_allocated() - self._gpu_start) / MIB

    def _watch(self) -> None:
        while not self._done.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, resident_memory())


def resident_memory() -> int:
    """Resident memory of this process in bytes, or its all-time peak where there is no /proc."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
