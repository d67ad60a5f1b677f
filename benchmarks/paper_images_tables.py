"""Tables and figures of the experiment on pictures: Table 5, Figures 3 and 8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from paper_images_world import aesthetic
from scipy.stats import t as student

from braidkit.evaluation.displays import ImageGridDisplay
from braidkit.oracles import PromptCheck

FIGURES = ["mean", "median", "min", "max", "invalid", "aesthetic", "predicted", "lower", "judge", "judge's error", "kl"]
KNOWN = {"predicted mean": "mean", "lower bound": "lower", "judge": "judge"}  # what a run itself knows
Results = dict[int, dict[str, Any]]  # of a seed, by method


def judged(images: np.ndarray, prompts: list[str], check: PromptCheck) -> tuple[np.ndarray, np.ndarray]:
    """The reward of pictures, 0 where the prompt is not seen, and whether it is seen."""
    seen = np.asarray(check.shows(images, prompts)) > 0
    return np.where(seen, aesthetic(images), 0.0), seen


def table(results: Results, prompts: list[str], check: PromptCheck) -> pd.DataFrame:
    """A row a seed, method and checkpoint: the reward's mean, min and max, and the share of pictures that fail."""
    rows = []
    for seed, methods in results.items():
        for name, result in methods.items():
            for k, iteration in enumerate(result["iteration"]):
                reward, seen = judged(result["images"][k], prompts, check)
                rows.append(
                    {
                        "method": name,
                        "seed": seed,
                        "update": int(iteration),
                        "kept": bool(iteration == result["kept"]),
                        "mean": reward.mean(),
                        "median": np.median(reward),
                        "min": reward.min(),
                        "max": reward.max(),
                        "invalid": 100 * (1 - seen.mean()),
                        "aesthetic": aesthetic(result["images"][k]).mean(),
                        "predicted": result["mean"][k].mean(),
                        "lower": result["lower"][k].mean(),
                        "judge": result["judge"][k].mean(),
                        "judge's error": float(result["judge's error"][k]),
                        "kl": result["kl"][k],
                    }
                )
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame) -> str:
    """Means over seeds with half of their 95 % intervals (Student's t), by method and checkpoint, and as kept."""
    kept = frame[frame.kept & (frame.groupby(["method", "seed"])["update"].transform("max") > 0)]
    rows = []
    for names, group in [
        *frame.groupby(["method", "update"], sort=False),
        *[((name, "kept"), group) for name, group in kept.groupby("method", sort=False)],
    ]:
        n = len(group)
        half = student.ppf(0.975, n - 1) / n**0.5 if n > 1 else np.nan
        row = {"method": names[0], "update": names[1], "seeds": n}
        for column in FIGURES:
            values = group[column]
            row[column] = f"{values.mean():.2f} ± {half * values.std():.2f}"
        rows.append(row)
    return pd.DataFrame(rows).to_string(index=False)


def figures(results: Results, prompts: list[str], check: PromptCheck, limit: float, out: Path) -> None:
    """Figure 8's grid of the first seed, and Figure 3b's curves over all seeds."""
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    shown = np.arange(10)
    groups, numbers = {}, {}
    for name, result in next(iter(results.values())).items():
        n = len(result["iteration"])
        middle = [1, 2] if name in ("STRL", "BRAID-Bonus") else []
        for k in [0] * (name == "STRL") + middle + [n - 1]:
            label = f"{name}, update {result['iteration'][k]}" if n > 1 else name
            label = label if k or n == 1 else "pretrained"
            groups[label] = result["images"][k][shown]
            numbers[label] = judged(result["images"][k], prompts, check)[0][shown]
    display = ImageGridDisplay(groups, numbers, name="reward; 0 where the animal of the prompt is not seen").plot()
    for column, prompt in enumerate(prompts[:10]):
        animal = prompt.split()[-1]
        display.ax_.text(column + 0.47, 0.05, animal, ha="center", va="bottom", fontsize="small")
    display.figure_.savefig(out / "grid.png", dpi=70, bbox_inches="tight")
    _curves(results, prompts, check, limit, out / "curves.png")
    plt.close("all")


def _curves(results: Results, prompts: list[str], check: PromptCheck, limit: float, path: Path) -> None:
    """Reward, aesthetic and what a run knows, by updates: means over seeds, and bars of their standard errors."""
    import matplotlib.pyplot as plt

    names = [name for name, result in next(iter(results.values())).items() if len(result["iteration"]) > 1]
    columns = min(len(names), 4)
    figure, axes = plt.subplots(
        -(-len(names) // columns), columns, figsize=(3.2 * columns, 3 * -(-len(names) // columns)),
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    for ax, name in zip(axes.flat, names, strict=False):
        runs = [methods[name] for methods in results.values() if name in methods]
        curves = {label: [run[key].mean(axis=1) for run in runs] for label, key in KNOWN.items()}
        curves["aesthetic"] = [[aesthetic(images).mean() for images in run["images"]] for run in runs]
        curves["reward: 0 if the animal is not seen"] = [
            [judged(images, prompts, check)[0].mean() for images in run["images"]] for run in runs
        ]
        for label, values in curves.items():
            error = np.std(values, axis=0, ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else None
            style = {"linestyle": "--"} if label in KNOWN else {"linewidth": 2}
            ax.errorbar(runs[0]["iteration"], np.mean(values, axis=0), error, marker="o", ms=3, label=label, **style)
        ax.axhline(limit, color="grey", linestyle=":", label="highest measured")
        ax.set_title(name, fontsize="medium")
        ax.set_xlabel("updates")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=80)
