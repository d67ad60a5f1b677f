"""The whole job of the command line, from a table of measurements to designs: thin over the estimator."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import gpytorch
import pandas as pd
from torch import nn
from tqdm.auto import tqdm

from braidkit.cli.measured import MEASURED, write_measured
from braidkit.cli.run_directory import RunDirectory
from braidkit.cli.run_files import CHECKPOINT
from braidkit.cli.sequences import PATHS_AT_ONCE
from braidkit.cli.sequences import load_chain as load_sequence_chain
from braidkit.cli.vectors import load_chain as load_vector_chain
from braidkit.datasets.measured import MeasuredDesigns
from braidkit.datasets.picture_table import MeasuredPictures
from braidkit.datasets.table import MeasuredTable
from braidkit.datasets.vector_table import MeasuredVectors
from braidkit.diffusion import DiffusionModel, MaskedLMDiffusion, PipelineDiffusion
from braidkit.evaluation.calibration import CalibrationReport
from braidkit.evaluation.choosing import describe_moved
from braidkit.evaluation.designs import csv_text, design_files, design_table, write_designs
from braidkit.evaluation.displays import RewardDistributionDisplay, TrainingCurveDisplay
from braidkit.evaluation.html_report import report
from braidkit.evaluation.picture_designs import PictureDesigns, image_files, picture_table, write_images
from braidkit.evaluation.rounds import RoundCheck
from braidkit.evaluation.vector_designs import check_names
from braidkit.exceptions import InvalidParameterError, MissingExtraError
from braidkit.finetuning import ConservativeDiffusionFinetuner, DirectSolver
from braidkit.finetuning.saved import MODEL, PRETRAINED, STATE, saved_parts
from braidkit.networks import is_masked_lm_directory
from braidkit.persistence import digest, file_contents, replace_file, saved_digest
from braidkit.rewards import BootstrapReward, CLIPFeatures, GPBonusReward
from braidkit.torch_state import seeded
from braidkit.training import noted_interrupts

Say = Callable[[str], None]
Measured = MeasuredTable | MeasuredVectors | MeasuredPictures
LAST_ROUND = "last_round.csv"
PICTURES = "designs"
# Trajectories of an update of pictures; the paper's 128 take hours on a CPU.
PICTURES_AT_ONCE = 16
# Names of all that a run may leave in its directory, besides its record.
OUTPUTS = (
    *(MODEL, PRETRAINED, STATE, MEASURED),
    *("designs.csv", "designs.fasta", PICTURES, "rewards.png", "training.png", "report.html", LAST_ROUND),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a run; they have the names of the options of ``braidkit design``."""

    target: str
    n: int
    objective: str | None = None
    alpha: float | None = None
    reward: str = "bonus"
    c: float | Literal["calibrated"] | None = None
    pretrained: Path | None = None
    lora_rank: int | None = None
    features: Path | None = None
    max_iter: int | None = None
    template: str | None = None
    limits: dict[str, Any] | None = None
    padding: str | None = None
    columns: str | None = None
    space: dict[str, Any] | None = None
    seed: int = 0
    # These three change no result.
    table: Path | None = None
    device: str = "auto"
    quiet: bool = False

    @property
    def wanted(self) -> str:
        """The quantity to maximise, in words."""
        return self.target if self.objective is None else self.objective

    def measured(self, table: MeasuredDesigns) -> Any:
        """The y of the estimator: the measurements, or a named column for each quantity of an objective."""
        return table.y if self.objective is None else table.columns()

    def as_record(self, chain: DiffusionModel | None = None, embedding: CLIPFeatures | None = None) -> dict[str, Any]:
        """The settings that determine the result, with what pictures are made and seen by, as JSON can hold them."""
        record = dataclasses.asdict(self) | {"pretrained": None}
        record["features"] = None if embedding is None else digest(embedding)
        if chain is not None:
            record["pretrained"] = digest(chain)
        elif self.pretrained is not None:
            language_model = is_masked_lm_directory(self.pretrained)
            contents = digest(file_contents(self.pretrained)) if language_model else saved_digest(self.pretrained)
            record["pretrained"] = contents
        return {name: value for name, value in record.items() if name not in ("table", "device", "quiet")}

    def build_reward(self, embedding: CLIPFeatures | None = None) -> GPBonusReward | BootstrapReward:
        """The reward that was asked for, not yet fitted."""
        if self.reward == "bootstrap" and self.c is not None:
            raise InvalidParameterError("--c belongs to the bonus reward; leave it out with --reward bootstrap.")
        more: dict[str, Any] = {"device": self.device} | ({} if self.c is None else {"c": self.c})
        if embedding is not None:
            more |= embedded(embedding, self.reward, self.seed)
        return BootstrapReward(**more) if self.reward == "bootstrap" else GPBonusReward(**more)


