"""What the defaults of the rewards were chosen by: 5'UTR rows below the 60 % quantile, judged below and above it.

    python benchmarks/reward_defaults.py --data utr_mrl.csv.gz         (20,000 rows, one setting at a time)
    python benchmarks/reward_defaults.py --data utr_mrl.csv.gz --full  (all rows below the cut, default settings)

Half of the table is D'; a reward is fitted on its rows below its 60 % quantile. One line of JSON a fit: R2 and coverage
of the lower bound on held-out rows below the cut; Spearman correlation with the measurements above it (extrapolation);
mean measurement of the 1 % that the reward ranks highest among rows of both kinds, in the proportion of the table.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from sklearn.base import clone

from braidkit import BootstrapReward, GPBonusReward
from braidkit.rewards import lower_coverage
from braidkit.rewards.features import SequenceFeatures

HELD_OUT = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="table with columns sequence and mrl")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    data = Data(options.data, None if options.full else options.rows)
    for seed in range(options.seeds):
        if options.full:
            data.report("default", GPBonusReward(lam=1.0), seed)
            data.report("calibrated", GPBonusReward(c="calibrated", lam=1.0), seed)
            data.report("bootstrap", BootstrapReward(), seed)
            continue
        default = data.report("default", GPBonusReward(lam=1.0), seed)
        # The same trained features, frozen: only the posterior changes.
        for lam in (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0):
            for c in (0.1, 1.0):
                frozen = GPBonusReward(default.process_.features, lam=lam, c=c, max_iter=1)
                data.report(f"lam {lam:g}, c {c:g}", frozen, seed)
        data.report("calibrated", GPBonusReward(c="calibrated", lam=1.0), seed)
        for learning_rate in (1e-3, 4e-3):
            data.report(f"learning_rate {learning_rate:g}", GPBonusReward(lam=1.0, learning_rate=learning_rate), seed)
        for factor in (0.5, 2.0):
            max_iter = int(factor * default.n_iter_)
            data.report(f"max_iter {max_iter}", GPBonusReward(lam=1.0, max_iter=max_iter), seed)
        for n_channels, n_features, dropout in ((16, 40, 0.2), (32, 40, 0.0), (32, 128, 0.2)):
            torch.manual_seed(seed)
            features = SequenceFeatures(50, 4, n_channels=n_channels, n_features=n_features, dropout=dropout)
            name = f"{n_channels} channels, {n_features} features, dropout {dropout:g}"
            data.report(name, GPBonusReward(features, lam=1.0), seed)
        data.report("bootstrap", BootstrapReward(), seed)


class Data:
    """Training rows below the cut, and held-out rows below and above it."""

    def __init__(self, path: str, n_train: int | None) -> None:
        table = pd.read_csv(path)
        half = table.iloc[np.random.default_rng(0).permutation(len(table))[: len(table) // 2]]
        cut = half["mrl"].quantile(0.6)
        below, above = half[half["mrl"] < cut], half[half["mrl"] >= cut]
        self.test, self.above = below[:HELD_OUT], above[:HELD_OUT]
        self.train = below[HELD_OUT:][:n_train]
        self.mixed = pd.concat([self.test, above[: HELD_OUT * 2 // 3]])

    def report(self, name: str, reward: GPBonusReward | BootstrapReward, seed: int):
        """Fit a copy of a reward and print its figures."""
        reward = clone(reward).set_params(random_state=seed)
        start = time.perf_counter()
        reward.fit(self.train["sequence"], self.train["mrl"])
        seconds = time.perf_counter() - start
        best = np.argsort(reward.predict(self.mixed["sequence"]))[-len(self.mixed) // 100 :]
        figures = {
            "setting": name,
            "seed": seed,
            "rows": len(self.train),
            "n_iter": reward.n_iter_,
            "fit, s": round(seconds, 1),
            "R2": round(reward.score(self.test["sequence"], self.test["mrl"]), 3),
            "spearman above": round(float(spearmanr(reward.predict(self.above["sequence"]), self.above["mrl"])[0]), 3),
            "top 1 %": round(float(self.mixed["mrl"].to_numpy()[best].mean()), 3),
            "c": round(getattr(reward, "c_", float("nan")), 2),
            "coverage": lower_coverage(reward, self.test["sequence"], self.test["mrl"]),
        }
        print(json.dumps(figures), flush=True)
        return reward


if __name__ == "__main__":
    main()
