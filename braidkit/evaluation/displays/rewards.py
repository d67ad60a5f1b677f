"""Distributions of a reward by group of designs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from braidkit.evaluation.arguments import check_fitted, read_measured, read_values, usual_draws
from braidkit.evaluation.displays._drawing import BLUE, GREEN, GREY, ORANGE, SKY, label_line, new_axes, plain, span
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_number, check_random_state

if TYPE_CHECKING:
    from braidkit.evaluation.comparison import Comparison


class RewardDistributionDisplay:
    """Distributions of a reward in several groups of designs, one row a group.

    Each row shows a histogram, the median (dot) and the span from the 5 to the 95 % quantile (line).

    Parameters
    ----------
    values : mapping of str to ndarray
        Rewards of each group, named as the rows are to be labelled, from top to bottom.
    name : str, default="reward"
        Name of the reward, with its unit; labels the axis.
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
        return cls(read_values(values), **options)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        n_designs: int | None = None,
        random_state: Any = None,
        name: str = "reward",
    ) -> RewardDistributionDisplay:
        """Compare measured, pretrained and fine-tuned designs by the estimator's judge.

        All three rows are predictions of the judge, so that they differ by the designs only. Predictions spread less
        than measurements do. The best measurement is marked.

        Parameters
        ----------
        estimator : fitted ConservativeDiffusionFinetuner
        X : designs
        y : array-like of shape (n_samples,)
            Measurements of X.
        n_designs : int, optional
            Designs of each kind. By default 500; 50 pictures, which take far longer to draw.
        random_state : int, RandomState or None
        name : str, default="reward"
        """
        check_fitted(estimator, "pretrained_", "reward_")
        n_designs = usual_draws(estimator, 500) if n_designs is None else n_designs
        check_number("n_designs", n_designs, whole=True, low=1)
        rng = check_random_state(random_state)
        measured, values = read_measured(X, y, estimator)
        chosen = rng.permutation(len(values))[:n_designs]
        seed = int(rng.randint(2**31 - 1))
        groups = {
            "offline data": measured[chosen],
            "pretrained": estimator.pretrained_.sample(n_designs, seed),
            "fine-tuned": estimator.sample(n_designs, seed),
        }
        return cls.from_values(
            {group: estimator.judge_.predict(designs) for group, designs in groups.items()},
            name=f"{name}, predicted by the judge",
            reference=float(values.max()),
        )

    @classmethod
    def from_comparison(cls, comparison: Comparison, oracle: str) -> RewardDistributionDisplay:
        """Compare methods and references by an oracle, designs of all seeds together, best median on top (Figure 2).

        Parameters
        ----------
        comparison : Comparison
            From `braidkit.evaluation.compare`.
        oracle : str
            Its name there. Groups that it did not judge have no row.

        Raises
        ------
        InvalidParameterError
            If no oracle has that name.
        """
        designs = comparison.designs
        oracles = [column for column in designs.columns if column not in ("method", "seed", "design")]
        if oracle not in oracles:
            raise InvalidParameterError(f"oracle must be one of {', '.join(map(repr, oracles))}; got {oracle!r}.")
        groups = designs.dropna(subset=[oracle]).groupby("method")[oracle]
        order = groups.median().sort_values(ascending=False).index
        return cls.from_values({method: groups.get_group(method).to_numpy() for method in order}, name=oracle)

    def plot(self, ax: Any = None) -> RewardDistributionDisplay:
        """Draw on `ax`, or on a new figure."""
        self.figure_, self.ax_ = new_axes(ax, height=1.0 + 0.75 * len(self.values))
        low, high = span([*self.values.values(), np.array([] if self.reference is None else [self.reference])])
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
            label_line(self.ax_, self.reference, top, f"{self.reference_name} {self.reference:.3g}", (low, high))
        self.ax_.set_yticks(rows, [plain(group) for group in self.values])
        self.ax_.tick_params(axis="y", length=0)
        self.ax_.set_xlabel(plain(self.name))
        self.ax_.spines[["left", "top", "right"]].set_visible(False)
        return self
