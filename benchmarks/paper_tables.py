"""Tables and figures of the two sequence experiments: what methods reached, paired by seed, and how to choose one."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from braidkit.evaluation import Comparison
from braidkit.evaluation.displays import AblationDisplay, RewardDistributionDisplay

SMALL_ALPHA = 0.02
N_MEASURED = 24  # designs of each run that the last rule of `choosing` measures
BONUS = "BRAID-Bonus"
CALIBRATED = f"{BONUS}, c calibrated"
NOT_TUNED = ("DDOM", "Guidance", "best of n", "ascent")
ABLATED_C = (0.01, 0.3, 1, 3)


def report(name: str, n_rows: int, comparison: Comparison, judges: list[str], path: Path) -> None:
    """Print and write the table, the paired differences to STRL, and Figure 2."""
    pd.options.display.width = 200
    print(f"\n{name}, {n_rows:,} offline rows (95 % t-intervals over seeds)")
    summary = comparison.summary()
    for judge in judges:
        print(f"\nmean by {judge}, and differences paired by seed")
        table = summary.xs((judge, "mean"), level=("source", "metric"))
        for other in [name for name in ("STRL", f"STRL, alpha = {SMALL_ALPHA}") if name in table.index]:
            differences = comparison.differences(other).xs((judge, "mean"), level=("source", "metric"))
            table = table.join(differences.drop(columns="n_seeds"), rsuffix=f" - {other}")
        print(table.round(3).to_string())
    print("\n" + summary.xs("designs", level="source")["mean"].unstack().round(3).to_string())
    print("\n" + summary.xs("cost", level="source")["mean"].unstack().round(1).to_string())
    print(f"\nover seeds by {judges[-1]}\n" + spread(comparison, judges[-1]).round(2).to_string())
    if set(NOT_TUNED) & set(comparison.results["method"]):
        print(f"\npaired by seed, by {judges[-1]}\n" + against(comparison, judges[-1]).to_string())
    choices = choosing(comparison, judges[-1])
    print("\n" + choices.to_string(index=False))
    print(choices.groupby("rule", sort=False)[judges[-1]].agg(["mean", "min"]).round(3).to_string(), flush=True)
    if len(comparison.failures):
        print(comparison.failures[["method", "seed", "stage", "error"]].to_string(index=False))
    summary.reset_index().to_json(path / "summary.json", orient="records", indent=2)
    draw(comparison, judges[-1], path)


def promised(comparison: Comparison, metric: str) -> pd.Series:
    """What the checkpoints kept say of themselves, by seed and method."""
    results = comparison.results
    rows = results[(results["source"] == "promised") & (results["metric"] == metric)]
    return rows.set_index(["seed", "method"])["value"]


def spread(comparison: Comparison, judge: str) -> pd.DataFrame:
    """How methods differ over seeds by a judge: failures count, and not only means."""
    results = comparison.results
    rows = results[(results["source"] == judge) & (results["metric"] == "mean")]
    values = rows.pivot(index="seed", columns="method", values="value")
    table = values.agg(["mean", "std", "min", "max"]).T
    table["below pretrained"] = values.lt(values["pretrained"], axis=0).sum()
    table["promised too much"] = promised(comparison, "mean").unstack().sub(values).mean()
    return table


def against(comparison: Comparison, judge: str) -> pd.DataFrame:
    """Methods less each of those without fine-tuning, paired by seed."""
    columns = {}
    for other in [name for name in NOT_TUNED if name in set(comparison.results["method"])]:
        less = comparison.differences(other).xs((judge, "mean"), level=("source", "metric"))
        columns[f"less {other}"] = less.apply("{0[mean]:.2f} ({0[low]:.2f} to {0[high]:.2f})".format, axis=1)
    return pd.DataFrame(columns)


def choosing(comparison: Comparison, judge: str) -> pd.DataFrame:
    """What each way to choose c and alpha would have taken, and how good that is by the foreign oracle.

    Of each run of a seed some designs may be measured; the others judge the choice.
    """
    designs, by_judge = comparison.designs, promised(comparison, "judge")
    bonus = by_judge[by_judge.index.get_level_values("method").str.startswith((BONUS, "STRL"))]
    rows = []
    for seed, judged in bonus.groupby(level="seed"):
        values = designs[designs["seed"] == seed].groupby("method")[judge].apply(np.asarray)[judged.droplevel(0).index]
        measured = values.map(lambda rewards: rewards[:N_MEASURED].mean())
        true = values.map(lambda rewards: rewards[N_MEASURED:].mean())
        rules = {"highest by the judge": judged.droplevel(0), f"{N_MEASURED} designs measured": measured}
        rules["best in hindsight"] = true
        rows += [(rule, seed, score.idxmax(), true[score.idxmax()]) for rule, score in rules.items()]
    return pd.DataFrame(rows, columns=["rule", "seed", "chosen", judge])


def draw(comparison: Comparison, judge: str, path: Path) -> None:
    """Figure 2, distributions of a judge's rewards by method, and its means over c (Figures 4 and 5)."""
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    RewardDistributionDisplay.from_comparison(comparison, judge).plot().figure_.savefig(path / "figure2.png", dpi=110)
    small = f", alpha = {SMALL_ALPHA}"
    arms = {c: f"{BONUS}, c = {c:g}" for c in ABLATED_C} | {0.1: BONUS}
    arms = {"no penalty": "STRL", **{f"{c:g}": arms[c] for c in sorted(arms)}, "calibrated": CALIBRATED}
    present = {c: name + small for c, name in arms.items() if name + small in set(comparison.results["method"])}
    if len(present) > 1:
        ablation = AblationDisplay.from_comparison(comparison, present, source=judge, name=judge)
        ablation.plot().figure_.savefig(path / "ablation.png", dpi=110)
    plt.close("all")
