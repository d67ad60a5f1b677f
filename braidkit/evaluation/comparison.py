"""What `compare` gives: values of every method and seed, with their means, differences and intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from braidkit.exceptions import InvalidParameterError

MEASURE = ["source", "metric"]


@dataclass(frozen=True)
class Comparison:
    """Results of several methods over several seeds.

    Attributes
    ----------
    results : DataFrame
        One row for each "method", "seed", "source" and "metric", with its "value". Sources are the oracles by name;
        "designs" for what they say themselves, with no oracle; and "cost". Beside the methods stand the references
        "offline" (rows that the methods saw), "pretrained" (draws from the shared chain), "natural" (measured rows that
        the methods did not see) and "shuffled" (those, with their neighbouring letters shuffled).
    designs : DataFrame
        One row a design: "method", "seed", "design", and a column for each oracle.
    failures : DataFrame
        What is missing from `results`: "method", "seed", the "stage" that failed, the "error", its "traceback".
    """

    results: pd.DataFrame
    designs: pd.DataFrame
    failures: pd.DataFrame

    def summary(self, confidence: float = 0.95) -> pd.DataFrame:
        """Means over the seeds, with Student's t-intervals.

        Parameters
        ----------
        confidence : float, default=0.95

        Returns
        -------
        summary : DataFrame
            Indexed by method, source and metric; columns "mean", "low", "high" (nan for a single seed), "n_seeds".
        """
        return _intervals(self.results, confidence)

    def differences(self, baseline: str, confidence: float = 0.95) -> pd.DataFrame:
        """Differences of each method from one of them, paired by seed.

        Parameters
        ----------
        baseline : str
            A method, or a reference.
        confidence : float, default=0.95

        Returns
        -------
        differences : DataFrame
            As `summary` has it, of value minus the baseline's value, over the seeds that both have.
        """
        results = self.results
        if baseline not in set(results["method"]):
            names = ", ".join(map(repr, results["method"].unique()))
            raise InvalidParameterError(f"baseline must be one of {names}; got {baseline!r}.")
        keys = ["seed", *MEASURE]
        others = results[results["method"] != baseline]
        paired = others.merge(results[results["method"] == baseline], on=keys, suffixes=("", " of the baseline"))
        return _intervals(paired.assign(value=paired["value"] - paired["value of the baseline"]), confidence)


def t_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent values, and the ends of its t-interval: nan for fewer than two.

    Examples
    --------
    >>> mean, low, high = t_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(low, 2), mean, round(high, 2)
    (-0.48, 2.0, 4.48)
    """
    if not 0 < confidence < 1:
        raise InvalidParameterError(f"confidence must be > 0 and < 1; got {confidence!r}.")
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, np.nan, np.nan
    reach = float(student.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return mean, mean - reach, mean + reach


def _intervals(results: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Mean, interval and number of seeds of each method, source and metric; nan values do not count."""
    index = ["method", *MEASURE]
    groups = results.dropna(subset="value").groupby(index, sort=False)["value"]
    rows = {key: (*t_interval(values.to_numpy(), confidence), len(values)) for key, values in groups}
    return pd.DataFrame(
        list(rows.values()),
        columns=["mean", "low", "high", "n_seeds"],
        index=pd.MultiIndex.from_tuples(list(rows), names=index) if rows else None,
    )
