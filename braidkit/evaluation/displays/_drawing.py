"""Shared parts of the displays: colours, axes, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidkit.exceptions import InvalidParameterError, MissingExtraError

# Okabe and Ito's colours: told apart with every common kind of colour blindness, and in grey by their lightness.
GREY, SKY, ORANGE, GREEN, BLUE = "#8C8C8C", "#56B4E9", "#D55E00", "#009E73", "#0072B2"


def pyplot() -> Any:
    """matplotlib.pyplot, or an error that says how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib; install it with: pip install 'braidkit[plots]'") from error
    return plt


def new_axes(ax: Any, height: float = 4.4, width: float = 6.4) -> tuple[Any, Any]:
    """Figure and axes to draw on: those of `ax`, or new ones."""
    if ax is not None:
        (given,) = given_axes(ax, 1)
        return given.figure, given
    return pyplot().subplots(figsize=(width, height), layout="constrained")


def given_axes(axes: Any, n: int) -> np.ndarray:
    """The axes (n,) to draw on; refused if they are none, or another number."""
    given = np.asarray(axes, dtype=object).reshape(-1)
    if len(given) != n or not all(hasattr(ax, "figure") for ax in given):
        what = "ax must be Axes" if n == 1 else f"axes must be {n} Axes"
        raise InvalidParameterError(f"{what} of matplotlib, or None; got {axes!r:.60}.")
    return given


def plain(text: object) -> str:
    """A name for matplotlib, with dollar signs escaped: it would read text between two of them as mathematics."""
    return str(text).replace("$", r"\$")


def span(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits that hold all values, with a little room."""
    low, high = min(a.min() for a in arrays if len(a)), max(a.max() for a in arrays if len(a))
    room = 0.03 * (high - low) or 0.5
    return low - room, high + room


def spread_labels(heights: Sequence[float], limits: tuple[float, float]) -> list[float]:
    """Heights moved apart, so that labels beside them do not overlap."""
    gap = 0.08 * (limits[1] - limits[0])
    order = np.argsort(heights)
    placed = np.sort(np.asarray(heights, dtype=float))
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    # Centre the labels on their curves again.
    placed += np.mean(heights) - placed.mean()
    spread = np.empty(len(placed))
    spread[order] = placed
    return spread.tolist()


def label_line(ax: Any, x: float, y: float, text: str, limits: tuple[float, float]) -> None:
    """Write beside a vertical line, on the side that has room; y is the axes' lower or upper end."""
    right = x < sum(limits) / 2
    lower = y <= sum(ax.get_ylim()) / 2
    ax.annotate(
        plain(text),
        (x, y),
        (3 if right else -3, 3 if lower else 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="bottom" if lower else "top",
        fontsize="small",
    )


def label_end(ax: Any, x: float, y: float, text: str, colour: str) -> None:
    """Write a curve's name to the right of its end."""
    ax.annotate(
        plain(text), (x, y), (6, 0), textcoords="offset points", color=colour, va="center", annotation_clip=False
    )