def embedded(embedding: CLIPFeatures, reward: str, seed: int) -> dict[str, Any]:
    """The arguments by which a reward sees pictures through an embedding.

    The bonus is a process on all of it, linear and radial, because the last layer of a network sees little of pictures
    that are unlike the measured ones. A bootstrap has the paper's network (Table 3), whose copies differ.
    """
    if reward == "bonus":
        # A linear kernel has a variance of its own.
        kernel = gpytorch.kernels.LinearKernel() + gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
        return {"features": embedding, "kernel": kernel}
    widths = (embedding.n_features, 256, 64, 16)
    with seeded(seed):
        layers = [part for pair in itertools.pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    return {"features": nn.Sequential(embedding, *layers)}


def warn_of_short_bound(reward: Any, check: dict[str, float], n_rows: int) -> None:
    """Warn where a calibrated bound holds for plainly fewer held-out rows than was asked of it."""
    if getattr(reward, "c", None) != "calibrated":
        return
    # Two standard errors of a share of so many rows, the calibration's own included.
    slack = 2 * (2 * reward.level * (1 - reward.level) / n_rows) ** 0.5
    if check["overall"] < reward.level - slack:
        text = f"the bound was calibrated to hold for {100 * reward.level:g} % of rows, and falls short on unseen ones"
        warnings.warn(text, stacklevel=2)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Print each `warnings.warn` as one line on stderr, also in a quiet run, without its place in the code."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_plainly(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if category is UserWarning:
                tqdm.write(f"warning: {message}", file=sys.stderr)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = show_plainly
        yield


def build_finetuner(
    table: Measured,
    directory: RunDirectory,
    settings: Settings,
    chain: DiffusionModel | None = None,
    embedding: CLIPFeatures | None = None,
) -> ConservativeDiffusionFinetuner:
    """The estimator of a run, checked against the table; nothing is written yet. Pictures bring chain and embedding."""
    for path in (settings.table, settings.pretrained, settings.features):
        if path is not None:
            directory.check_input(path)
    more: dict[str, Any] = {}
    if isinstance(table, MeasuredPictures):
        for folder in {(Path(settings.table or ".").parent / file).parent for file in table.files}:
            directory.check_input(folder)
        more = {"batch_size": PICTURES_AT_ONCE, "space": table.space if chain is None else None}
        if isinstance(chain, PipelineDiffusion):
            more["solver"] = DirectSolver(kl_steps="one", checkpointing=True)
    elif isinstance(table, MeasuredVectors):
        check_names(table.space, [] if settings.objective is None else table.targets)
        chain, more = load_vector_chain(settings.pretrained, table.space), {"space": table.space}
    else:
        chain = load_sequence_chain(settings.pretrained, table.space, settings.lora_rank)
        held = settings.pretrained is None or settings.template or settings.limits
        more = {"space": table.space if held else None}
        more |= {"batch_size": PATHS_AT_ONCE} if isinstance(chain, MaskedLMDiffusion) else {}
    finetuner = ConservativeDiffusionFinetuner(
        chain,
        "auto" if settings.alpha is None else settings.alpha,
        reward=settings.build_reward(embedding),
        objective=settings.objective,
        max_iter=settings.max_iter or "auto",
        checkpoint_dir=directory / CHECKPOINT,
        device=settings.device,
        random_state=settings.seed,
        **more,
    )
    try:
        finetuner.check(table.X, settings.measured(table), **table.told)
    except InvalidParameterError as error:
        if settings.c == "calibrated" and str(error).startswith("c="):
            raise InvalidParameterError(
                f"--c calibrated needs more than {len(table.y):,} different {table.space.designs}: a share of those "
                "that the judge leaves is held out to calibrate on. Leave it out, or give --c a number."
            ) from error
        raise
    return finetuner.set_params(verbose=int(not settings.quiet))  # not before: `fit` says again what it reads


@plain_warnings()
def run_job(
    finetuner: ConservativeDiffusionFinetuner,
    table: Measured,
    directory: RunDirectory,
    settings: Settings,
    say: Say,
    last_round: RoundCheck | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fit, draw designs and write everything but the results into a directory that was claimed for this run.

    Returns
    -------
    designs : DataFrame
        The table that was written.
    results : dict
        What the record is to hold.
    """
    y = settings.measured(table)
    with directory.timed("fit"), noted_interrupts() as interrupts:
        finetuner.fit(table.X, y, **table.told)
    n_held_out = round(finetuner.validation_fraction * len(table.y))
    warn_of_short_bound(finetuner.reward_, finetuner.reward_check_, n_held_out)
    with directory.timed("designs"):
        for name, write in saved_parts(finetuner).items():
            with directory.writing(name) as path:
                write(path)
        made: pd.DataFrame | PictureDesigns
        if isinstance(table, MeasuredPictures):
            made = picture_table(
                finetuner, table.X, y, n_designs=settings.n, files=table.files, random_state=settings.seed
            )
            designs, files = made.table, ["designs.csv", write_picture_designs(made, directory)]
        else:
            with directory.writing(MEASURED) as path:
                write_measured(table, path)
            made = design_table(finetuner, table.X, y, n_designs=settings.n, random_state=settings.seed)
            if isinstance(table, MeasuredVectors):
                made["nearest"] = [table.places[i] for i in made["nearest"]]
            with contextlib.ExitStack() as held:
                files = design_files(made)
                for name in files:
                    held.enter_context(directory.writing(name))
                write_designs(made, directory.path)
            designs = made
        if last_round is not None:
            with directory.writing(LAST_ROUND) as target, replace_file(target) as path:
                path.write_text(csv_text(last_round.table), encoding="utf-8")
    out = directory.path
    say(f"looked at {designs.attrs['n_drawn']:,} candidates, {designs.attrs['n_candidates']:,} of them different")
    moved = designs.attrs["moved"]
    if moved.get("any") or {*moved} - {"any", "padding"}:  # padding is no limit that anyone asked for
        say(describe_moved(moved, designs.attrs["n_drawn"]))
    say(f"{len(designs):,} designs -> {', '.join(f'{out}/{name}' for name in files)}   model -> {out}/model/")
    if finetuner.model_.draws_slowly:
        say("drawing designs for the report")
    with directory.timed("report"):
        try:
            rewards = draw_figures(finetuner, table, directory, settings)
            with directory.writing("report.html") as path:
                report(
                    finetuner,
                    table.X,
                    y,
                    path=path,
                    designs=made,
                    calibration=CalibrationReport.from_estimator(
                        finetuner, table.X, y, **table.told, random_state=settings.seed
                    ),
                    rewards=rewards,
                    name=settings.wanted,
                    source="; ".join([table.describe(), *table.advice()]),
                    last_round=last_round,
                    random_state=settings.seed,
                )
            say(f"report -> {out}/report.html   figures -> {out}/rewards.png, {out}/training.png")
        except MissingExtraError as error:
            say(f"report and figures left out: {error}")
    results = {
        "table": table.describe(),
        "reward": finetuner.reward_check_,
        "n_iter": finetuner.n_iter_,
        "stopped": bool(interrupts),
        "best_iter": finetuner.best_iter_,
        "alpha": finetuner.alpha_ if math.isfinite(finetuner.alpha_) else None,
        "over_optimising_since": finetuner.over_optimising_since_,
        "history": finetuner.history_,
        "designs": designs[["mean", "lower", "judge", *{"kl", "rarity"} & {*designs}]].median().to_dict(),
        "last_round": None if last_round is None else [*filter(None, [last_round.warning]), *last_round.sentences()],
        "choice": designs.attrs | {"n_designs": len(designs)},
    }
    return designs, results


def write_picture_designs(designs: PictureDesigns, directory: RunDirectory) -> str:
    """Write ``designs.csv``, with the files' names, and the pictures; gives their folder's name."""
    with directory.writing(PICTURES, members=image_files(len(designs.images))) as folder:
        folder.mkdir(exist_ok=True)
        names = write_images(designs.images, folder)
    table = designs.table.copy()
    table.insert(1, "file", [f"{PICTURES}/{name}" for name in names])
    with directory.writing("designs.csv") as target, replace_file(target) as path:
        path.write_text(csv_text(table), encoding="utf-8")
    return f"{PICTURES}/"


def draw_figures(
    finetuner: ConservativeDiffusionFinetuner,
    table: Measured,
    directory: RunDirectory,
    settings: Settings,
) -> RewardDistributionDisplay:
    """Write ``rewards.png`` and ``training.png``; gives the former."""
    rewards = RewardDistributionDisplay.from_estimator(
        finetuner,
        table.X,
        settings.measured(table),
        random_state=settings.seed,
        name=settings.wanted,
    )
    save_figure(rewards, directory, "rewards.png")
    save_figure(TrainingCurveDisplay.from_estimator(finetuner, name=settings.wanted), directory, "training.png")
    return rewards


def save_figure(display: RewardDistributionDisplay | TrainingCurveDisplay, directory: RunDirectory, name: str) -> None:
    """Draw a display, with or without a screen, and write it; its figure is closed again."""
    figure = display.plot().figure_  # or an error that says how to get matplotlib
    from matplotlib.pyplot import close

    with directory.writing(name) as target, replace_file(target) as path:
        figure.savefig(path, dpi=150, metadata={"Software": None})
    close(figure)
