"""Time of one policy call of SimplexDiffusion against its network alone, and of one training step.

Medians over alternating calls, so that other work on the machine weighs on both alike.

    python benchmarks/simplex_speed.py --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from braidkit.diffusion.simplex import SimplexDiffusion
from braidkit.spaces import SequenceSpace


def medians(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def measure(head: str, n: int, length: int, repeats: int) -> dict[str, float]:
    """Milliseconds of a policy call, of its network alone, and of a training loss with its gradient."""
    generator = torch.Generator().manual_seed(0)
    model = SimplexDiffusion(SequenceSpace("DNA", length=length), head=head)
    model.network = network = model._build_network()
    v = torch.rand(n, *model.state_shape, generator=generator)
    points = torch.rand(n, length, 4, generator=generator).softmax(dim=-1)
    clean = torch.nn.functional.one_hot(points.argmax(dim=-1), 4).float()
    clock = torch.ones(1)
    with torch.no_grad():
        times = medians({"policy": lambda: model.policy(v, 20), "network": lambda: network(points, clock)}, repeats)
    return times | medians({"training": lambda: model._loss(clean, generator).backward()}, repeats // 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--length", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for head in ("letters", "score"):
        times = measure(head, args.batch_size, args.length, args.repeats)
        print(
            f"head={head:8s} threads={args.threads} batch={args.batch_size}: policy {times['policy']:.2f} ms, "
            f"network {times['network']:.2f} ms ({100 * times['network'] / times['policy']:.0f} %), "
            f"training loss and gradient {times['training']:.1f} ms"
        )


if __name__ == "__main__":
    main()
