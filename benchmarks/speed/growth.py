"""How do the time and memory of a fine-tuning update grow with length, batch, steps and truncation?

    PYTHONPATH=. python benchmarks/speed/growth.py --figure docs/figures/growth.png

One of the four is changed at a time, from a base of 50 letters, 32 trajectories, 40 steps and the last 4 with gradient;
each setting in a process of its own, whose peak memory beyond that of an untrained chain is printed. Slopes are of
log seconds against the logarithm of what is changed: 1 is linear.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from harness import in_turn, medians, options, peak_gib, report
from update import Update, untrained_chain

BASE = {"length": 50, "batch_size": 32, "steps": 40, "truncation": 4}
CHANGES = {
    "length": (25, 50, 100, 200),
    "batch_size": (16, 32, 64, 128),
    "steps": (20, 40, 80, 160),
    "truncation": (5, 10, 20, 40),
}
NAMES = {"length": "length", "batch_size": "batch", "steps": "steps", "truncation": "steps with gradient"}


def measure(
    setting: dict[str, int],
    network: str,
    repeats: int,
    threads: int,
    variant: str = "float32",
    head: str = "score",
) -> tuple[float, float, float]:
    """Seconds of an update, the GiB that it adds to the peak, and the peak."""
    torch.set_num_threads(threads)
    chain = untrained_chain(network, setting["length"], setting["steps"], head)
    update = Update(variant, chain, setting["truncation"], setting["batch_size"])
    before = peak_gib()
    # The first update counts where it is the only one.
    times = in_turn({"update": lambda: update.solver.update(0)}, repeats, warmup=int(repeats > 1))
    return medians(times)["update"], peak_gib() - before, peak_gib()


def results(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each setting."""
    rows: list[dict[str, Any]] = []
    # A fresh process each, so that no peak is that of the setting before.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name, values in CHANGES.items():
            for value in values:
                setting = BASE | {name: value}
                given = (setting, arguments.network, arguments.repeats, arguments.threads, "float32", arguments.head)
                taken = pool.apply(measure, given)
                rows.append({"changed": name, "value": value, "seconds": taken[0], "memory, GiB": taken[1]})
            own = [row for row in rows if row["changed"] == name]
            logs = np.log([[row["value"], row["seconds"]] for row in own])
            own[-1]["slope"] = float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and memory over what was changed, each in multiples of its smallest setting; both axes logarithmic."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    for axis, column in zip(axes, ("seconds", "memory, GiB"), strict=True):
        for name in CHANGES:
            own = [row for row in rows if row["changed"] == name]
            slope = f" ({own[-1]['slope']:.2f})" if column == "seconds" else ""
            at, values = ([row[key] / own[0][key] for row in own] for key in ("value", column))
            axis.plot(at, values, "o-", label=NAMES[name] + slope)
        axis.plot([1, 8], [1, 8], "--", color="0.6", zorder=0)
        axis.set(xscale="log", yscale="log", xlabel="times the smallest setting")
        axis.set_ylabel(f"{column.split(',')[0]}, times that of the smallest")
        for mark in (axis.set_xticks, axis.set_yticks):
            mark([1, 2, 4, 8], ["1", "2", "4", "8"])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, title="slope of seconds", fontsize="small", handlelength=1.2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--head", choices=["score", "letters"], default="letters", help="Euler's steps, or bridges")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    del arguments.length, arguments.batch_size
    rows = results(arguments)
    report(arguments, rows)
    if arguments.figure is not None:
        draw(rows, arguments.figure)


if __name__ == "__main__":
    main()
