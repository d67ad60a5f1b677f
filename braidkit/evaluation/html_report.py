"""One page of a run: what went in, what came out, how far to trust it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from braidkit import __version__
from braidkit.evaluation import html
from braidkit.evaluation.calibration import CalibrationReport
from braidkit.evaluation.designs import design_table
from braidkit.evaluation.displays import (
    CalibrationDisplay,
    DistanceDisplay,
    KmerScatterDisplay,
    RewardDistributionDisplay,
    SequenceLogoDisplay,
    TrainingCurveDisplay,
)
from braidkit.evaluation.displays._drawing import pyplot
from braidkit.evaluation.metrics import gc_content
from braidkit.exceptions import InvalidParameterError
from braidkit.persistence import replace_file
from braidkit.spaces import SequenceSpace

# Measured sequences whose k-mers are counted.
_N_KMER_ROWS = 10_000
# A setting that is written at greater length is cut.
_MAX_SETTING = 300

LIMITS = [
    "Every number here but the measurements is a prediction. The reward, its bound and the judge are fitted to the "
    "same assay; an error that they share, such as a blind spot of the assay, shows nowhere on this page.",
    "The best of many predictions are chosen with their errors: expect designs to measure below their predicted mean.",
    "The lower bound is tested on rows like the data. Designs are unlike the data, and no coverage carries over.",
    "The path KL and the edit distance say how far a design lies from the pretrained model and from the data; what "
    "lies far from both is a guess, however short its penalty.",
    "Order controls with the designs: some of the best measured sequences, and shuffled designs.",
]


def report(
    estimator: Any,
    path: str | os.PathLike[str],
    X: Any = None,
    y: Any = None,
    *,
    designs: pd.DataFrame | None = None,
    calibration: CalibrationReport | None = None,
    name: str = "reward",
    title: str = "braidkit: report of a run",
    source: str | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> None:
    """Write one self-contained HTML page about a fitted estimator; it refers to nothing outside itself.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
    path : path-like
        File to write, in one piece or not at all; one that is there is replaced.
    X : designs, optional
        What the estimator was fitted on. Without X and y the page has no data, calibration or distances.
    y : array-like of shape (n_samples,), optional
        Measurements of X.
    designs : DataFrame, optional
        With "sequence", "mean" and "lower", such as `design_table` and `select` give; by default, for sequences, a
        `design_table` of 100.
    calibration : CalibrationReport, optional
        By default made from the estimator, X and y, which fits its reward once more.
    name : str, default="reward"
        What was measured, with its unit.
    title : str
    source : str, optional
        Where the data came from, in a line.
    random_state : int, RandomState or None
        Of what is drawn for the page.

    Raises
    ------
    MissingExtraError
        If matplotlib is not there; before any work.
    InvalidParameterError
        If only one of X and y is given.
    """
    pyplot()
    check_is_fitted(estimator, "model_")
    if (X is None) != (y is None):
        raise InvalidParameterError("X and y belong together; pass both, or neither.")
    rng = check_random_state(random_state)
    sequences = isinstance(estimator.space_, SequenceSpace)
    measured: Any = None
    values: np.ndarray | None = None
    if X is not None:
        values = np.asarray(y, dtype=np.float64)
        check_consistent_length(X, values)
        measured = estimator.space_.decode(estimator.space_.encode(X), "strings") if sequences else np.asarray(X)
        calibration = calibration or CalibrationReport.from_estimator(estimator, X, y, random_state=rng)
    if designs is None and sequences and measured is not None:
        designs = design_table(estimator, measured, values, 100, random_state=rng)

    parts = [html.section("What came of it", html.bullets(_story(estimator, designs, values)))]
    if measured is not None and values is not None:
        parts.append(html.section("Data", html.definitions(_data(estimator, measured, values, name, source))))
    parts.append(html.section("Fine-tuning", *_fine_tuning(estimator, X, values, name, rng)))
    if designs is not None and sequences:
        parts.append(html.section("Designs", *_designs(estimator, designs, measured, values, name, rng)))
    if calibration is not None:
        parts.append(html.section("How far to trust the bound", *_calibration(calibration)))
    parts.append(html.section("What this page cannot tell", html.bullets(LIMITS)))
    parts.append(html.section("Settings", html.definitions(_settings(estimator))))
    parts.append(html.section("Versions", html.definitions(versions())))
    with replace_file(path) as temporary:
        temporary.write_text(html.page(title, *parts), encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of Python, of braidkit and of what its results depend on."""
    others = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "scikit-learn", "gpytorch")}
    return {"python": platform.python_version(), "braidkit": __version__} | others


