"""One page about a run: its data, its designs, and how far to trust them. The template holds the page's text."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from braidkit import __version__
from braidkit.evaluation.arguments import check_fitted, check_table, read_measured
from braidkit.evaluation.calibration import CalibrationReport
from braidkit.evaluation.designs import design_table
from braidkit.evaluation.displays import (
    CalibrationDisplay,
    RewardDistributionDisplay,
    TrainingCurveDisplay,
)
from braidkit.evaluation.displays._drawing import pyplot
from braidkit.evaluation.metrics import gc_content
from braidkit.evaluation.picture_designs import PictureDesigns
from braidkit.evaluation.report_parts import (
    Picture,
    cells_of,
    figure_of,
    gallery,
    picture_designs,
    sequence_designs,
    vector_designs,
)
from braidkit.evaluation.rounds import RoundCheck
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_random_state
from braidkit.persistence import read_path, replace_file

# A longer setting is cut.
_MAX_SETTING = 300
# Parameters that change no result, or that name a place on the machine.
_NOT_SHOWN = ("checkpoint_dir", "device", "n_jobs", "verbose")

LIMITS = [
    "Every number here except the measurements is a prediction. The reward, its bound and the judge are fitted to the "
    "same assay. An error that they share, such as a blind spot of the assay, does not show on this page.",
    "The designs are the best of many predictions, so their prediction errors are mostly upwards. Expect them to "
    "measure below their predicted mean.",
    "The lower bound is tested on rows like the data. Designs differ from the data, and the coverage may not hold.",
    "The path KL and the edit distance say how far a design lies from the pretrained model and from the data. Do not "
    "trust a prediction far from both, even if its penalty is small.",
    "Order controls with the designs: some of the best measured sequences, and shuffled designs.",
]
VECTOR_LIMITS = [
    *LIMITS[:3],
    "The rarity and the distance say how far a design lies from the pretrained model and from the data. Do not trust "
    "a prediction far from both, even if its penalty is small.",
    "Measure some of the best rows again beside the designs.",
]
PICTURE_LIMITS = [
    *LIMITS[:3],
    "The path KL says how far a design lies from the pretrained model. The nearest measured picture is that of the "
    "most similar pixels: a small distance may be a copy, and a large one means little.",
    "No number here says whether a picture shows what it is to show. Look at the pictures, and have some of the best "
    "measured ones scored again beside them.",
]


def report(
    estimator: Any,
    X: Any = None,
    y: Any = None,
    *,
    path: str | os.PathLike[str],
    designs: pd.DataFrame | PictureDesigns | None = None,
    calibration: CalibrationReport | None = None,
    rewards: RewardDistributionDisplay | None = None,
    name: str = "reward",
    title: str = "braidkit: report of a run",
    source: str | None = None,
    last_round: RoundCheck | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> None:
    """Write one self-contained HTML page about a fitted estimator. It refers to nothing outside itself.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
    X : designs, optional
        The designs that the estimator was fitted on. Without X and y the page has no data, calibration or distances.
    y : array-like of shape (n_samples,), optional
        Measurements of X.
    path : path-like
        The file to write. An existing file is replaced when the new one is complete.
    designs : DataFrame or PictureDesigns, optional
        With "mean", "lower" and the column "sequence", or those of vectors, as `design_table` and `select` give. By
        default, of sequences and vectors, a `design_table` of 100. Of pictures, as `picture_table` gives.
    calibration : CalibrationReport, optional
        By default made from the estimator, X and y. This fits the reward once more.
    rewards : RewardDistributionDisplay, optional
        By default made from the estimator, X and y. This draws designs from both chains.
    name : str, default="reward"
        The measured quantity, with its unit.
    title : str
    source : str, optional
        Where the data came from, in one line.
    last_round : RoundCheck, optional
        What designs of an earlier round promised, and what was measured of them.
    random_state : int, RandomState or None
        For everything that is drawn for the page.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed. Raised before any work.
    InvalidParameterError
        If only one of X and y is given, `path` is no file name, or `designs` lacks a column.

    Examples
    --------
    >>> from braidkit.evaluation import report
    >>> report(finetuner, X, y, path="report.html", name="ribosome load")  # doctest: +SKIP
    """
    pyplot()
    check_fitted(estimator, "model_", "pretrained_", "reward_", "judge_", "history_", "space_")
    path = _check_path(path)
    if (X is None) != (y is None):
        raise InvalidParameterError("X and y belong together; pass both, or neither.")
    pictures = designs if isinstance(designs, PictureDesigns) else None
    table = designs.table if isinstance(designs, PictureDesigns) else designs
    if table is not None:
        texts = ("sequence",) if estimator.space_.alphabet is not None else ()
        check_table(table, "designs", texts=texts, numbers=("mean", "lower"))
    if calibration is not None and not isinstance(calibration, CalibrationReport):
        raise InvalidParameterError(f"calibration must be a CalibrationReport; got {calibration!r:.60}.")
    if rewards is not None and not isinstance(rewards, RewardDistributionDisplay):
        raise InvalidParameterError(f"rewards must be a RewardDistributionDisplay; got {rewards!r:.60}.")
    if not all(isinstance(text, str) for text in (name, title)):
        raise InvalidParameterError(f"name and title must be texts; got {name!r} and {title!r}.")
    rng = check_random_state(random_state)
    sequences, vectors = estimator.space_.alphabet is not None, estimator.space_.has_columns
    measured: Any = None
    values: np.ndarray | None = None
    if X is not None:
        measured, values = read_measured(X, y, estimator)
        calibration = calibration or CalibrationReport.from_estimator(estimator, measured, y, random_state=rng)
    if table is None and (sequences or vectors) and measured is not None:
        table = design_table(estimator, measured, y, n_designs=100, random_state=rng)

    context = {
        "title": title,
        "story": _story(estimator, table, values),
        "warnings": [] if table is None else table.attrs.get("warnings", []),
        "data": None if values is None else _data(estimator, measured, values, name, source),
        "last_round": None
        if last_round is None
        else {"warning": last_round.warning, "notes": last_round.sentences(), "table": cells_of(last_round.table)},
        "fine_tuning": _fine_tuning(estimator, measured, y, name, rewards, random_state),
        "designs": picture_designs(pictures, name)
        if pictures is not None
        else sequence_designs(estimator, table, measured, y, name, rng)
        if sequences
        else vector_designs(estimator, table, measured, y, name)
        if vectors
        else None,
        "gallery": gallery(estimator, measured, y, name, rng) if estimator.space_.has_pixels else None,
        "calibration": None if calibration is None else _calibration(calibration),
        "limits": PICTURE_LIMITS if estimator.space_.has_pixels else VECTOR_LIMITS if vectors else LIMITS,
        "settings": _settings(estimator),
        "version": __version__,
    }
    page = _template().render(context)
    with replace_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of Python, of braidkit and of the packages that its results depend on; builds of a host left out."""
    others = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "scikit-learn", "gpytorch")}
    found = {"python": platform.python_version(), "braidkit": __version__} | others
    return {name: version.partition("+")[0] for name, version in found.items()}


