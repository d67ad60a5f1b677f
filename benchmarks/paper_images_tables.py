"""Tables and figures of the experiment on pictures: Table 5, Figures 3 and 8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from paper_images_world import aesthetic

from braidkit.evaluation.displays import ImageGridDisplay
from braidkit.oracles import PromptCheck

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
                        "min": reward.min(),
                        "max": reward.max(),
                        "invalid": 100 * (1 - seen.mean()),
                        "aesthetic": aesthetic(result["images"][k]).mean(),
                        "predicted": result["mean"][k].mean(),
                        "lower": result["lower"][k].mean(),
                        "judge": result["judge"][k].mean(),
                        "kl": result["kl"][k],
                    }
                )
    return pd.DataFrame(rows)


def figures(results: Results, prompts: list[str], check: PromptCheck, score: np.ndarray, out: Path) -> None:
    """Figure 8's grid and Figure 3b's curves, of the first seed."""
    import matplotlib.pyplot as plt

    matplotlib.use("Agg")
    methods = results[0]
    shown = np.arange(10)
    groups, numbers = {}, {}
    for name, result in methods.items():
        for k, iteration in enumerate(result["iteration"]):
            if iteration == 0 and name not in ("STRL", "best of 4", "Guidance"):
                continue
            label = "pretrained" if iteration == 0 and name == "STRL" else name
            label += f", update {iteration}" if iteration else ""
            groups[label] = result["images"][k][shown]
            numbers[label] = judged(result["images"][k], prompts, check)[0][shown]
    display = ImageGridDisplay(groups, numbers, name="reward; 0 where the animal of the prompt is not seen").plot()
    for column, prompt in enumerate(prompts[:10]):
        display.ax_.text(column + 0.47, 0.05, prompt, ha="center", va="bottom", fontsize="small")
    display.figure_.savefig(out / "grid.png", dpi=80)
    followed = {name: result for name, result in methods.items() if len(result["iteration"]) > 1}
    figure, axes = plt.subplots(1, len(followed), figsize=(4 * len(followed), 3.2), sharey=True, layout="constrained")
    for ax, (name, result) in zip(np.atleast_1d(axes), followed.items(), strict=True):
        truth = [judged(images, prompts, check)[0].mean() for images in result["images"]]
        for label, values in (
            ("predicted mean", result["mean"].mean(axis=1)),
            ("lower bound", result["lower"].mean(axis=1)),
            ("judge", result["judge"].mean(axis=1)),
            ("reward", truth),
        ):
            ax.plot(result["iteration"], values, marker="o", label=label)
        ax.axhline(np.quantile(score, 0.7), color="grey", linestyle=":", label="largest measurement")
        ax.set_title(name)
        ax.set_xlabel("updates")
    np.atleast_1d(axes)[0].legend(fontsize="small")
    figure.savefig(out / "curves.png", dpi=100)
    plt.close("all")
