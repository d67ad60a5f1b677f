"""The demo over several seeds: do designs truly score higher, and stay valid?

    python benchmarks/demo_quality.py --seeds 3 --out results/demo_quality

Runs ``braidkit demo`` once a seed and collects the exact rewards that it reports: of the designs, of the pretrained
model's sequences and of the best 5 % of the offline data. Prints the mean over seeds and the differences paired by
seed, with 95 % intervals of Student's t; writes ``OUT/result.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean over seeds with a 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": values.mean(), "low": values.mean() - half, "high": values.mean() + half}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    truths, seconds = [], []
    for seed in range(arguments.seeds):
        out = arguments.out / f"seed{seed}"
        start = time.perf_counter()
        command = [sys.executable, "-m", "braidkit", "demo", "--seed", str(seed), "--out", str(out)]
        subprocess.run(command, check=True)
        seconds.append(time.perf_counter() - start)
        truths.append(pd.DataFrame(json.loads((out / "run.json").read_text())["truth"]).T)
    means = pd.DataFrame([truth["mean"] for truth in truths]).reset_index(drop=True)
    valid = pd.DataFrame([truth["valid"] for truth in truths]).reset_index(drop=True)
    rows = {f"true reward: {name}": interval(means[name].to_numpy()) for name in means}
    rows |= {
        f"designs less {name}": interval((means["designs"] - means[name]).to_numpy())
        for name in means
        if name != "designs"
    }
    rows |= {f"share valid: {name}": interval(valid[name].to_numpy()) for name in valid}
    print(pd.DataFrame(rows).T.to_string(float_format="{:.2f}".format))
    print(f"{arguments.seeds} seeds; {np.median(seconds):.0f} s a seed (median)")
    result = {"seeds": arguments.seeds, "seconds": seconds, "rows": rows}
    (arguments.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
