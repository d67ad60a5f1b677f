"""With how few measured sequences does a trained network beat counts of k-mers, under the same Gaussian process?

    python benchmarks/few_rows.py --data-home DATA --out results/few_rows.json

Four tables: 5'UTRs below the 60 % quantile (50 nt), one factor of TFBind8 (8 nt), GB1 (4 amino acids, log fitness) and
HepG2 enhancers (200 nt; the two strands of an element stay together). Printed: R2 on 2,000 other rows, its mean over
the draws of rows and its lowest, for a GPBonusReward on counts of k-mers and letters by position, on the network that
is its default for more rows, and on its default for as many as there are. Draws share rows where there are too few.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from braidkit import GPBonusReward
from braidkit.rewards.features import default_features
from braidkit.rewards.kmers import KmerFeatures
from braidkit.spaces import infer_space

N_TEST = 2000


def tables(home: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sequences and measurements by the name of the table; the two strands of an enhancer follow each other."""
    utr = pd.read_csv(home / "utr_mrl.csv.gz").query("mrl < mrl.quantile(0.6)")
    binding, protein = pd.read_csv(home / "tfbind8.csv.gz"), pd.read_csv(home / "gb1_4site.csv.gz")
    enhancer = pd.read_csv(home / "enhancer_lentimpra.csv.gz").query("cell == 'HepG2'").sort_values("element")
    return {
        "5'UTR": (utr["sequence"].to_numpy(), utr["mrl"].to_numpy()),
        "TFBind8 SIX6": (binding["sequence"].to_numpy(), binding["SIX6"].to_numpy()),
        "GB1": (protein["variant"].to_numpy(), np.log(protein["fitness"].to_numpy() + 0.01)),
        "enhancer": (enhancer["sequence"].to_numpy(), enhancer["activity"].to_numpy()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 250, 500, 750, 1000])
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--tables", nargs="+", help="all by default")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = []
    for name, (X, y) in tables(given.data_home).items():
        if given.tables and name not in given.tables:
            continue
        size = 2 if name == "enhancer" else 1
        pairs = np.random.default_rng(0).permutation(len(X) // size)
        order = (size * pairs[:, None] + np.arange(size)).ravel()
        test, rest = order[:N_TEST], order[N_TEST:]
        space = infer_space(X.tolist())
        for n in given.rows:
            for draw in range(given.draws):
                rows = np.roll(rest, -draw * max(given.rows))[:n]
                torch.manual_seed(draw)
                kinds = {
                    "k-mers": KmerFeatures(*space.shape),
                    "network": default_features(space, int(0.9 * n)),
                    "default": None,
                }
                for kind, features in kinds.items():
                    reward = GPBonusReward(features, space=space, random_state=draw).fit(X[rows], y[rows])
                    r2 = float(reward.score(X[test], y[test]))
                    results.append({"table": name, "rows": n, "draw": draw, "features": kind, "r2": r2})
            table = pd.DataFrame(results[-len(kinds) * given.draws :])
            means = table.groupby("features")["r2"].agg(["mean", "min"]).round(2)
            print(
                f"{name}, {n} rows: " + "; ".join(f"{k} {m} (lowest {w})" for k, m, w in means.itertuples()), flush=True
            )
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
