"""A reward over the values of one parameter, such as c or alpha (BRAID, Figures 4, 5 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from braidkit.evaluation.arguments import read_values
from braidkit.evaluation.comparison import Comparison, t_interval
from braidkit.evaluation.displays._drawing import BLUE, SKY, new_axes, plain
from braidkit.exceptions import InvalidParameterError


class AblationDisplay:
    """One number a seed for each value of a parameter: the seeds, their mean and its 95 % t-interval.

    The values stand at equal distances in the order given, so that 0 and "calibrated" have their places beside 0.1.

    Parameters
    ----------
    values : mapping to ndarray of shape (n_seeds,)
        From values of the parameter to rewards, such as the mean true reward of a seed's designs.
    parameter : str, default="c"
    name : str, default="reward"
        Name of the reward, with its unit; labels the axis.
    reference : float, optional
        A reward to mark, such as that of the pretrained model.
    reference_name : str, default="pretrained"

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> display = AblationDisplay.from_values({0.1: [1.0, 1.2], 1.0: [1.4, 1.5], "calibrated": [0.9, 0.8]})
    >>> [label.get_text() for label in display.plot().ax_.get_xticklabels()]
    ['0.1', '1', 'calibrated']
    """

    def __init__(
        self,
        values: Mapping[Any, np.ndarray],
        *,
        parameter: str = "c",
        name: str = "reward",
        reference: float | None = None,
        reference_name: str = "pretrained",
    ) -> None:
        self.values = values
        self.parameter = parameter
        self.name = name
        self.reference = reference
        self.reference_name = reference_name

    @classmethod
    def from_values(cls, values: Mapping[Any, Sequence[float] | np.ndarray], **options: Any) -> AblationDisplay:
        """Build from one number a seed; options are those of the constructor.

        Raises
        ------
        InvalidParameterError
            If there is no value, or one without a finite number.
        """
        return cls(read_values(values), **options)

    @classmethod
    def from_comparison(
        cls, comparison: Comparison, methods: Mapping[Any, str], *, source: str, metric: str = "mean", **options: Any
    ) -> AblationDisplay:
        """Build from a `compare` of one method at several values.

        Parameters
        ----------
        comparison : Comparison
        methods : mapping to str
            From values of the parameter to the names of the methods that have them.
        source, metric : str
            An oracle's name, and one of its metrics.
        """
        results = comparison.results
        shown = results[(results["source"] == source) & (results["metric"] == metric)]
        return cls.from_values(
            {value: shown.loc[shown["method"] == method, "value"].dropna() for value, method in methods.items()},
            **({"name": f"{metric} by {source}"} | options),
        )

    @classmethod
    def from_search(cls, search: Any, parameter: str, **options: Any) -> AblationDisplay:
        """Build from a fitted GridSearchCV: the scores of the folds, the other parameters at their best values."""
        results = search.cv_results_
        if f"param_{parameter}" not in results:
            there = ", ".join(search.best_params_)
            raise InvalidParameterError(f"the search has no parameter {parameter!r}; it has: {there}.")
        others = {name: value for name, value in search.best_params_.items() if name != parameter}
        values = {}
        for i, params in enumerate(results["params"]):
            if all(params[name] == value for name, value in others.items()):
                values[params[parameter]] = [results[f"split{k}_test_score"][i] for k in range(search.n_splits_)]
        return cls.from_values(values, **({"parameter": parameter, "name": "held-out score"} | options))

    def plot(self, ax: Any = None) -> AblationDisplay:
        """Draw on `ax`, or on a new figure."""
        self.figure_, self.ax_ = new_axes(ax, height=3.6)
        places = np.arange(len(self.values))
        means = []
        for place, numbers in zip(places, self.values.values(), strict=True):
            mean, low, high = t_interval(numbers)
            means.append(mean)
            self.ax_.plot(np.full(len(numbers), place), numbers, "o", color=SKY, alpha=0.7, markersize=4, zorder=1)
            if np.isfinite(low):
                self.ax_.plot([place, place], [low, high], color=BLUE, linewidth=2, solid_capstyle="butt")
        self.ax_.plot(places, means, "o-", color=BLUE, markersize=6, linewidth=0.8)
        self.ax_.set_xticks(
            places, [plain(f"{value:g}" if isinstance(value, float) else value) for value in self.values]
        )
        self.ax_.set_xlim(-0.5, len(places) - 0.5)
        if self.reference is not None:
            self.ax_.axhline(self.reference, color="black", linewidth=0.8, linestyle=":")
            self.ax_.annotate(
                plain(self.reference_name), (places[-1] + 0.5, self.reference), (0, 2), textcoords="offset points",
                ha="right", va="bottom", fontsize="small",
            )  # fmt: skip
        self.ax_.set_xlabel(plain(self.parameter))
        self.ax_.set_ylabel(plain(self.name))
        self.ax_.spines[["top", "right"]].set_visible(False)
        return self
