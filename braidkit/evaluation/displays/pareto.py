"""Two quantities of an objective against each other: what was measured, and what designs promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from braidkit.data import read_targets
from braidkit.evaluation.arguments import read_array
from braidkit.evaluation.displays._drawing import BLUE, GREY, ORANGE, new_axes, plain
from braidkit.evaluation.quantities import reward_of_quantities
from braidkit.exceptions import InvalidParameterError

# Measured rows that are drawn.
_MOST_ROWS = 3000


class ParetoDisplay:
    """Designs among the measurements of two quantities.

    The line is the Pareto front of the measurements: rows that no other row exceeds in both quantities.

    Parameters
    ----------
    measured : ndarray of shape (n, 2)
    mean, bound : ndarray of shape (n_designs, 2)
        Predicted means of designs, and the bounds that count.
    names : sequence of str
        Names of the quantities.
    directions : sequence of int
        1 where more of a quantity is better, -1 where less is.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        measured: np.ndarray,
        mean: np.ndarray,
        bound: np.ndarray,
        *,
        names: Sequence[str],
        directions: Sequence[int] = (1, 1),
    ) -> None:
        self.measured = read_array("measured", measured, None, 2)
        self.mean = read_array("mean", mean, None, 2)
        self.bound = read_array("bound", bound, len(self.mean), 2)
        if len(names) != 2 or sorted(set(directions) - {-1, 1}) or len(directions) != 2:
            raise InvalidParameterError(
                f"names and directions must be two each, the latter 1 or -1; got {names!r} and {directions!r}."
            )
        self.names = names
        self.directions = directions

    @classmethod
    def from_estimator(cls, estimator: Any, y: Any, designs: Sequence[str], names: Sequence[str] = ()) -> ParetoDisplay:
        """Build from a fitted finetuner with an objective of several quantities.

        Parameters
        ----------
        estimator : fitted ConservativeDiffusionFinetuner
        y : DataFrame or array-like of shape (n_samples, n_quantities)
            What it was fitted on.
        designs : sequence of str
        names : sequence of str, optional
            Two of the quantities; by default the first two.

        Raises
        ------
        InvalidParameterError
            If the objective is of one quantity only, or `names` are not two of them.
        """
        reward = reward_of_quantities(estimator)
        there = [] if reward is None else list(reward.rewards_)
        names = list(names) or there[:2]
        if reward is None or len(names) != 2 or not set(names) <= set(there):
            raise InvalidParameterError(
                f"names must be two quantities of the objective, which has {', '.join(there) or 'none'}; got {names!r}."
            )
        _, columns = read_targets(y)
        parts = reward.predict_parts(list(designs))
        directions = [reward.objective_.direction(name) or 1 for name in names]
        chosen = [(parts[name], sign) for name, sign in zip(names, directions, strict=True)]
        return cls(
            columns[:, [there.index(name) for name in names]],
            np.column_stack([parts[name].mean for name in names]),
            np.column_stack([part.low if sign > 0 else part.high for part, sign in chosen]),
            names=names,
            directions=directions,
        )

    def plot(self, ax: Any = None) -> ParetoDisplay:
        """Draw on `ax`, or on a new figure."""
        self.figure_, self.ax_ = new_axes(ax)
        some = self.measured[np.random.RandomState(0).permutation(len(self.measured))[:_MOST_ROWS]]
        self.ax_.plot(*some.T, ".", color=GREY, markersize=3, alpha=0.4, label="measured")
        front = pareto_front(self.measured, self.directions)
        steps = "steps-pre" if self.directions[0] > 0 else "steps-post"
        self.ax_.plot(*front.T, "-", color="black", linewidth=1, drawstyle=steps, label="front of the measured")
        for mean, bound in zip(self.mean, self.bound, strict=True):
            self.ax_.plot([mean[0], bound[0]], [mean[1], mean[1]], color=ORANGE, linewidth=0.6, alpha=0.5)
            self.ax_.plot([mean[0], mean[0]], [mean[1], bound[1]], color=ORANGE, linewidth=0.6, alpha=0.5)
        self.ax_.plot(*self.mean.T, "o", color=BLUE, markersize=4, label="designs, predicted")
        for axis, name, sign in zip((self.ax_.xaxis, self.ax_.yaxis), self.names, self.directions, strict=True):
            axis.set_label_text(plain(f"{name} ({'more' if sign > 0 else 'less'} is better)"))
        self.ax_.legend(frameon=False, fontsize="small")
        self.ax_.spines[["top", "right"]].set_visible(False)
        return self


def pareto_front(points: np.ndarray, directions: Sequence[int]) -> np.ndarray:
    """Rows (n_front, 2) that no other row is better than in both columns, by the first column.

    Examples
    --------
    >>> pareto_front(np.array([[0.0, 2.0], [1.0, 1.0], [0.5, 0.5], [2.0, 0.0]]), [1, 1]).tolist()
    [[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]
    """
    better = points * np.asarray(directions)
    order = np.lexsort([-better[:, 1], -better[:, 0]])  # the best of the first column first
    best_before = np.maximum.accumulate(np.append(-np.inf, better[order, 1]))[:-1]
    front = points[order[better[order, 1] > best_before]]
    return front[np.argsort(front[:, 0], kind="stable")]
