"""Pictures of a run, in scikit-learn's Display convention: build from data, then `plot` on axes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from braidkit.exceptions import InvalidParameterError, MissingExtraError

# Okabe and Ito's colours: told apart with every common kind of colour blindness, and in grey by their lightness.
GREY, SKY, ORANGE, GREEN, BLUE = "#8C8C8C", "#56B4E9", "#D55E00", "#009E73", "#0072B2"


class RewardDistributionDisplay:
    """Distributions of a reward in several groups of designs, one row a group.

    Each row shows a histogram, the median (dot) and the span from the 5 to the 95 % quantile (line).

    Parameters
    ----------
    values : mapping of str to ndarray
        Rewards of each group, named as the rows are to be labelled, from top to bottom.
    name : str, default="reward"
        What the reward is, with its unit; labels the axis.
    reference : float, optional
        A value to mark in all rows, such as the best measurement.
    reference_name : str, default="best measured"

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> display = RewardDistributionDisplay.from_values({"offline": [1.0, 2.0], "fine-tuned": [3.0, 4.0]})
    >>> display.plot().ax_.get_xlabel()
    'reward'
    """

    def __init__(
        self,
        values: Mapping[str, np.ndarray],
        *,
        name: str = "reward",
        reference: float | None = None,
        reference_name: str = "best measured",
    ) -> None:
        self.values = values
        self.name = name
        self.reference = reference
        self.reference_name = reference_name

    @classmethod
    def from_values(
        cls, values: Mapping[str, Sequence[float] | np.ndarray], **options: Any
    ) -> RewardDistributionDisplay:
        """Build from rewards by group; options are those of the constructor.

        Raises
        ------
        InvalidParameterError
            If a group is empty or has a value that is not finite.
        """
        arrays = {group: np.asarray(value, dtype=float).reshape(-1) for group, value in values.items()}
        for group, array in arrays.items():
            if len(array) == 0 or not np.isfinite(array).all():
                raise InvalidParameterError(
                    f"group {group!r} must have at least one value, all finite; got {len(array)} with "
                    f"{int((~np.isfinite(array)).sum())} not finite."
                )
        if not arrays:
            raise InvalidParameterError("values has no group; pass at least one.")
        return cls(arrays, **options)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, n_samples: int = 500, random_state: Any = None, name: str = "reward"
    ) -> RewardDistributionDisplay:
        """Compare measured, pretrained and fine-tuned designs by the estimator's judge.

        All three rows are the judge's predictions, so that they differ by the designs alone; predictions spread less
        than measurements do. The best measurement is marked.

        Parameters
        ----------
        estimator : fitted ConservativeDiffusionFinetuner
        X : designs
        y : array-like of shape (n_samples,)
            Measurements of X.
        n_samples : int, default=500
            Designs of each kind.
        random_state : int, RandomState or None
        name : str, default="reward"
        """
        rng = np.random.default_rng(random_state)
        chosen = rng.permutation(len(y))[:n_samples]
        seed = int(rng.integers(2**31 - 1))
        groups = {
            "offline data": [X[i] for i in chosen],
            "pretrained": estimator.pretrained_.sample(n_samples, seed),
            "fine-tuned": estimator.sample(n_samples, seed),
        }
        return cls.from_values(
            {group: estimator.judge_.predict(designs) for group, designs in groups.items()},
            name=f"{name}, predicted by the judge",
            reference=float(np.max(y)),
        )

    def plot(self, ax: Any = None) -> RewardDistributionDisplay:
        """Draw on `ax`, or on a new figure."""
        self.figure_, self.ax_ = _axes(ax, height=1.0 + 0.75 * len(self.values))
        low, high = _span([*self.values.values(), np.array([] if self.reference is None else [self.reference])])
        bins = np.linspace(low, high, 61)
        colours = [GREY, SKY, ORANGE, GREEN, BLUE]
        rows = range(len(self.values) - 1, -1, -1)
        for row, values, colour in zip(rows, self.values.values(), itertools.cycle(colours), strict=False):
            counts, _ = np.histogram(values, bins)
            heights = 0.64 * counts / counts.max()
            self.ax_.stairs(row + heights, bins, baseline=row, fill=True, color=colour, alpha=0.55, linewidth=0)
            q05, median, q95 = np.quantile(values, [0.05, 0.5, 0.95])
            self.ax_.plot([q05, q95], [row - 0.06] * 2, color=colour, linewidth=2, solid_capstyle="butt")
            self.ax_.plot(median, row - 0.06, "o", color=colour, markersize=6)
            self.ax_.annotate(
                f"{median:.3g}", (median, row - 0.06), (0, -5), textcoords="offset points", ha="center", va="top"
            )
        top = len(self.values) - 0.1
        self.ax_.set_ylim(-0.4, top)
        self.ax_.set_xlim(low, high)
        if self.reference is not None:
            self.ax_.axvline(self.reference, color="black", linewidth=0.8, linestyle=":")
            _label_line(self.ax_, self.reference, top, f"{self.reference_name} {self.reference:.3g}", (low, high))
        self.ax_.set_yticks(rows, self.values)
        self.ax_.tick_params(axis="y", length=0)
        self.ax_.set_xlabel(self.name)
        self.ax_.spines[["left", "top", "right"]].set_visible(False)
        return self


class TrainingCurveDisplay:
    """What fine-tuning did, update by update: rewards above, the path KL below.

    Parameters
    ----------
    history : mapping of str to sequence of float
        With "iteration", "mean", "lower" and "judge" (in y's units) and "kl" (nats).
    best_iter : int, optional
        Update whose checkpoint was kept; marked.
    name : str, default="reward"
        What the reward is, with its unit; labels the axis.

    Attributes
    ----------
    axes_ : ndarray of two matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self, history: Mapping[str, Sequence[float]], *, best_iter: int | None = None, name: str = "reward"
    ) -> None:
        self.history = history
        self.best_iter = best_iter
        self.name = name

    @classmethod
    def from_estimator(cls, estimator: Any, *, name: str = "reward") -> TrainingCurveDisplay:
        """Build from a fitted ConservativeDiffusionFinetuner."""
        return cls(estimator.history_, best_iter=estimator.best_iter_, name=name)

    def plot(self, axes: Any = None) -> TrainingCurveDisplay:
        """Draw on two axes, one above the other, or on a new figure."""
        if axes is None:
            self.figure_, self.axes_ = _pyplot().subplots(
                2, 1, sharex=True, figsize=(6.4, 4.6), height_ratios=(2, 1), layout="constrained"
            )
        else:
            self.axes_ = np.asarray(axes, dtype=object).reshape(2)
            self.figure_ = self.axes_[0].figure
        rewards, divergence = self.axes_
        curves = {"mean": (SKY, "-"), "lower": (ORANGE, "-"), "judge": ("black", "--")}
        labels = {"mean": "mean", "lower": "lower bound", "judge": "judge"}
        iteration = self.history["iteration"]
        for column, (colour, style) in curves.items():
            rewards.plot(iteration, self.history[column], color=colour, linestyle=style)
        ends = [self.history[column][-1] for column in curves]
        for column, height in zip(curves, _spread(ends, rewards.get_ylim()), strict=True):
            _label_end(rewards, iteration[-1], height, labels[column], curves[column][0])
        divergence.plot(iteration, self.history["kl"], color=GREEN)
        rewards.set_ylabel(self.name)
        divergence.set_ylabel("path KL (nats)")
        divergence.set_ylim(bottom=0)
        divergence.set_xlabel("fine-tuning updates")
        for ax in self.axes_:
            ax.spines[["top", "right"]].set_visible(False)
            if self.best_iter is not None:
                ax.axvline(self.best_iter, color="black", linewidth=0.8, linestyle=":")
        if self.best_iter is not None:
            bottom = rewards.get_ylim()[0]
            _label_line(rewards, self.best_iter, bottom, f"kept: {self.best_iter}", (iteration[0], iteration[-1]))
        return self