def _story(estimator: Any, designs: pd.DataFrame | None, y: np.ndarray | None) -> list[str]:
    """The run in a few sentences."""
    history, best = estimator.history_, estimator.best_iter_
    picked = "oracle" if "oracle" in history else "judge"
    kept = history["iteration"].index(best)
    check = estimator.reward_check_
    before, there, kl = history[picked][0], history[picked][kept], history["kl"][kept]
    update = f"the designs of update {best:,}"
    why = f"the oracle liked {update} best"
    if picked == "judge":
        why = f"{update} were best by its objective, of those that the judge does not find surely worse than others"
    story = [
        f"On measurements that it never saw, the reward has R2 {check['r2']:.2f}, and its lower bound holds for "
        f"{100 * check['overall']:.0f} % ({100 * check['top_decile']:.0f} % of those that it predicts highest).",
        f"Fine-tuning did {estimator.n_iter_:,} updates. One checkpoint was kept: {why}. By the {picked} they have "
        f"{there:.3g}, those of the pretrained model {before:.3g}, at a path KL of {kl:.3g} nats to it.",
    ]
    if estimator.over_optimising_since_ is not None:
        climbed, column = ("lower bound", "lower") if estimator._climbs == "lower" else ("mean", "mean")
        story.append(
            f"After update {estimator.over_optimising_since_:,} the run over-optimised: the {climbed} went on rising, "
            f"to {history[column][-1]:.3g}, and the {picked} fell to {history[picked][-1]:.3g}, beyond its error."
        )
    if designs is not None and len(designs):
        line = (
            f"{len(designs):,} designs: predicted mean {designs['mean'].median():.3g}, lower bound "
            f"{designs['lower'].median():.3g} (medians)"
        )
        story.append(line + (f"; the best measurement is {y.max():.3g}." if y is not None else "."))
        flagged = int((designs["flags"] != "").sum()) if "flags" in designs else 0
        if flagged:
            story.append(f"{flagged:,} of them have a flag: see the column of flags before ordering.")
    return story


def _data(estimator: Any, X: Any, y: np.ndarray, name: str, source: str | None) -> dict[str, str]:
    """Names and values that describe the measurements."""
    low, middle, high = np.quantile(y, [0.05, 0.5, 0.95])
    data = {"source": source} if source else {}
    data |= {
        "rows": f"{len(y):,}",
        "design space": str(estimator.space_),
        name: f"5 / 50 / 95 %: {low:.3g} / {middle:.3g} / {high:.3g}; from {y.min():.3g} to {y.max():.3g}",
        "rows kept from the reward, for the judge": f"{len(estimator.judge_rows_):,}",
    }
    if isinstance(estimator.space_, SequenceSpace) and estimator.space_.name in ("DNA", "RNA"):
        low, middle, high = np.quantile(gc_content(X), [0.05, 0.5, 0.95])
        data["share of G and C"] = f"5 / 50 / 95 %: {low:.2f} / {middle:.2f} / {high:.2f}"
    return data


def _fine_tuning(estimator: Any, X: Any, y: Any, name: str, rng: np.random.RandomState) -> list[str]:
    """Curves of the run, and what it changed."""
    curves = html.figure(
        TrainingCurveDisplay.from_estimator(estimator, name=name),
        "Training curves",
        "Averages over designs at each evaluation: the reward's mean and lower bound, which fine-tuning sees, and the "
        "judge, which it does not. Where the bound rises and the judge falls, the run over-optimises. Below, the KL "
        "to the pretrained model along the path.",
    )
    if X is None:
        return [curves]
    seed = rng.randint(2**31 - 1)
    rewards = html.figure(
        RewardDistributionDisplay.from_estimator(estimator, X, y, random_state=seed, name=name),
        "Distributions of the reward",
        "All three are predicted by the judge, so that they differ by the designs alone. Line: 5 to 95 %; dot: median.",
    )
    return [curves, rewards]


def _designs(
    estimator: Any,
    designs: pd.DataFrame,
    measured: list[str] | None,
    y: np.ndarray | None,
    name: str,
    rng: np.random.RandomState,
) -> list[str]:
    """Pictures of the designs, and their table."""
    rows = designs["sequence"].tolist()
    parts = []
    if len(rows) and measured is not None and y is not None:
        parts.append(
            html.figure(
                DistanceDisplay.from_estimator(estimator, measured, y, designs=rows, name=name),
                "Predicted mean by distance to the nearest measured sequence",
                "Each dot is a design; its line hangs down to the lower bound. Far to the right, high up and on a "
                "short line, the reward is certain of itself without evidence.",
            )
        )
        some = [measured[i] for i in rng.permutation(len(measured))[:_N_KMER_ROWS]]
        parts.append(
            html.figure(
                KmerScatterDisplay.from_sequences(rows, some),
                "Shares of 3-mers in designs and data",
                "What lies off the diagonal is more, or less, common in the designs than in the measured sequences.",
            )
        )
    if len(rows):
        parts.append(
            html.figure(
                SequenceLogoDisplay.from_sequences(rows, letters=estimator.space_.alphabet),
                "Sequence logo of the designs",
                "Letters that the designs agree on, position by position. Tall letters everywhere are one design "
                "many times over.",
            )
        )
    # The longest column last, so that the others are seen without scrolling.
    shown = designs[sorted(designs.columns, key=lambda column: column == "nearest")]
    return [*parts, html.paragraph("A click on a column's head sorts the table by it."), html.table(shown)]


def _calibration(calibration: CalibrationReport) -> list[str]:
    """Coverage as a picture, in words and as a table."""
    coverage = calibration.coverage[calibration.coverage["group"] == "all"].drop(columns="group")
    return [
        *(html.paragraph(warning, warning=True) for warning in calibration.warnings),
        html.figure(
            CalibrationDisplay.from_report(calibration),
            "Coverage of the lower bound",
            "Shares of rows, that the reward never saw, for which the bound holds; bars: 95 % intervals. Backtest: the "
            "reward fitted below the 95 % quantile of the measurements and checked above it. There the bound may hold "
            "merely because the reward knows nothing of such rows; look at the orange marks.",
        ),
        *(html.paragraph(note) for note in calibration.notes),
        html.table(coverage),
    ]


def _settings(estimator: Any) -> dict[str, str]:
    """Every parameter of the estimator and of what it holds."""
    settings = {name: " ".join(repr(value).split()) for name, value in sorted(estimator.get_params().items())}
    return {name: text if len(text) <= _MAX_SETTING else text[:_MAX_SETTING] + "..." for name, text in settings.items()}
