"""Check a reward's lower bound: on rows like the data, beyond the data, and on designs."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, spearmanr
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_consistent_length

from braidkit.data import check_lengths, read_measurements, read_targets, read_weights
from braidkit.evaluation.arguments import check_fitted, usual_draws
from braidkit.exceptions import InvalidParameterError
from braidkit.oracles import refuse_shared_rows
from braidkit.parameters import check_number, check_random_state
from braidkit.spaces import design_groups, read_designs

# With fewer rows than this in a decile its coverage is too uncertain to report.
MIN_DECILE_ROWS = 5
_SHOWN = {
    "n": "rows",
    "one_sided": "bound holds",
    "two_sided": "within penalty",
    "penalty": "mean penalty",
    "optimism": "mean - truth",
}


class CalibrationReport:
    """Coverage of a conservative reward's lower bound, with warnings if it is too low.

    Build one with `from_reward` or `from_estimator`. It checks three sets of rows:

    - "held out": rows that the reward has not seen, from the same law as those it has; all, and by decile of the
      predicted mean and of the penalty. The highest decile of the mean is the most similar to designs: its rows are
      chosen, as designs are, with the reward's errors.
    - "backtest": a clone of the reward is fitted below the 95 % quantile of y and checked above it. A reward that has
      learnt nothing about the best rows predicts too little for them. Then the lower bound holds but says little, so
      look at the two-sided share, and at the rank correlation.
    - "designs": chosen designs, if an oracle knows their true values.

    Coverage of measured rows does not carry over to designs, because these follow another distribution.

    Parameters
    ----------
    coverage : DataFrame
        One row a group, with the columns

        - "rows" and "group": the set, and "all", "mean decile 1" (lowest) to 10, or "penalty decile 1" to 10
        - "n": rows in the group
        - "one_sided": share with ``y >= lower``, and "one_sided_low", "one_sided_high": its 95 % Wilson interval
        - "two_sided": share with ``abs(y - mean) <= penalty``
        - "penalty", "optimism": averages of the penalty and of ``mean - y``, in y's units
    level : float or None
        Share that the bound was asked to hold for; None where none was asked.
    notes, warnings : list of str
        The meaning of the numbers, in words.

    Attributes
    ----------
    coverage, level, notes, warnings
        As given.

    Examples
    --------
    >>> import numpy as np
    >>> from braidkit import GPBonusReward
    >>> from braidkit.evaluation import CalibrationReport
    >>> X = np.random.default_rng(0).normal(size=(600, 2))
    >>> y = X.sum(axis=1) + 0.1 * np.random.default_rng(1).normal(size=600)
    >>> reward = GPBonusReward(c="calibrated", random_state=0).fit(X[:400], y[:400])
    >>> report = CalibrationReport.from_reward(reward, X, y, held_out=range(400, 600))
    >>> bool(report.loc("held out")["one_sided"] > 0.85)
    True
    """

    def __init__(
        self, coverage: pd.DataFrame, level: float | None = None, *, notes: Any = (), warnings: Any = ()
    ) -> None:
        self.coverage = coverage
        self.level = level
        self.notes = list(notes)
        self.warnings = list(warnings)

    @classmethod
    def from_reward(
        cls,
        reward: Any,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        y_error: Any = None,
        held_out: Any = None,
        oracle: Any = None,
        designs: Any = None,
        level: float | None = None,
        backtest: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> CalibrationReport:
        """Check a fitted reward.

        Parameters
        ----------
        reward : fitted reward
            With ``predict`` and ``predict_lower``.
        X : designs
        y : array-like of shape (n_samples,)
            Measurements of X.
        sample_weight, y_error : array-like of shape (n_samples,), optional
            Weights and standard errors of y, as in the reward's `fit`; for the backtest.
        held_out : array-like of int or bool, optional
            Rows of X that the reward has not seen: their numbers, or True for each; by default all. The backtest uses
            all rows.
        oracle : object with ``predict(X)``, optional
            Truth of the designs.
        designs : designs, optional
            Chosen designs; without an oracle only their penalties can be compared with those of held-out rows.
        level : float, optional
            Share that the bound is asked to hold for; by default that of a reward with ``c="calibrated"``.
        backtest : bool, default=True
            It takes as long as fitting the reward. A frozen reward cannot be refitted, so it has none.
        random_state : int, RandomState or None
            Seed of the backtest, if the reward has none.

        Raises
        ------
        InvalidParameterError
            If there is an oracle and no designs, a row number that X does not have, or a level not in (0, 1).
        InvalidTargetError
            If a measurement is missing or infinite.
        InvalidDesignError
            If the oracle was trained on rows of X.
        """
        X, (y, targets) = read_designs(X), _measured(reward, y)
        check_consistent_length(X, y)
        if level is not None and not (isinstance(level, numbers.Real) and 0 < level < 1):
            raise InvalidParameterError(f"level must be a number > 0 and < 1; got {level!r}.")
        if oracle is not None and designs is None:
            raise InvalidParameterError("an oracle has nothing to judge; pass designs as well.")
        refuse_shared_rows(oracle, X)
        if missing := [name for name in ("predict", "predict_lower") if not hasattr(reward, name)]:
            raise InvalidParameterError(f"reward must be a fitted reward; {reward!r:.60} has no {missing[0]}.")
        if oracle is not None and not callable(getattr(oracle, "predict", oracle)):
            raise InvalidParameterError(f"oracle must have predict(X) or be callable; got {oracle!r:.60}.")
        rows = _row_numbers(held_out, len(y))
        if level is None and getattr(reward, "c", None) == "calibrated":
            level = float(reward.level)
        if sample_weight is not None:
            sample_weight = read_weights(sample_weight, len(y))
        notes: list[str] = []
        groups = list(_by_decile("held out", y[rows], *_predict(reward, X[rows])))
        if backtest:
            told = {"sample_weight": sample_weight, "y_error": y_error}
            told = {name: values for name, values in told.items() if values is not None}
            beyond, note = _backtest(reward, X, y, targets, told, random_state)
            groups += beyond
            notes.append(note)
        if designs is not None:
            mean, lower = _predict(reward, designs)
            usual = np.quantile(np.subtract(*_predict(reward, X[rows])), 0.99)
            unusual = float((mean - lower > usual).mean())
            notes.append(f"{100 * unusual:.0f} % of designs have a penalty above that of 99 % of held-out rows.")
            if oracle is not None:
                truth = read_measurements(getattr(oracle, "predict", oracle)(designs))
                check_lengths(designs, truth)
                groups.append(_coverage("designs", "all", truth, mean, lower))
        coverage = pd.DataFrame(groups)
        return cls(coverage, level, notes=notes, warnings=_warnings(coverage, level))

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        y_error: Any = None,
        oracle: Any = None,
        n_designs: int | None = None,
        level: float | None = None,
        backtest: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> CalibrationReport:
        """Check the reward of a fitted ConservativeDiffusionFinetuner on the rows of its judge and on its designs.

        After a refit this is the reward before it, which has not seen the judge's rows.

        Parameters
        ----------
        estimator : fitted ConservativeDiffusionFinetuner
        X, y, sample_weight, y_error : what it was fitted on
        oracle : object with ``predict(X)``, optional
        n_designs : int, optional
            200 by default; 50 pictures.
        level, backtest, random_state
            As for `from_reward`.
        """
        check_fitted(estimator, "judge_rows_", "checked_reward_")
        n_designs = usual_draws(estimator, 200) if n_designs is None else n_designs
        check_number("n_designs", n_designs, low=1, whole=True)
        rng = check_random_state(random_state)
        if len(estimator.judge_rows_) > len(y) or max(estimator.judge_rows_) >= len(y):
            raise InvalidParameterError(
                f"X and y have {len(y):,} rows, but the estimator was fitted on more; pass what it was fitted on."
            )
        report = cls.from_reward(
            estimator.checked_reward_,
            X,
            y,
            sample_weight=sample_weight,
            y_error=y_error,
            held_out=estimator.judge_rows_,
            oracle=oracle,
            designs=estimator.sample(n_designs, rng),
            level=level,
            backtest=backtest,
            random_state=rng,
        )
        if len(estimator.judge_rows_) == len(y):
            report.warnings.append("There were too few rows to hold any out: these shares flatter the bound.")
        return report

    def loc(self, rows: str, group: str = "all") -> pd.Series:
        """One row of `coverage`.

        Raises
        ------
        InvalidParameterError
            If there is no such group.
        """
        found = self.coverage[(self.coverage["rows"] == rows) & (self.coverage["group"] == group)]
        if found.empty:
            there = ", ".join(dict.fromkeys(self.coverage["rows"]))
            raise InvalidParameterError(f"the report has no {rows!r}, {group!r}; its rows are: {there}.")
        return found.iloc[0]

    def __str__(self) -> str:
        table = self.coverage.set_index(self.coverage["rows"] + ", " + self.coverage["group"])[list(_SHOWN)]
        table = table.rename(columns=_SHOWN).rename_axis(None)
        formats = dict.fromkeys(("bound holds", "within penalty"), "{:.3f}".format)
        asked = "no share was asked for" if self.level is None else f"asked to hold for {100 * self.level:g} %"
        lines = [
            f"Lower bound of the reward ({asked})",
            table.to_string(formatters=formats, float_format="{:.3g}".format),
        ]
        return "\n".join([*lines, *self.notes, *(f"Warning: {warning}" for warning in self.warnings)])


def _measured(reward: Any, y: Any) -> tuple[np.ndarray, Any]:
    """Measurements (n,), or the objective of several quantities, and what a reward is fitted on."""
    if not hasattr(reward, "combine"):
        values = read_measurements(y)
        return values, values
    names, columns = read_targets(y)
    return reward.combine(y), pd.DataFrame(columns, columns=names)


def _row_numbers(held_out: Any, n: int) -> np.ndarray:
    """Row numbers, from themselves or from n booleans; all, if there are none."""
    rows = np.arange(n) if held_out is None else np.asarray(held_out)
    if rows.dtype == bool and rows.shape == (n,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or len(rows) == 0 or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n:
        raise InvalidParameterError(
            f"held_out must be row numbers of X, 0 to {n - 1}, or {n:,} booleans, some of them True; got {held_out!r}."
        )
    return rows


def _predict(reward: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Means and lower bounds (n,) of designs."""
    return np.asarray(reward.predict(X)), np.asarray(reward.predict_lower(X))