def _template() -> jinja2.Template:
    """The page, with every value escaped."""
    loader = jinja2.PackageLoader("braidkit.evaluation")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("report.html")


def _check_path(path: Any) -> str:
    """The path as a string; refused if it cannot be that of a file."""
    if path in ("", b"") or (isinstance(path, (str, os.PathLike)) and os.path.isdir(path)):
        raise InvalidParameterError(f'path must be the name of a file, such as "report.html"; got {path!r}.')
    return os.fspath(read_path("path", path))


def _story(estimator: Any, designs: pd.DataFrame | None, y: np.ndarray | None) -> list[str]:
    """The run in a few sentences."""
    history, best = estimator.history_, estimator.best_iter_
    picked = "oracle" if "oracle" in history else "judge"
    kept = history["iteration"].index(best)
    check = estimator.reward_check_
    before, there, kl = history[picked][0], history[picked][kept], history["kl"][kept]
    reason = "its designs score highest by the oracle"
    if picked == "judge":
        reason = "its designs are best by the objective, among those that the judge does not find clearly worse"
    story = [
        f"On measurements that it never saw, the reward has R2 {check['r2']:.2f}. Its lower bound holds for "
        f"{100 * check['overall']:.0f} % of them, and for {100 * check['top_decile']:.0f} % of those that it predicts "
        "highest.",
        f"Fine-tuning did {estimator.n_iter_:,} updates. The checkpoint of update {best:,} was kept: {reason}.",
        f"The {picked} scores its designs {there:.3g} and those of the pretrained model {before:.3g}. The path KL "
        f"between the two models is {kl:.3g} nats.",
    ]
    parts = {name[3:]: value for name, value in check.items() if name.startswith("r2_")}
    if parts:
        story.append(
            f"The objective is {estimator.objective}. On those measurements the reward of each quantity has R2: "
            + ", ".join(f"{name} {value:.2f}" for name, value in parts.items())
            + "."
        )
    if estimator.over_optimising_since_ is not None:
        risen, column = ("lower bound", "lower") if estimator._maximises == "lower" else ("mean", "mean")
        story.append(
            f"After update {estimator.over_optimising_since_:,} the run over-optimised: the {risen} went on rising, "
            f"to {history[column][-1]:.3g}, and the {picked} fell to {history[picked][-1]:.3g}, beyond its error."
        )
    if estimator.checked_reward_ is not estimator.reward_:
        story.append(
            "Then the reward learned from all rows, and the model was fitted to it again at alpha "
            f"{estimator.alpha_:.3g}. The designs are of that model."
        )
    if designs is not None and len(designs):
        looked = designs.attrs.get("n_candidates")
        line = f"{len(designs):,} designs" + (f", chosen from {looked:,} different candidates" if looked else "")
        line += f": median predicted mean {designs['mean'].median():.3g}, lower bound {designs['lower'].median():.3g}"
        story.append(line + (f"; the best measurement is {y.max():.3g}." if y is not None else "."))
        flagged = int((designs["flags"] != "").sum()) if "flags" in designs else 0
        if flagged:
            story.append(f"{flagged:,} of them have a flag. Read the column of flags before you order.")
    return story


