"""Does a grid search without an oracle choose alpha and c well, and what do a few true measurements add?

    python benchmarks/grid_search.py --data-home DATA --out results/grid_search --n-offline 500 --seeds 4

The 5'UTR experiment of `paper_utr.py`, with its split, regimes and pretrained models. `GridSearchCV` with three folds
goes over alpha and the penalty c; each candidate's designs are scored by the lower bound of a fresh reward of the fold
that it did not see, the default, by the mean of such a reward, and by 24 of them measured by Optimus 5-Prime
(`BudgetedSelection`). Then every candidate learns from all rows, and Optimus judges 500 of its designs. Prints the
candidates, what each rule chose, and how good that is beside the best candidate in hindsight; each seed is kept in OUT
and not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from paper import SIZES, Chains, measured_utrs, regime
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ParameterGrid

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SimplexDiffusion
from braidkit.datasets import OfflineSplit
from braidkit.evaluation import BudgetedSelection
from braidkit.oracles import Optimus5Prime

GRID: dict[str, list[Any]] = {"alpha": [0.02, 0.1], "reward__c": [0.1, 1.0, "calibrated"]}
N_FOLDS, N_MEASURED, N_DESIGNS = 3, 24, 500
SIZE = SIZES["cpu"]


def held_out_lower(finetuner: ConservativeDiffusionFinetuner, X: Any, y: Any) -> float:
    """The search's default: the lower bound of designs by a fresh reward of the rows that the fit did not see."""
    return finetuner.score(X, y)


def held_out_mean(finetuner: ConservativeDiffusionFinetuner, X: Any, y: Any) -> float:
    """The mean of the same designs by the same reward."""
    judge = GPBonusReward(space=finetuner.space_, random_state=0).fit(X, y)
    return float(judge.predict(finetuner.sample(finetuner.batch_size, random_state=0)).mean())


def search(part: OfflineSplit, chain: SimplexDiffusion, oracle: Optimus5Prime, seed: int) -> list[dict[str, Any]]:
    """A row a candidate: its three scores, and the true mean of its designs after a fit to all rows."""
    tuning = {"max_iter": SIZE.max_iter, "batch_size": SIZE.batch_size, "n_iter_no_change": 10**6}
    finetuner = ConservativeDiffusionFinetuner(
        chain, reward=GPBonusReward(), learning_rate=3e-3, random_state=seed, verbose=0, **tuning
    )
    candidates = list(ParameterGrid(GRID))
    budget = BudgetedSelection(oracle, n_queries=N_MEASURED, n_rounds=N_FOLDS * len(candidates))
    scoring = {"held-out lower bound": held_out_lower, "held-out mean": held_out_mean}
    scoring[f"{N_MEASURED} designs a fold measured"] = budget
    found = GridSearchCV(finetuner, GRID, cv=N_FOLDS, scoring=scoring, refit=False).fit(part.X_offline, part.y_offline)
    rows = []
    for i, parameters in enumerate(found.cv_results_["params"]):
        tuned = clone(finetuner).set_params(**parameters).fit(part.X_offline, part.y_offline)
        truth = oracle.predict(tuned.sample(N_DESIGNS, random_state=seed)).mean()
        scores = {rule: float(found.cv_results_[f"mean_test_{rule}"][i]) for rule in scoring}
        rows.append({"seed": seed, **parameters, **scores, "in hindsight": float(truth)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n-offline", type=int, default=500)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    split, oracle = measured_utrs(given.data_home)
    chains = Chains(np.asarray(split.X_offline), SIZE.network, SIZE.pretraining_iter)
    rows = []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        file = given.out / f"n{given.n_offline}-seed{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(search(regime(split, given.n_offline, seed), chains(seed), oracle, seed)))
        rows += json.loads(file.read_text())
    table = pd.DataFrame(rows)
    rules = [name for name in table if name not in ("seed", *GRID)]
    pd.options.display.width = 200
    print(f"{given.n_offline:,} offline rows, {given.seeds} seeds; means over seeds, and the worst of the last")
    by_candidate = table.astype({"reward__c": str}).groupby(list(GRID))
    print(by_candidate[rules].mean().assign(worst=by_candidate["in hindsight"].min()).round(2).to_string())
    chosen = pd.concat([table.loc[table.groupby("seed")[rule].idxmax()].assign(rule=rule) for rule in rules])
    print("\n" + chosen[["rule", "seed", *GRID, "in hindsight"]].round(2).to_string(index=False))
    print("\n" + chosen.groupby("rule", sort=False)["in hindsight"].agg(["mean", "min"]).round(2).to_string())


if __name__ == "__main__":
    main()
