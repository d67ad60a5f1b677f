"""How often a calibrated bound holds for measured rows that the reward has not seen, drawn at random.

The table of measured 5'UTRs is sorted by sequencing reads: its last rows are the noisiest, and no test of a bound.

    python benchmarks/coverage.py --data-home DATA
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from braidkit import GPBonusReward, offline_split

N_HELD_OUT = 5000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 2000, 5000])
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = pd.read_csv(options.data_home / "utr_mrl.csv.gz")
    for n in options.rows:
        shares = []
        for seed in range(options.draws):
            split = offline_split(table["sequence"], table["mrl"], random_state=seed)
            order = np.random.default_rng(seed).permutation(len(split.y_offline))
            seen, new = order[:n], order[n : n + N_HELD_OUT]
            X = np.asarray(split.X_offline, dtype=object)
            reward = GPBonusReward(c="calibrated", random_state=seed).fit(X[seen], split.y_offline[seen])
            shares.append((split.y_offline[new] >= reward.predict_lower(X[new])).mean())
        print(f"{n:,} rows: {np.mean(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})", flush=True)


if __name__ == "__main__":
    main()
