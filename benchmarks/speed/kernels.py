"""Bandwidth of the fused kernels against that of a copy, and their time against the functions in plain torch, on a GPU.

    PYTHONPATH=. python benchmarks/speed/kernels.py --batch-size 16384

"GB/s" counts every tensor that a kernel reads or writes once: inputs, results and what is kept for the way back, or
that, the incoming gradients and the gradients given. "of a copy" divides it by the rate of copying one large tensor to
another. Times are medians, with the cache emptied between calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from harness import report
from torch import Tensor

from braidkit.kernels import bridge_step, gaussian_step, posterior_variance, simplex_step
from braidkit.kernels.bridge import bridge_step_torch
from braidkit.kernels.gaussian import gaussian_step_torch
from braidkit.kernels.posterior import posterior_variance_torch
from braidkit.kernels.simplex import EPS, simplex_step_torch

Function = Callable[..., Tensor | tuple[Tensor, ...]]


def milliseconds(call: Callable[[], object]) -> float:
    """Median time of a call on the device."""
    from triton.testing import do_bench

    return float(do_bench(call, return_mode="median"))


def n_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of different tensors."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def measure(run: Function, inputs: list[Tensor], n_with_gradient: int) -> dict[str, float]:
    """Milliseconds and gigabytes a second of a function forwards, and back to its first inputs."""
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    leaves = [x.clone().requires_grad_(i < n_with_gradient) for i, x in enumerate(inputs)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = run(*leaves)
    out = out if isinstance(out, tuple) else (out,)
    gradients = tuple(torch.ones_like(part) for part in out)
    wanted = leaves[:n_with_gradient]

    def back() -> tuple[Tensor, ...]:
        return torch.autograd.grad(out, wanted, gradients, retain_graph=True)

    forward, backward = milliseconds(lambda: run(*leaves)), milliseconds(back)
    return {
        "forward, ms": forward,
        "forward, GB/s": n_bytes([*leaves, *out, *saved]) / forward / 1e6,
        "backward, ms": backward,
        "backward, GB/s": n_bytes([*saved, *gradients, *back()]) / backward / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16384)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--letters", type=int, default=4)
    parser.add_argument("--features", type=int, default=256)
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("kernels are measured on a CUDA device, and there is none")
    n, length, k = arguments.batch_size, arguments.length, arguments.letters
    torch.manual_seed(0)
    states, zero, one, noise = torch.rand(4, n, length, k - 1, device="cuda")
    logits, reference = torch.randn(2, n, length, k, device="cuda")
    sticks = [0.1 + 0.8 * states, logits, reference, zero, one, noise]
    features = torch.randn(n, arguments.features, device="cuda")
    root = torch.randn(arguments.features, arguments.features, device="cuda").triu()
    source = torch.rand(2**28, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.nbytes / milliseconds(lambda: target.copy_(source)) / 1e6
    cases: dict[str, tuple[Function, Function, list[Tensor], int, tuple[float, ...]]] = {
        "bridge_step": (bridge_step, bridge_step_torch, sticks, 5, (1.0, 0.9)),
        "simplex_step": (simplex_step, simplex_step_torch, sticks, 5, (0.1, EPS)),
        "gaussian_step": (gaussian_step, gaussian_step_torch, [states, zero, 0.1 + one, noise], 2, ()),
        "posterior_variance": (posterior_variance, posterior_variance_torch, [features, root], 1, ()),
    }
    rows: list[dict[str, object]] = []
    for name, (fused, in_torch, inputs, n_with_gradient, numbers) in cases.items():
        own, plain = (
            measure(lambda *tensors, run=run, numbers=numbers: run(*tensors, *numbers), inputs, n_with_gradient)
            for run in (fused, in_torch)
        )
        row: dict[str, object] = {"kernel": name}
        for way in ("forward", "backward"):
            row[f"{way}, ms"] = own[f"{way}, ms"]
            row[f"{way}, of a copy"] = own[f"{way}, GB/s"] / copy
            row[f"{way}, against torch"] = plain[f"{way}, ms"] / own[f"{way}, ms"]
        rows.append(row)
    print(f"a copy: {copy:.0f} GB/s")
    report(arguments, rows, device=torch.cuda.get_device_name())


if __name__ == "__main__":
    main()
