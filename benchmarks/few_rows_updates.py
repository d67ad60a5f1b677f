"""How many updates suit few measurements, and does the alpha of `braidkit design` suit them?

    PYTHONPATH=. python benchmarks/few_rows_updates.py --data-home DATA --out results/few_rows_updates

Some rows of the measured 5'UTRs below the 60 % quantile, drawn anew for each seed, are all that the method has: no
pretrained model is given, so one is trained on these sequences, as in ``braidkit design``. All settings are its own but
what is varied, alpha and c, and that runs go on. At moments of a run Optimus 5-Prime, which takes no part in it,
judges 128 designs. Prints for each arm, by the number of updates, the mean over seeds, the worst seed, what the reward
promises too much, and the path KL. Every run is kept in OUT and not done again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from paper import measured_utrs, regime

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward
from braidkit.evaluation import BudgetedSelection
from braidkit.persistence import replace_file

ARMS: dict[str, tuple[float, float | str]] = {
    "alpha 0.02, c = 0.1": (0.02, 0.1),
    "alpha 0.02, calibrated": (0.02, "calibrated"),
    "alpha 0.1, c = 0.1": (0.1, 0.1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-home", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n-offline", type=int, default=500)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument(
        "--rounds", type=int, default=10, help="moments, besides the start, at which designs are judged"
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    split, oracle = measured_utrs(given.data_home)
    courses = []
    for seed in given.seeds:
        part = regime(split, given.n_offline, seed)
        for arm in given.arms:
            alpha, c = ARMS[arm]
            file = given.out / f"{given.n_offline}-{given.updates}-{given.rounds}-{alpha}-{c}-{seed}.json"
            if not file.exists():
                finetuner = ConservativeDiffusionFinetuner(
                    alpha=alpha,
                    reward=GPBonusReward(c=c),
                    max_iter=given.updates,
                    n_iter_no_change=10**6,
                    selection=BudgetedSelection(oracle, n_queries=128, n_rounds=given.rounds + 1),
                    random_state=seed,
                ).fit(part.X_offline, part.y_offline)
                with replace_file(file) as path:
                    path.write_text(json.dumps(finetuner.history_))
            courses.append(pd.DataFrame(json.loads(file.read_text())).assign(arm=arm, seed=seed))
    table = pd.concat(courses).dropna(subset=["oracle"])
    table["promised too much"] = table["mean"] - table["oracle"]
    for arm, own in table.groupby("arm", sort=False):
        by_update = own.groupby("iteration")
        shown = by_update[["oracle", "judge", "promised too much", "kl"]].mean()
        shown.insert(1, "worst seed", by_update["oracle"].min())
        print(
            f"\n{arm}: {given.n_offline:,} rows, {own['seed'].nunique()} seeds\n{shown.round(2).to_string()}",
            flush=True,
        )


if __name__ == "__main__":
    main()
