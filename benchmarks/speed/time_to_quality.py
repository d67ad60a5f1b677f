"""Seconds of fine-tuning until designs are truly as good as a plain implementation makes them.

    PYTHONPATH=. python benchmarks/speed/time_to_quality.py --out OUT --variants naive float32 bfloat16 small --seeds 0

Generated 5'UTRs, whose true reward is known. All variants climb the same fitted reward, 32 trajectories an update, and
are judged by the true reward of the designs of their own updates, a mean over the last `WINDOW` of them:

- "naive": ``naive.py`` on the authors' network, 50 steps, the last 4 with gradient;
- "float32", "bfloat16": the same network, learning rate, truncation and noise under `DirectSolver`;
- "small": the network and settings that braidkit takes by default, 25 bridges, ``truncation="random"``;
  "small_bfloat16": the same in bfloat16, which it takes by default for wide networks alone; "small_euler": the same in
  50 Euler steps; "small_euler_bfloat16": both.

"target" is naive's mean over the last quarter of its updates, and seconds are of updates alone, until the moving mean
first reaches it; training of pretrained models, shared by all seeds, is printed apart. With several seeds the last
quarter of each variant less that of the first one given is printed, after as many updates, and after as many seconds,
or at its end if that comes before. OUT keeps models and finished
runs: call it again to go on, or several times at once for different variants and seeds.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from harness import report
from naive import NaiveUpdate
from torch import Tensor

from braidkit import GPBonusReward, SequenceSpace, SimplexDiffusion, make_utr
from braidkit.datasets import offline_split
from braidkit.evaluation import t_interval
from braidkit.finetuning import DirectSolver, Problem
from braidkit.oracles import UTRLandscape
from braidkit.persistence import replace_file

VARIANTS = ("naive", "float32", "bfloat16", "small", "small_bfloat16", "small_euler", "small_euler_bfloat16")
SPACE = SequenceSpace("DNA", 50)
ALPHA = 0.1
WINDOW = 8  # updates of 32 designs


class Recorder:
    """The reward that is risen, which notes the true reward of every design that it is asked for."""

    def __init__(self, reward: GPBonusReward) -> None:
        self.reward = reward
        self.landscape = UTRLandscape(SPACE.length)
        self.true: list[float] = []

    def __call__(self, point: Tensor) -> Tensor:
        self.true.extend(self.landscape.predict(SPACE.decode(point.detach(), "strings")))
        return self.reward.lower(SPACE.discretise(point)) / self.reward.y_std_


@functools.cache
def offline() -> tuple[np.ndarray, np.ndarray]:
    """Sequences and measurements below the 60 % quantile."""
    X, y = make_utr(40_000, random_state=0)
    split = offline_split(X, y, random_state=0)
    return np.asarray(split.X_offline), split.y_offline


def pretrained(network: str, out: Path, max_iter: int | str) -> SimplexDiffusion:
    """The chain of a network, trained once."""
    path = out / f"pretrained-{network}"
    if path.exists():
        return SimplexDiffusion.from_pretrained(path)
    head = {"paper": "score", "small": "letters"}[network]
    began = time.perf_counter()
    chain = SimplexDiffusion(SPACE, network=network, head=head)
    chain.fit(offline()[0], max_iter=max_iter, batch_size=256 if network == "small" else 64, random_state=0, verbose=1)
    chain.save_pretrained(path)
    true = UTRLandscape(SPACE.length).predict(chain.sample(200, random_state=0)).mean()
    print(f"{network}: {time.perf_counter() - began:.0f} s of pretraining; true reward {true:.2f}", flush=True)
    return chain


def run(variant: str, seed: int, arguments: argparse.Namespace) -> None:
    """Seconds and true rewards of a run's updates, written once it is done."""
    path = arguments.out / f"{variant}-{seed}.json"
    if path.exists():
        return
    small = variant.startswith("small")
    chain = pretrained("small" if small else "paper", arguments.out, "auto" if small else arguments.pretraining)
    if "euler" in variant:
        chain = chain.with_steps(50, "euler")
    recorder = Recorder(GPBonusReward(random_state=seed).fit(*offline()))
    problem = Problem(
        chain.trainable_copy(),
        chain,
        recorder,
        alpha=ALPHA,
        batch_size=32,
        learning_rate=3e-3 if small else arguments.learning_rate,
        max_grad_norm=1.0,
        seed=seed,
        precision="bfloat16" if variant.endswith("bfloat16") else "float32",
    )
    solver = DirectSolver("random" if small else 4).setup(problem)
    naive = NaiveUpdate(problem) if variant == "naive" else None
    rows = []
    for i in range(arguments.updates):
        recorder.true = []
        began = time.perf_counter()
        if naive is None:
            solver.update(i)
        else:
            naive.update(solver.draw_noise(i), 4)
        rows.append({"seconds": time.perf_counter() - began, "true": mean(recorder.true)})
        print(f"{variant}, seed {seed}, update {i}: {rows[-1]['true']:.2f}, {rows[-1]['seconds']:.1f} s", flush=True)
    with replace_file(path) as file:
        file.write_text(json.dumps(rows, indent=2))