def _coverage(rows: str, group: str, y: np.ndarray, mean: np.ndarray, lower: np.ndarray) -> dict[str, Any]:
    """A row of the table of coverage."""
    holds = int((y >= lower).sum())
    interval = binomtest(holds, len(y)).proportion_ci(method="wilson")
    return {
        "rows": rows,
        "group": group,
        "n": len(y),
        "one_sided": holds / len(y),
        "one_sided_low": interval.low,
        "one_sided_high": interval.high,
        "two_sided": float((np.abs(y - mean) <= mean - lower).mean()),
        "penalty": float((mean - lower).mean()),
        "optimism": float((mean - y).mean()),
    }


def _by_decile(rows: str, y: np.ndarray, mean: np.ndarray, lower: np.ndarray) -> Iterator[dict[str, Any]]:
    """Coverage of all rows, and by decile of the mean and of the penalty where there are enough."""
    yield _coverage(rows, "all", y, mean, lower)
    if len(y) < 10 * MIN_DECILE_ROWS:
        return
    for name, by in {"mean": mean, "penalty": mean - lower}.items():
        for number, part in enumerate(np.array_split(np.argsort(by, kind="stable"), 10)):
            yield _coverage(rows, f"{name} decile {number + 1}", y[part], mean[part], lower[part])


