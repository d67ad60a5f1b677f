"""Rewards and path KL during fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from braidkit.evaluation.arguments import check_fitted, read_array
from braidkit.evaluation.displays._drawing import (
    BLUE,
    GREEN,
    ORANGE,
    SKY,
    given_axes,
    label_end,
    label_line,
    plain,
    pyplot,
    spread_labels,
)
from braidkit.exceptions import InvalidParameterError


class TrainingCurveDisplay:
    """Rewards (above) and path KL (below) at each evaluation of a fine-tuning run.

    Parameters
    ----------
    history : mapping of str to sequence of float
        With "iteration", "mean", "lower" and "judge" (in y's units) and "kl" (nats); "oracle", if there is one.
    best_iter : int, optional
        Update whose checkpoint was kept; marked.
    name : str, default="reward"
        Name of the reward, with its unit; labels the axis.

    Attributes
    ----------
    axes_ : ndarray of two matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self, history: Mapping[str, Sequence[float]], *, best_iter: int | None = None, name: str = "reward"
    ) -> None:
        needed = ("iteration", "lower", "kl")
        if not isinstance(history, Mapping) or not all(name in history for name in needed):
            raise InvalidParameterError(f"history must be a dictionary with {', '.join(needed)}; got {history!r:.60}.")
        n = np.size(history["iteration"])
        self.history = {name: read_array(f"history[{name!r}]", values, n or None) for name, values in history.items()}
        self.best_iter = best_iter
        self.name = name

    @classmethod
    def from_estimator(cls, estimator: Any, *, name: str = "reward") -> TrainingCurveDisplay:
        """Build from a fitted ConservativeDiffusionFinetuner."""
        check_fitted(estimator, "history_", "best_iter_")
        return cls(estimator.history_, best_iter=estimator.best_iter_, name=name)

    def plot(self, axes: Any = None) -> TrainingCurveDisplay:
        """Draw on two axes, one above the other, or on a new figure."""
        if axes is None:
            self.figure_, self.axes_ = pyplot().subplots(
                2, 1, sharex=True, figsize=(6.4, 4.6), height_ratios=(2, 1), layout="constrained"
            )
        else:
            self.axes_ = given_axes(axes, 2)
            self.figure_ = self.axes_[0].figure
        rewards, divergence = self.axes_
        curves = {"mean": (SKY, "-"), "lower": (ORANGE, "-"), "judge": ("black", "--"), "oracle": (BLUE, "-.")}
        curves = {column: style for column, style in curves.items() if column in self.history}
        labels = {"mean": "mean", "lower": "lower bound", "judge": "judge", "oracle": "oracle"}
        iteration = self.history["iteration"]
        for column, (colour, style) in curves.items():
            rewards.plot(iteration, self.history[column], color=colour, linestyle=style)
        ends = [self.history[column][-1] for column in curves]
        for column, height in zip(curves, spread_labels(ends, rewards.get_ylim()), strict=True):
            label_end(rewards, iteration[-1], height, labels[column], curves[column][0])
        divergence.plot(iteration, self.history["kl"], color=GREEN)
        rewards.set_ylabel(plain(self.name))
        divergence.set_ylabel("path KL (nats)")
        divergence.set_ylim(bottom=0)
        divergence.set_xlabel("fine-tuning updates")
        for ax in self.axes_:
            ax.spines[["top", "right"]].set_visible(False)
            if self.best_iter is not None:
                ax.axvline(self.best_iter, color="black", linewidth=0.8, linestyle=":")
        if self.best_iter is not None:
            bottom = rewards.get_ylim()[0]
            label_line(rewards, self.best_iter, bottom, f"kept: {self.best_iter}", (iteration[0], iteration[-1]))
        return self