def moving(true: list[float]) -> list[float]:
    """Means over the last `WINDOW` updates, from the first that has so many."""
    return np.convolve(true, np.ones(WINDOW) / WINDOW, mode="valid").tolist()


def table(out: Path) -> list[dict[str, object]]:
    """A row for each finished run, against the naive one of the same seed."""
    runs = {tuple(path.stem.split("-")): json.loads(path.read_text()) for path in sorted(out.glob("*-[0-9]*.json"))}
    rows: list[dict[str, object]] = []
    for (variant, seed), updates in runs.items():
        true = [update["true"] for update in updates]
        row: dict[str, object] = {
            "variant": variant,
            "seed": seed,
            "updates": len(true),
            "seconds an update": float(np.median([update["seconds"] for update in updates])),
            "first": true[0],
            "last quarter": mean(true[-(len(true) // 4) :]),
        }
        if ("naive", seed) in runs:
            theirs = [update["true"] for update in runs["naive", seed]]
            target = mean(theirs[-(len(theirs) // 4) :])
            reached = next((i for i, value in enumerate(moving(true), WINDOW) if value >= target), None)
            row |= {"target": target, "at update": reached or "never"}
            if reached:
                row["seconds to target"] = sum(update["seconds"] for update in updates[:reached])
        rows.append(row)
    return rows


def paired(variants: Sequence[str], seeds: Sequence[int], out: Path) -> None:
    """Print the last quarter of variants less that of the first, paired by seed, at as many updates and seconds."""
    first, *others = variants
    for other in others:
        updates, seconds = [], []
        for seed in seeds:
            files = [out / f"{variant}-{seed}.json" for variant in (first, other)]
            theirs, own = (json.loads(file.read_text()) for file in files)
            quarter, taken = len(theirs) // 4, sum(update["seconds"] for update in theirs)
            target = mean(update["true"] for update in theirs[-quarter:])
            n = int(np.searchsorted(np.cumsum([update["seconds"] for update in own]), taken))
            updates.append(mean(update["true"] for update in own[-quarter:]) - target)
            seconds.append(mean(update["true"] for update in own[max(n - quarter, 0) : max(n, 1)]) - target)
        for name, differences in (("updates", updates), ("seconds", seconds)):
            low, high = t_interval(np.array(differences), 0.95)[1:]
            print(f"{other} less {first} after as many {name}: {mean(differences):.2f} ({low:.2f} to {high:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--pretraining", type=int, default=400, help="updates of 64 of the authors' network")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of the authors' network")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    for seed in arguments.seeds:
        for variant in arguments.variants:
            run(variant, seed, arguments)
    rows = table(arguments.out)
    arguments.out = arguments.out / "table.json"
    report(arguments, rows)
    if len(arguments.seeds) > 1:
        paired(arguments.variants, arguments.seeds, arguments.out.parent)


if __name__ == "__main__":
    main()
