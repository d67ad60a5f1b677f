"""Predictions for designs, by their distance from the measured ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidkit.evaluation.arguments import check_fitted, read_array, read_measured
from braidkit.evaluation.displays._drawing import BLUE, GREY, ORANGE, new_axes, plain, span
from braidkit.evaluation.edit_distance import as_strings, nearest
from braidkit.evaluation.row_distance import RowDistance
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_number
from braidkit.spaces import read_designs


class DistanceDisplay:
    """Predicted mean of designs against their distance to the nearest measured one.

    A line goes from each mean down to the lower bound. A high mean far to the right with a short line is a confident
    prediction without data nearby.

    Parameters
    ----------
    distance : ndarray of shape (n_designs,)
        Letters of edit distance, or deviations of columns of vectors (see `design_table`).
    mean, lower : ndarray of shape (n_designs,)
        In y's units.
    letters : bool, default=True
        Whether distances are in letters.
    truth : ndarray of shape (n_designs,), optional
        Rewards of the designs by an oracle; drawn as diamonds.
    name : str, default="reward"
        Name of the reward, with its unit; labels the axis.
    reference : float, optional
        A value to mark, such as the best measurement.
    reference_name : str, default="best measured"

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(
        self,
        distance: np.ndarray,
        mean: np.ndarray,
        lower: np.ndarray,
        *,
        letters: bool = True,
        truth: np.ndarray | None = None,
        name: str = "reward",
        reference: float | None = None,
        reference_name: str = "best measured",
    ) -> None:
        self.distance = read_array("distance", distance, None)
        n = len(self.distance)
        self.mean = read_array("mean", mean, n)
        self.lower = read_array("lower", lower, n)
        self.truth = None if truth is None else read_array("truth", truth, n)
        self.letters = letters
        self.name = name
        self.reference = reference
        self.reference_name = reference_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        designs: Any = None,
        n_designs: int = 200,
        oracle: Any = None,
        name: str = "reward",
        random_state: Any = None,
    ) -> DistanceDisplay:
        """Predict designs by the estimator's reward, and find their nearest measured sequences.

        Parameters
        ----------
        estimator : fitted ConservativeDiffusionFinetuner
            On sequences or vectors.
        X : sequence of str, or array-like of shape (n_samples, n_features)
            The measured designs.
        y : array-like of shape (n_samples,), optional
            Their measurements; the highest is marked.
        designs : sequence of str, or array-like of shape (n_designs, n_features), optional
            By default `n_designs` that are drawn with `random_state`.
        n_designs : int, default=200
        oracle : object with ``predict(X)``, optional
        name : str, default="reward"
        random_state : int, RandomState or None
        """
        check_fitted(estimator, "reward_", "space_")
        values = None if y is None else read_measured(X, y, estimator)[1]
        space = estimator.space_
        if designs is None:
            check_number("n_designs", n_designs, low=1, whole=True)
            designs = estimator.sample(n_designs, random_state)
            designs = designs if space.has_columns else space.strings(designs)
        else:
            designs = read_designs(designs)
        if len(designs) == 0:
            raise InvalidParameterError("there is no design to show; pass at least one.")
        if space.has_columns:
            distance = RowDistance(space, space.points(X).rows).nearest(designs)[1]
        else:
            designs = as_strings(designs)
            distance = nearest(designs, space.strings(X))[1]
        return cls(
            distance,
            estimator.reward_.predict(designs),
            estimator.reward_.predict_lower(designs),
            letters=not space.has_columns,
            truth=None if oracle is None else np.asarray(oracle.predict(designs), dtype=float),
            name=name,
            reference=None if values is None else float(values.max()),
        )

    def plot(self, ax: Any = None) -> DistanceDisplay:
        """Draw on `ax`, or on a new figure; designs at one distance stand side by side."""
        self.figure_, self.ax_ = new_axes(ax, height=4.0)
        x = self.distance + (self._aside() if self.letters else 0.0)
        self.ax_.vlines(x, self.lower, self.mean, color=GREY, linewidth=0.8, label="down to the lower bound")
        self.ax_.plot(x, self.mean, "o", color=BLUE, alpha=0.7, markersize=4, label="predicted mean")
        if self.truth is not None:
            self.ax_.plot(x, self.truth, "D", color=ORANGE, alpha=0.7, markersize=3.5, label="oracle")
        low, high = span([self.distance])
        if self.letters:
            low, high = self.distance.min() - 0.6, self.distance.max() + 0.6
            self.ax_.xaxis.get_major_locator().set_params(integer=True)
        self.ax_.set_xlim(low, high)
        if self.reference is not None:
            self.ax_.axhline(self.reference, color="black", linewidth=0.8, linestyle=":")
            self.ax_.annotate(
                plain(f"{self.reference_name} {self.reference:.3g}"), (high, self.reference), (0, 2),
                textcoords="offset points", ha="right", va="bottom", fontsize="small",
            )  # fmt: skip
        self.ax_.set_xlabel(
            "edit distance to the nearest measured sequence (letters)"
            if self.letters
            else "distance to the nearest measured row (deviations of the columns)"
        )
        self.ax_.set_ylabel(plain(self.name))
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.ax_.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0)
        return self

    def _aside(self) -> np.ndarray:
        """Shifts (n_designs,) within half a letter that set designs of one distance apart.

        Points are drawn in random order: sorted by the mean they would look like a trend.
        """
        rng = np.random.default_rng(0)
        shifts = np.zeros(len(self.distance))
        for distance in np.unique(self.distance):
            at = np.flatnonzero(self.distance == distance)
            shifts[rng.permutation(at)] = np.linspace(-0.35, 0.35, len(at)) if len(at) > 1 else 0.0
        return shifts
