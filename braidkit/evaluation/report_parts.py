"""The designs of a report, as figures and a table, and what any figure and table of it is made by."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from braidkit.evaluation.displays import (
    ColumnRangesDisplay,
    DistanceDisplay,
    ImageGridDisplay,
    KmerScatterDisplay,
    ParetoDisplay,
    SequenceLogoDisplay,
)
from braidkit.evaluation.picture_designs import PictureDesigns
from braidkit.evaluation.quantities import reward_of_quantities
from braidkit.evaluation.vector_designs import design_columns, rows_of

# Measured sequences whose k-mers are counted.
_N_KMER_ROWS = 10_000
# Pictures of designs that the page shows.
_N_PICTURES = 60
# These columns come first, so that they are seen without scrolling.
_FIRST = ("id", "role", "sequence", "prompt", "lower", "mean", "judge", "flags", "distance", "nearest")

Picture = dict[str, str]


def sequence_designs(
    estimator: Any,
    designs: pd.DataFrame | None,
    measured: list[str] | None,
    y: Any,
    name: str,
    rng: np.random.RandomState,
) -> dict[str, Any] | None:
    """Pictures of the designs, and their table."""
    if designs is None:
        return None
    rows = designs["sequence"].tolist()
    pictures = _pareto(estimator, y, rows)
    if len(rows) and measured is not None and y is not None:
        pictures.append(
            figure_of(
                DistanceDisplay.from_estimator(estimator, measured, y, designs=rows, name=name),
                "Predicted mean by distance to the nearest measured sequence",
                "Each dot is a design. The line below it reaches down to the lower bound. A high dot far to the right "
                "with a short line is a confident prediction without data nearby.",
            )
        )
        some = [measured[i] for i in rng.permutation(len(measured))[:_N_KMER_ROWS]]
        pictures.append(
            figure_of(
                KmerScatterDisplay.from_sequences(rows, some),
                "Shares of 3-mers in designs and data",
                "3-mers off the diagonal are more, or less, common in the designs than in the measured sequences.",
            )
        )
    if len(set(map(len, rows))) == 1:
        pictures.append(
            figure_of(
                SequenceLogoDisplay.from_sequences(rows, letters=estimator.space_.alphabet),
                "Sequence logo of the designs",
                "Letters that the designs share, position by position. Tall letters everywhere mean that all designs "
                "are nearly the same.",
            )
        )
    return {"pictures": pictures, "table": cells_of(_ordered(designs))}


def vector_designs(
    estimator: Any, designs: pd.DataFrame | None, measured: Any, y: Any, name: str
) -> dict[str, Any] | None:
    """Pictures of the designs, rows of numbers, and their table."""
    if designs is None:
        return None
    pictures = []
    if len(designs) and measured is not None and y is not None:
        rows = rows_of(estimator, designs)
        pictures += _pareto(estimator, y, rows)
        pictures.append(
            figure_of(
                DistanceDisplay.from_estimator(estimator, measured, y, designs=rows, name=name),
                "Predicted mean by distance to the nearest measured row",
                "Each dot is a design. The line below it reaches down to the lower bound. A high dot far to the right "
                "with a short line is a confident prediction without data nearby.",
            )
        )
        columns = estimator.space_.columns
        names = columns.all_names
        for label, places in columns.one_of.items():
            for i in places:
                names[i] = f"{label}: {names[i]}"
        pictures.append(
            figure_of(
                ColumnRangesDisplay(rows, measured, names),
                "Columns of the designs beside those of the data",
                "A line that is short, or at an end, is a column that designs agree on. Where it is at an end of the "
                "measured range, better values may lie beyond it.",
            )
        )
    return {"pictures": pictures, "table": cells_of(_ordered(designs, design_columns(estimator.space_)))}


def _pareto(estimator: Any, y: Any, rows: Any) -> list[Picture]:
    """The figure of two quantities, where an objective has several."""
    reward = reward_of_quantities(estimator)
    if not len(rows) or y is None or reward is None or len(reward.rewards_) < 2:
        return []
    return [
        figure_of(
            ParetoDisplay.from_estimator(estimator, y, rows),
            "Two quantities of the objective",
            "Grey: measured designs, with the front of those that no other is better than in both. Blue: "
            "predicted means of designs; the orange lines reach to the bounds that count.",
        )
    ]


def picture_designs(designs: PictureDesigns, name: str) -> dict[str, Any]:
    """Grids of the designs, by prompt where they have one, and their table."""
    table, images = designs
    shown = table.iloc[:_N_PICTURES]
    prompts = shown["prompt"] if "prompt" in shown else pd.Series("designs", index=shown.index)
    rows = {prompt: np.flatnonzero(prompts == prompt) for prompt in prompts.unique()}
    grid = ImageGridDisplay(
        {prompt: images[places] for prompt, places in rows.items()},
        {prompt: shown["lower"].iloc[places] for prompt, places in rows.items()},
        name=f"{name}, lower bound",
    )
    caption = "Look whether each shows what its prompt says: no number here tells." if "prompt" in shown else ""
    if len(table) > len(shown):
        caption = f"The {len(shown)} with the best bounds. {caption}"
    return {"pictures": [figure_of(grid, "Grid of the designs", caption)], "table": cells_of(_ordered(table))}


def gallery(estimator: Any, X: Any, y: Any, name: str, rng: np.random.RandomState) -> Picture:
    """Images that were measured, and those of the two chains."""
    return figure_of(
        ImageGridDisplay.from_estimator(estimator, X, y, n_designs=20, random_state=rng, name=name),
        "Grid of images",
        "Images of the two models at the same place start from the same noise. If those of the fine-tuned model no "
        "longer show what measured ones show, fine-tuning has gone too far, whatever the numbers say.",
    )


def figure_of(display: Any, alternative: str, caption: str) -> Picture:
    """Draw a display as PNG in base64; its figure is closed again."""
    from matplotlib import pyplot

    drawn = display.plot().figure_
    buffer = io.BytesIO()
    # The metadata would name the version of matplotlib.
    drawn.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(drawn)
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"data": data, "alternative": alternative, "caption": caption}


def cells_of(frame: pd.DataFrame) -> dict[str, Any]:
    """Names of the columns, and rows of cells for the template."""
    columns = [str(name) for name in frame.columns]
    rows = [[_cell(*pair) for pair in zip(columns, row, strict=True)] for row in frame.itertuples(index=False)]
    return {"columns": columns, "rows": rows}


def _ordered(designs: pd.DataFrame, first: Sequence[str] = ()) -> pd.DataFrame:
    """The table with the columns first that a person reads first, after the id those given."""
    order = [column for column in (_FIRST[0], *first, *_FIRST[1:]) if column in designs]
    return designs[[*order, *designs.columns.difference(order, sort=False)]]


def _cell(name: str, value: Any) -> dict[str, str | None]:
    """A cell. Numbers are shown with four digits and sorted by their full value; a missing one is empty."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        if not np.isfinite(value):
            return {"kind": "number", "text": "", "value": None}
        return {"kind": "number", "text": f"{float(value):.4g}", "value": f"{float(value):.9g}"}
    kind = "sequence" if name in ("sequence", "nearest") else "flags" if name == "flags" else "text"
    return {"kind": kind, "text": str(value), "value": None}