def _backtest(
    reward: Any, X: np.ndarray, y: np.ndarray, targets: Any, told: dict[str, Any], random_state: Any
) -> tuple[list[dict[str, Any]], str]:
    """Coverage above the 95 % quantile of y by a clone fitted below it, and a note in words."""
    groups = design_groups(X)
    # All rows of a design are on one side of the cut, by their mean.
    means = (np.bincount(groups, weights=y - y[0]) / np.bincount(groups))[groups] + y[0]
    cut = np.quantile(means, 0.95)
    above = means > cut
    if isinstance(reward, FrozenEstimator):
        return [], "No backtest: the reward is frozen, so it cannot be fitted again below the 95 % quantile of y."
    if above.sum() < MIN_DECILE_ROWS:
        return [], f"No backtest: {int(above.sum())} rows lie above the 95 % quantile of y ({cut:.3g})."
    refitted = clone(reward)
    own = refitted.get_params()
    refitted.set_params(**dict.fromkeys((name for name in own if name.split("__")[-1] == "verbose"), 0))
    if "random_state" in own and own["random_state"] is None:
        refitted.set_params(random_state=check_random_state(random_state).randint(2**31 - 1))
    refitted.fit(X[~above], targets[~above], **{name: np.asarray(values)[~above] for name, values in told.items()})
    mean, lower = _predict(refitted, X[above])
    rank = spearmanr(mean, y[above]).statistic if np.ptp(mean) > 0 else 0.0
    note = (
        f"Backtest: fitted below {cut:.3g}, the reward is {abs(np.mean(mean - y[above])):.3g} too "
        f"{'high' if np.mean(mean - y[above]) > 0 else 'low'} above it on average, and ranks those rows with Spearman "
        f"correlation {rank:.2f}."
    )
    return [_coverage("backtest", "all", y[above], mean, lower)], note


def _warnings(coverage: pd.DataFrame, level: float | None) -> list[str]:
    """Groups whose bound holds for clearly fewer rows than asked for; if nothing was, than among all held-out rows."""
    everywhere = coverage.iloc[0]
    target = everywhere["one_sided"] if level is None else level
    against = f"{100 * target:.0f} % " + ("of all held-out rows" if level is None else "that were asked for")
    texts = {
        ("held out", "all"): "of held-out rows",
        ("held out", "mean decile 10"): "of the tenth of held-out rows that is predicted highest, as designs are",
        ("held out", "penalty decile 10"): "of the tenth of held-out rows with the largest penalties",
        ("backtest", "all"): "of rows above the 95 % quantile of y, fitted below it",
        ("designs", "all"): "of designs, by the oracle",
    }
    warnings = []
    for _, row in coverage.iterrows():
        what = texts.get((row["rows"], row["group"]))
        # Two standard errors of the difference of two shares. The group alone must also be below by more than chance.
        slack = 2 * (target * (1 - target) * (1 / row["n"] + 1 / everywhere["n"])) ** 0.5
        if what is not None and row["one_sided"] < target - slack and row["one_sided_high"] < target:
            warnings.append(f"The lower bound holds for {100 * row['one_sided']:.0f} % {what}, against {against}.")
    return warnings