def _data(estimator: Any, X: Any, y: np.ndarray, name: str, source: str | None) -> dict[str, str]:
    """Names and values that describe the measurements."""
    low, middle, high = np.quantile(y, [0.05, 0.5, 0.95])
    data = {"source": source} if source else {}
    data |= {
        "rows": f"{len(y):,}",
        "design space": estimator.space_.in_words() if estimator.space_.has_columns else str(estimator.space_),
        name: f"5 / 50 / 95 %: {low:.3g} / {middle:.3g} / {high:.3g}; from {y.min():.3g} to {y.max():.3g}",
        "rows of the judge": f"{len(estimator.judge_rows_):,}",
    }
    if estimator.space_.nucleotides:
        low, middle, high = np.quantile(gc_content(X), [0.05, 0.5, 0.95])
        data["share of G and C"] = f"5 / 50 / 95 %: {low:.2f} / {middle:.2f} / {high:.2f}"
    return data


def _fine_tuning(
    estimator: Any, X: Any, y: Any, name: str, rewards: RewardDistributionDisplay | None, random_state: Any
) -> list[Picture]:
    """Curves of the run, and the rewards before and after it."""
    pictures = [
        figure_of(
            TrainingCurveDisplay.from_estimator(estimator, name=name),
            "Training curves",
            "Averages over designs at each evaluation. Fine-tuning sees the reward's mean and lower bound; it does not "
            "see the judge. A rising bound with a falling judge means over-optimisation. The lower panel shows the KL "
            "to the pretrained model along the path.",
        )
    ]
    if X is not None:
        pictures.append(
            figure_of(
                rewards
                or RewardDistributionDisplay.from_estimator(estimator, X, y, random_state=random_state, name=name),
                "Distributions of the reward",
                "The judge predicts all three groups, so they differ by the designs alone. Line: 5 to 95 %. "
                "Dot: median.",
            )
        )
    return pictures


def _calibration(calibration: CalibrationReport) -> dict[str, Any]:
    """Coverage as a picture, in words and as a table."""
    picture = figure_of(
        CalibrationDisplay.from_report(calibration),
        "Coverage of the lower bound",
        "Share of rows, never seen by the reward, for which the bound holds, with 95 % intervals. Backtest: the reward "
        "fitted below the 95 % quantile of the measurements and checked above it. The bound may hold there only "
        "because the reward knows nothing about such rows, so look at the orange marks.",
    )
    table = calibration.coverage[calibration.coverage["group"] == "all"].drop(columns="group")
    return {
        "warnings": calibration.warnings,
        "picture": picture,
        "notes": calibration.notes,
        "table": cells_of(table),
    }


def _settings(estimator: Any) -> dict[str, str]:
    """Every parameter of the estimator, and of the objects that it holds, that bears on the result."""
    settings = {}
    for name, value in sorted(estimator.get_params().items()):
        if name.rpartition("__")[2] in _NOT_SHOWN:
            continue
        if isinstance(value, str) and value == "auto" and hasattr(estimator, f"{name}_"):
            value = getattr(estimator, f"{name}_")
        text = _without_folders(" ".join(repr(value).split()))
        settings[name] = text if len(text) <= _MAX_SETTING else text[:_MAX_SETTING] + "..."
    return settings


def _without_folders(text: str) -> str:
    """The text with every quoted absolute path cut to its last part, so that a page tells nothing of the machine.

    Examples
    --------
    >>> _without_folders("PosixPath('/home/me/model'), device='cpu'")
    "PosixPath('model'), device='cpu'"
    """
    return re.sub(r"""(['"])(?:/|[A-Za-z]:[/\\])[^'"]*?([^'"/\\]*)\1""", r"\1\2\1", text)
