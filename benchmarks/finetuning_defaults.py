"""Learning rate, KL weight and truncation of the fine-tuning, measured on generated 5'UTRs with a known reward.

    python benchmarks/finetuning_defaults.py --out results/finetuning_defaults.json

One pretrained model, one reward and one judge on 12,000 offline rows; then short runs that differ in one setting from
the base (learning rate 1e-3, alpha 0.1, random truncation). Printed for each, at equal numbers of updates: CPU
seconds, the exact mean reward of 256 designs, the reward's lower bound and the judge's mean, the path KL in nats, the
share of designs that are valid and the share that are different. What the estimator can see without an oracle (judge,
lower, KL) stands beside what only the oracle knows.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from braidkit import GPBonusReward, SequenceSpace, SimplexDiffusion, make_utr, offline_split
from braidkit.finetuning import DirectSolver, Problem, sample_with_kl
from braidkit.finetuning.held_out import split_for_judge
from braidkit.oracles import UTRLandscape

RUNS = {
    "base": {},
    "learning rate 3e-4": {"learning_rate": 3e-4},
    "learning rate 3e-3": {"learning_rate": 3e-3},
    "alpha 0.001": {"alpha": 1e-3},
    "alpha 0.03": {"alpha": 0.03},
    "alpha 0.3": {"alpha": 0.3},
    "truncation 5": {"truncation": 5},
    "whole chain": {"truncation": 10**6},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    split = offline_split(*make_utr(40_000, random_state=arguments.seed), random_state=arguments.seed)
    X, y = np.asarray(split.X_offline), np.asarray(split.y_offline)
    landscape, space = UTRLandscape(), SequenceSpace("DNA", 50)
    pretrained = SimplexDiffusion(space).fit(X, random_state=0)
    for_reward, for_judge = split_for_judge(y, 0.25, 0)
    reward = GPBonusReward(random_state=0).fit(X[for_reward], y[for_reward])
    judge = GPBonusReward(random_state=1).fit(X[for_judge], y[for_judge])
    print(f"held-out R2: reward {reward.score(X[for_judge], y[for_judge]):.2f}, judge {judge.score(X, y):.2f}")

    rows = []
    for name in arguments.runs:
        settings = {"alpha": 0.1, "learning_rate": 1e-3, "truncation": "random"} | RUNS[name]
        model = pretrained.trainable_copy()
        problem = Problem(
            model,
            pretrained,
            lambda point: reward.lower(space.discretise(point)) / reward.y_std_,
            alpha=settings["alpha"],
            batch_size=arguments.batch_size,
            learning_rate=settings["learning_rate"],
            max_grad_norm=1.0,
            seed=arguments.seed,
        )
        solver = DirectSolver(settings["truncation"]).setup(problem)
        noise = model.draw_noise(256, torch.Generator().manual_seed(1))
        seconds = 0.0
        for i in range(arguments.updates):
            start = time.process_time()
            solver.update(i)
            seconds += time.process_time() - start
            if (i + 1) % (arguments.updates // 3):
                continue
            path = sample_with_kl(model, pretrained, noise)
            designs = space.discretise(path.point)
            sequences = space.decode(designs)
            with torch.no_grad():
                lower, judged = reward.lower(designs), judge.mean_and_penalty(designs)[0]
            rows.append(
                {
                    "run": name,
                    "updates": i + 1,
                    "cpu_seconds": seconds,
                    "true": float(landscape.predict(sequences).mean()),
                    "lower": float(lower.mean()),
                    "judge": float(judged.mean()),
                    "kl": float(path.kl.mean()),
                    "valid": float(landscape.is_valid(sequences).mean()),
                    "different": len(set(sequences)) / len(sequences),
                }
            )
            print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1, float_format="{:.2f}".format))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
