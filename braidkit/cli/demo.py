"""The demonstration: the whole job on generated 5'UTRs, judged by their exact reward at the end."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from braidkit.cli.job import OUTPUTS, Say, Settings, build_finetuner, run_job, save_figure
from braidkit.cli.run_directory import RunDirectory, why_not_resumed
from braidkit.datasets import make_utr, offline_split
from braidkit.datasets.split import OfflineSplit
from braidkit.datasets.table import read_table
from braidkit.evaluation.displays import RewardDistributionDisplay
from braidkit.exceptions import MissingExtraError
from braidkit.finetuning import ConservativeDiffusionFinetuner
from braidkit.oracles import UTRLandscape
from braidkit.parameters import resolve_device
from braidkit.persistence import replace_file

N_ROWS = 40_000
N_DESIGNS = 200
# A KL heavy enough for designs that differ and stay valid, and updates that fit into minutes.
ALPHA, MAX_ITER = 0.1, 40
# Files of the demonstration alone.
TABLE, TRUTH = "measured.csv", "true_rewards.png"
REWARD = "mean ribosome load"
BEST = "best 5 % of offline data"


def run_demo(out: Path, *, seed: int, device: str, quiet: bool, say: Say, n_rows: int = N_ROWS) -> pd.DataFrame | None:
    """Generate measurements, hide the best, design from the rest, and print the true reward of the designs.

    Returns
    -------
    truth : DataFrame, or None if Ctrl-C ended the fine-tuning
        Columns "mean", "median", "5 %", "95 %" (ribosomes per transcript) and "valid" (share); one row for each group
        of sequences.
    """
    resolve_device(device)  # a wrong one is refused before any work
    settings = Settings(
        target="load", n=N_DESIGNS, alpha=ALPHA, max_iter=MAX_ITER, seed=seed, device=device, quiet=quiet
    )
    record = {"command": "demo", "rows": n_rows} | settings.as_record()
    directory = RunDirectory(out, (*OUTPUTS, TABLE, TRUTH), can_overwrite=False)
    with directory.claimed(record, overwrite=_is_another_demo(directory, record)) as resumed:
        X, y = make_utr(n_rows, random_state=seed)
        split = offline_split(X, y, random_state=seed)
        say(
            f"demo: {n_rows:,} generated 5'UTRs with noisy measurements of a known {REWARD}; the lower 60 % of one "
            f"half, {len(split.X_offline):,} of them, are the offline data -> {out}/{TABLE}"
        )
        if resumed:
            say(f"going on with the unfinished run in {out}")
        with directory.writing(TABLE) as target, replace_file(target) as path:
            frame = pd.DataFrame({"sequence": split.X_offline, settings.target: split.y_offline})
            frame.to_csv(path, index=False, float_format="%.4f")
        table = read_table(directory / TABLE, sequence="sequence", target=settings.target)
        say(table.describe())
        finetuner = build_finetuner(table, directory, settings)
        designs, results = run_job(finetuner, table, directory, settings, say)
        if results["stopped"]:
            directory.pause(**results)
            return None
        truth = _judge(finetuner, designs, split, directory, say)
        directory.finish(**results, truth=truth.to_dict(orient="index"))
    return truth


def _judge(
    finetuner: ConservativeDiffusionFinetuner,
    designs: pd.DataFrame,
    split: OfflineSplit,
    directory: RunDirectory,
    say: Say,
) -> pd.DataFrame:
    """The true reward of designs and of what they are compared with, printed and drawn."""
    best = split.y_offline >= np.quantile(split.y_offline, 0.95)
    groups = {
        "offline data": split.X_offline,
        BEST: split.X_offline[best],
        "pretrained": finetuner.pretrained_.sample(1000, finetuner.random_state),
        "designs": designs["sequence"].tolist(),
    }
    landscape = UTRLandscape()
    rewards = {group: landscape.predict(rows) for group, rows in groups.items()}
    truth = pd.DataFrame({group: _summary(reward) for group, reward in rewards.items()}).T
    truth["valid"] = [landscape.is_valid(rows).mean() for rows in groups.values()]
    say(f"true {REWARD}, which no model has seen:")
    say(truth.to_string(float_format="{:.2f}".format))
    display = RewardDistributionDisplay.from_values(
        {group: reward for group, reward in rewards.items() if group != BEST},
        name=f"true {REWARD}",
        reference=rewards[BEST].mean(),
        reference_name=f"mean of the {BEST}",
    )
    with contextlib.suppress(MissingExtraError):  # the job has said so
        save_figure(display, directory, TRUTH)
        say(f"figure -> {directory.path}/{TRUTH}")
    return truth


def _is_another_demo(directory: RunDirectory, record: dict[str, Any]) -> bool:
    """Whether the directory holds a demo that is finished, or that this one cannot go on from."""
    before = directory.read()
    of_a_demo = before.get("settings", {}).get("command") == "demo"
    return of_a_demo and (before["finished"] or why_not_resumed(before, record) is not None)


def _summary(reward: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(reward, [0.05, 0.5, 0.95])
    return {"mean": reward.mean(), "median": middle, "5 %": low, "95 %": high}
