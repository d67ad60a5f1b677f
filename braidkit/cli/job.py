"""The whole job of the command line, from a table of measurements to designs: thin over the estimator."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from braidkit.cli.run_directory import RunDirectory
from braidkit.datasets.table import MeasuredTable
from braidkit.diffusion import DiffusionModel
from braidkit.evaluation.designs import design_table, write_designs
from braidkit.evaluation.displays import RewardDistributionDisplay, TrainingCurveDisplay
from braidkit.exceptions import InvalidParameterError, MissingExtraError
from braidkit.finetuning import ConservativeDiffusionFinetuner
from braidkit.persistence import replace_file
from braidkit.rewards import BootstrapReward, GPBonusReward
from braidkit.rewards.calibration import lower_coverage

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a person chooses for a run; names as the options of ``braidkit design``."""

    target: str
    n: int
    alpha: float = 1e-3
    reward: str = "bonus"
    c: float | Literal["calibrated"] | None = None
    pretrained: Path | None = None
    max_iter: int | None = None
    seed: int = 0
    # These two change no result.
    device: str = "auto"
    quiet: bool = False

    def as_record(self) -> dict[str, Any]:
        """What determines the result, besides the data, as JSON holds it."""
        record = dataclasses.asdict(self) | {
            "pretrained": None if self.pretrained is None else str(self.pretrained.resolve())
        }
        return {name: value for name, value in record.items() if name not in ("device", "quiet")}

    def build_reward(self) -> GPBonusReward | BootstrapReward:
        """The reward that was asked for, not yet fitted."""
        if self.reward == "bootstrap" and self.c is not None:
            raise InvalidParameterError("--c belongs to the bonus reward; leave it out with --reward bootstrap.")
        if self.reward == "bootstrap":
            return BootstrapReward(device=self.device)
        return GPBonusReward(device=self.device) if self.c is None else GPBonusReward(c=self.c, device=self.device)


class NarratedFinetuner(ConservativeDiffusionFinetuner):
    """A finetuner that tells `say` how its pretrained model and its reward came about."""

    say: Say
    reward_summary_: dict[str, float]

    def _pretrained(self, *args: Any) -> DiffusionModel:
        if self.pretrained is None:
            self.say("pretrained: none given, training a simplex diffusion model on the sequences")
        return super()._pretrained(*args)

    def _fit_reward(self, reward: Any, X: np.ndarray, y: np.ndarray, seed: int) -> Any:
        # The reward comes first, then the judge, on rows that the reward has not seen.
        if hasattr(self, "reward_"):
            self.reward_summary_ = {"held_out_r2": self.reward_.score(X, y)} | lower_coverage(self.reward_, X, y)
            for line in describe_reward(self.reward_, self.reward_summary_, len(y)):
                self.say(line)
        return super()._fit_reward(reward, X, y, seed)


def describe_reward(reward: Any, summary: dict[str, float], n_rows: int) -> list[str]:
    """How good a fitted reward and its bound are on held-out rows, and a warning where more was asked of the bound."""
    c = getattr(reward, "c_", None)
    bound = "lower bound" if c is None else f"lower bound (c = {c:.3g})"
    lines = [
        f"reward: held-out R2 {summary['held_out_r2']:.2f}; {bound} holds for {100 * summary['overall']:.1f} % of "
        f"held-out rows ({100 * summary['top_decile']:.0f} % of the top decile)"
    ]
    if getattr(reward, "c", None) == "calibrated":
        # Two standard errors of a share of so many rows, the calibration's own included.
        slack = 2 * (2 * reward.level * (1 - reward.level) / n_rows) ** 0.5
        if summary["overall"] < reward.level - slack:
            lines.append(f"warning: the bound was calibrated to hold for {100 * reward.level:g} %, and falls short")
    return lines


def run_job(
    table: MeasuredTable, directory: RunDirectory, settings: Settings, say: Say
) -> tuple[ConservativeDiffusionFinetuner, pd.DataFrame, dict[str, Any]]:
    """Fit, draw designs and write everything but the results into a directory that was opened for this run.

    Returns
    -------
    finetuner : fitted ConservativeDiffusionFinetuner
    designs : DataFrame
        The table that was written.
    results : dict
        What the record is to hold.
    """
    finetuner = NarratedFinetuner(
        None if settings.pretrained is None else DiffusionModel.from_pretrained(settings.pretrained),
        settings.alpha,
        reward=settings.build_reward(),
        space=table.space if settings.pretrained is None else None,
        max_iter=settings.max_iter or "auto",
        checkpoint_dir=directory / "checkpoint",
        device=settings.device,
        random_state=settings.seed,
        verbose=int(not settings.quiet),
    )
    finetuner.say = say
    with directory.timed("fit"):
        finetuner.fit(table.sequences, table.y)
    with directory.timed("designs"):
        finetuner.model_.save_pretrained(directory / "model")
        if settings.pretrained is None:
            finetuner.pretrained_.save_pretrained(directory / "pretrained")
        designs = design_table(finetuner, table.sequences, table.y, settings.n, random_state=settings.seed)
        write_designs(designs, directory.path)
    out = directory.path
    say(f"{len(designs):,} designs -> {out}/designs.csv, {out}/designs.fasta   model -> {out}/model/")
    if len(designs) < settings.n:
        say("warning: the model makes no more different designs than these; a larger --alpha keeps it more diverse")
    with directory.timed("figures"):
        try:
            draw_figures(finetuner, table, directory, settings)
            say(f"figures -> {out}/rewards.png, {out}/training.png")
        except MissingExtraError as error:
            say(f"figures left out: {error}")
    results = {
        "table": table.describe(),
        "reward": finetuner.reward_summary_,
        "n_iter": finetuner.n_iter_,
        "best_iter": finetuner.best_iter_,
        "history": finetuner.history_,
        "designs": designs[["mean", "lower", "judge", "kl"]].median().to_dict(),
    }
    return finetuner, designs, results


def draw_figures(
    finetuner: ConservativeDiffusionFinetuner, table: MeasuredTable, directory: RunDirectory, settings: Settings
) -> None:
    """Write ``rewards.png`` and ``training.png``."""
    rewards = RewardDistributionDisplay.from_estimator(
        finetuner, table.sequences, table.y, random_state=settings.seed, name=settings.target
    )
    save_figure(rewards, directory / "rewards.png")
    save_figure(TrainingCurveDisplay.from_estimator(finetuner, name=settings.target), directory / "training.png")


def save_figure(display: RewardDistributionDisplay | TrainingCurveDisplay, target: Path) -> None:
    """Draw a display, with or without a screen, and write it."""
    figure = display.plot().figure_
    with replace_file(target) as path:
        figure.savefig(path, dpi=150)
