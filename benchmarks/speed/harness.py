"""What the scripts of this folder share: calls timed in turn, what they ran on, a table and a file of the results."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, until a GPU that it uses is done."""
    began = time.perf_counter()
    call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def processor_seconds(call: Callable[[], object]) -> float:
    """Seconds that the processor works on one call, whatever else it does; for one thread."""
    began = time.process_time()
    call()
    return time.process_time() - began


def in_turn(
    calls: dict[str, Callable[[], object]],
    repeats: int,
    warmup: int = 1,
    timed: Callable[[Callable[[], object]], float] = seconds,
) -> dict[str, list[float]]:
    """Seconds of calls made in turn, A B A B, so that other work on the machine weighs on all alike."""
    for _ in range(warmup):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(timed(call))
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


class BarePasses:
    """Passes of a network with nothing else: forward, and back to its input alone or to its weights as well.

    Parameters
    ----------
    network : nn.Module
        Whose forward takes points and a time.
    x : Tensor of shape (n, length, channels)
    t : Tensor of shape (1,) or (n,), optional
        One time for all rows by default.
    bfloat16 : bool, default=False
        Under autocast.
    """

    def __init__(self, network: nn.Module, x: Tensor, t: Tensor | None = None, *, bfloat16: bool = False) -> None:
        self.network = network
        self.x = x
        self.t = torch.ones(1, device=x.device) if t is None else t
        self.bfloat16 = bfloat16

    @property
    def calls(self) -> dict[str, Callable[[], object]]:
        return {"forward": self.forward, "input gradient": self.input_gradient, "all gradients": self.all_gradients}

    def forward(self) -> None:
        with torch.no_grad():
            self._run(self.x)

    def graphed(self) -> Callable[[], object]:
        """The forward pass as a CUDA graph: what a GPU takes when no kernel waits to be launched."""
        self.forward()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.forward()
        return graph.replay

    def input_gradient(self) -> None:
        self.network.requires_grad_(False)
        self._run(self.x.clone().requires_grad_()).sum().backward()

    def all_gradients(self) -> None:
        self.network.requires_grad_(True)
        self._run(self.x.clone().requires_grad_()).sum().backward()
        self.network.zero_grad(set_to_none=True)

    def _run(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            return self.network(x, self.t).float()


class CountPasses:
    """Counts the passes of networks, by the kinds of `BarePasses`, from when it is made until `remove`.

    A pass of a part of the batch counts as that part.
    """

    def __init__(self, *networks: nn.Module, batch_size: int) -> None:
        self.counts = dict.fromkeys(("forward", "input gradient", "all gradients"), 0.0)
        self.batch_size = batch_size
        self._handles = [network.register_forward_hook(self._count) for network in networks]

    def _count(self, network: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.requires_grad:
            kind = "forward"
        elif any(parameter.requires_grad for parameter in network.parameters()):
            kind = "all gradients"
        else:
            kind = "input gradient"
        self.counts[kind] += len(output) / self.batch_size

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def options(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("small", "paper"), default="small")
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    return parser


def report(arguments: argparse.Namespace, rows: list[dict[str, object]], device: str = "cpu") -> None:
    """Print the rows as a table; write them and what they ran on to ``--out``."""
    setting = {
        name: value for name, value in vars(arguments).items() if value is not None and not isinstance(value, Path)
    }
    setting |= {"processor": processor(), "torch": torch.__version__, "device": device, "state": "float32"}
    setting["peak memory, GiB"] = peak_gib()
    print(json.dumps(setting))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[shown(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in [columns, *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    if arguments.out:
        arguments.out.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n")


def peak_gib() -> float:
    """Largest resident memory of the process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def processor() -> str:
    """The processor's name, and whether it multiplies bfloat16."""
    capabilities = torch.cpu.get_capabilities()
    name = capabilities.get("cpu_name") or platform.processor() or platform.machine()
    units = [unit for unit in ("amx_bf16", "avx512_bf16") if capabilities.get(unit)]
    return f"{name} ({', '.join(units) or 'no bfloat16 units'})"
