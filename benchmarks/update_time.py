"""Where the time of a fine-tuning update goes: networks' forward, backward, and everything else.

    python benchmarks/update_time.py --data utr_mrl.csv.gz

The small preset on 50-nt sequences, with the estimator's own defaults. The forward passes of the score networks and of
the reward are timed inside an update, and so is its backward pass, the reward's included; the rest is the chain itself
(stick-breaking, scores, drift, noise, KL), the optimiser and Python.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from braidkit import GPBonusReward, SequenceSpace, SimplexDiffusion
from braidkit.finetuning import DirectSolver, Problem


class Stopwatch:
    """Adds up the seconds spent in a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function):
        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="utr_mrl.csv.gz")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    table = pd.read_csv(arguments.data, nrows=arguments.rows)
    X, y = table["sequence"].tolist(), table["mrl"].to_numpy()
    space = SequenceSpace("DNA", 50)
    pretrained = SimplexDiffusion(space).fit(X, max_iter=50, random_state=0)
    reward = GPBonusReward(space=space, max_iter=50, random_state=0).fit(X, y)
    model = pretrained.trainable_copy()
    forward, backward = Stopwatch(), Stopwatch()
    for network in (model.network, pretrained.network, model.decoder):
        network.forward = forward.wrap(network.forward)
    problem = Problem(
        model,
        pretrained,
        forward.wrap(lambda point: reward.lower(space.discretise(point)) / reward.y_std_),
        alpha=1e-3,
        batch_size=128,
        learning_rate=1e-3,
        max_grad_norm=1.0,
        seed=0,
    )
    solver = DirectSolver().setup(problem)
    torch.Tensor.backward = backward.wrap(torch.Tensor.backward)

    rows = []
    for i in range(arguments.updates + 1):
        forward.seconds = backward.seconds = 0.0
        start = time.perf_counter()
        solver.update(i)
        total = time.perf_counter() - start
        rows.append((total, forward.seconds, backward.seconds, total - forward.seconds - backward.seconds))
    rows = np.array(rows[1:])
    result = {
        "threads": arguments.threads,
        "updates": arguments.updates,
        "median_seconds": statistics.median(rows[:, 0]),
        "share": dict(zip(("forward", "backward", "else"), (rows[:, 1:].sum(axis=0) / rows[:, 0].sum()), strict=True)),
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