def _pyplot() -> Any:
    """matplotlib.pyplot, or an error that says how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib; install it with: pip install 'braidkit[plots]'") from error
    return plt


def _axes(ax: Any, height: float) -> tuple[Any, Any]:
    """Figure and axes to draw on: those of `ax`, or new ones."""
    if ax is not None:
        return ax.figure, ax
    return _pyplot().subplots(figsize=(6.4, height), layout="constrained")


def _span(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits that hold all values, with a little room."""
    low, high = min(a.min() for a in arrays if len(a)), max(a.max() for a in arrays if len(a))
    room = 0.03 * (high - low) or 0.5
    return low - room, high + room


def _spread(heights: Sequence[float], limits: tuple[float, float]) -> list[float]:
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


def _label_line(ax: Any, x: float, y: float, text: str, limits: tuple[float, float]) -> None:
    """Write beside a vertical line, on the side that has room; y is the axes' lower or upper end."""
    right = x < sum(limits) / 2
    lower = y <= sum(ax.get_ylim()) / 2
    ax.annotate(
        text,
        (x, y),
        (3 if right else -3, 3 if lower else 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="bottom" if lower else "top",
        fontsize="small",
    )


def _label_end(ax: Any, x: float, y: float, text: str, colour: str) -> None:
    """Write a curve's name to the right of its end."""
    ax.annotate(text, (x, y), (6, 0), textcoords="offset points", color=colour, va="center", annotation_clip=False)
