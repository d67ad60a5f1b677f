"""The main job on the measured 5'UTR library, judged by a model that it never saw.

    python benchmarks/utr_design.py --data-home DATA --out results/utr_design

The paper's split of the 280,000 rows: a random half is set aside, and of the other half the rows below its 60 %
quantile are the offline data. ``braidkit design`` learns from these alone and makes 1,000 designs. Optimus 5-Prime
(HEK293T output; Castillo-Hair et al., 2024), which takes no part in the fit, then predicts the mean ribosome load of
the designs, of the offline data, of their best 5 % by measurement, and of sequences of the pretrained model.

Prints a table with 95 % bootstrap intervals of the means, the seconds and the peak memory of the run; writes them to
``OUT/result.json``. A run that is interrupted goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from braidkit.datasets import fetch_utr, offline_split
from braidkit.diffusion import DiffusionModel
from braidkit.evaluation.metrics import kmer_jensen_shannon, novelty
from braidkit.oracles import Optimus5Prime


def summary(values: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Mean with a 95 % bootstrap interval, median, 5 and 95 %."""
    draws = np.random.default_rng(seed).choice(values, size=(1000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    p5, p50, p95 = np.quantile(values, [0.05, 0.5, 0.95])
    row = {"mean": values.mean(), "low": low, "high": high, "median": p50, "5 %": p5, "95 %": p95}
    return {name: float(value) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True, help="folder of utr_mrl.csv.gz and optimus5p_mrl.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("options", nargs="*", help="further options of braidkit design, after --")
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    X, y = fetch_utr(arguments.data_home, return_X_y=True, download_if_missing=False)
    split = offline_split(X, y, random_state=arguments.seed)
    offline = pd.DataFrame({"sequence": split.X_offline, "mrl": split.y_offline})
    if not (out / "offline.csv").exists():
        offline.to_csv(out / "offline.csv", index=False)

    command = [sys.executable, "-m", "braidkit", "design", str(out / "offline.csv")]
    command += ["--sequence", "sequence", "--target", "mrl", "--n", str(arguments.n), "--out", str(out / "run")]
    command += ["--seed", str(arguments.seed), *arguments.options]
    print(" ".join(command[1:]), flush=True)
    start = time.perf_counter()
    if (code := subprocess.run(command).returncode) not in (0, 3):  # 3: every design has a flag
        raise SystemExit(code)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20

    oracle = Optimus5Prime.from_npz(arguments.data_home / "optimus5p_mrl.npz", output="HEK293T")
    best = offline["mrl"] >= offline["mrl"].quantile(0.95)
    pretrained = DiffusionModel.from_pretrained(out / "run" / "pretrained").sample(1000, random_state=arguments.seed)
    groups = {
        "offline data": offline["sequence"].tolist(),
        "best 5 % of offline data": offline["sequence"][best].tolist(),
        "pretrained": pretrained,
        "designs": pd.read_csv(out / "run" / "designs.csv")["sequence"].tolist(),
    }
    rows = {name: summary(oracle.predict(sequences)) for name, sequences in groups.items()}
    designs, reference = groups["designs"], groups["offline data"]
    result = {
        "rows": len(offline),
        "seconds": seconds,
        "peak_gib": peak,
        "threads": os.cpu_count(),
        "optimus_hek293t": rows,
        "designs": {
            "n": len(designs),
            "novel": novelty(designs, reference),
            "kmer3_js_bits": kmer_jensen_shannon(designs, reference[:20_000], k=3),
        },
    }
    print(pd.DataFrame(rows).T.to_string(float_format="{:.2f}".format))
    print(f"{len(offline):,} offline rows; {seconds:.0f} s, {peak:.2f} GiB at most")
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
