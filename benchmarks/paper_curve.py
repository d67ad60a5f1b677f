"""When conservatism pays: BRAID less STRL, and their worst seeds, over the number of measurements.

    python benchmarks/paper_curve.py --results results/paper_utr/bridge --judge "Optimus 5-Prime" --figure curve.png

Reads what `paper_utr.py` or `paper_enhancer.py` left in its folder of a scheme, one ``n-*`` for each regime; those that
have only one seed have no interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import pandas as pd
from paper_tables import BONUS, CALIBRATED, SMALL_ALPHA

from braidkit.evaluation import Comparison

SMALL = f", alpha = {SMALL_ALPHA}"
ARMS = {"c = 0.1": BONUS + SMALL, "c = 1": f"{BONUS}, c = 1{SMALL}", "c calibrated": CALIBRATED + SMALL}
STRL = f"STRL{SMALL}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    rows = []
    for folder in given.results.glob("n-*"):
        results = pd.read_csv(folder / "results.csv")
        if STRL not in set(results["method"]):
            continue
        values = results[(results["source"] == given.judge) & (results["metric"] == "mean")]
        differences = Comparison(results, pd.DataFrame(), pd.DataFrame()).differences(STRL)
        n = float("inf") if folder.name == "n-all" else int(folder.name[2:])
        for name, method in {"STRL": STRL, **ARMS}.items():
            own = values.loc[values["method"] == method, "value"]
            if len(own):
                row = {"rows": n, "arm": name, "seeds": len(own), "mean": own.mean(), "worst": own.min()}
                less = differences.loc[(method, given.judge, "mean")] if name != "STRL" else {}
                rows.append(row | {key: less.get(key) for key in ("low", "high")} | {"less STRL": less.get("mean")})
    table = pd.DataFrame(rows).sort_values(["rows", "arm"])
    print(table.round(2).to_string(index=False))
    if given.figure is not None:
        draw(table, given.judge, given.figure)


def draw(table: pd.DataFrame, judge: str, path: Path) -> None:
    """Differences with their 95 % intervals, and worst seeds."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    sizes = sorted(set(table["rows"]))
    for i, (name, colour) in enumerate({"STRL": "0.4", **dict(zip(ARMS, ("C0", "C1", "C2"), strict=True))}.items()):
        own = table[table["arm"] == name]
        at = [sizes.index(n) + 0.08 * (i - 1.5) for n in own["rows"]]
        right.plot(at, own["worst"], "o-", color=colour, label=name)
        if name != "STRL":
            reach = (own["less STRL"] - own["low"]).astype(float)
            left.errorbar(at, own["less STRL"].astype(float), reach, fmt="o-", color=colour, capsize=3)
    left.axhline(0, color="0.4")
    left.set_ylabel(f"mean less STRL's ({judge})")
    right.set_ylabel(f"worst seed ({judge})")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.set_xticks(range(len(sizes)), ["all" if n == float("inf") else f"{n:,.0f}" for n in sizes])
        axis.set_xlabel("measurements")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
