"""Choose the best of many candidates under a limit on how alike they are, and say where the choice is poor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from scipy.spatial.distance import cdist as euclidean

from braidkit.spaces import SequenceSpace

# Two designs that differ in less than a tenth of the letters in which measured ones differ are near-duplicates.
MAX_IDENTITY = 0.9
# The flag of many designs of good runs too: what is better than all that was measured is less well known.
LARGE_PENALTY = "penalty above that of 95 % of measured ones"
# Deviations of log-probability below which only one in twenty of the pretrained model's own designs lies.
MAX_RARITY = 1.645
RARE = "less probable under the pretrained model than 95 % of its own designs"
# Measured sequences, drawn at random, whose distances are typical.
_N_COMPARED = 300
# Below this R2 on held-out rows a reward is hardly better than their mean.
_LEAST_R2 = 0.05
# Candidates that are compared with each other at once.
_BLOCK = 512


def default_candidates(n_designs: int, *, listed: bool = False, slow: bool = False) -> int:
    """Candidates to draw for so many designs.

    Ten times as many where all designs are listed, which costs little, and fewer where draws take long.
    """
    if slow:
        return max(250, 5 * n_designs)
    return max(1000, 10 * n_designs) * (10 if listed else 1)


def default_identity(space: SequenceSpace, measured: Sequence[str]) -> float:
    """Most that two designs may be alike where nothing is said: they differ in a tenth of what measured ones do.

    The median edit distance of measured sequences is that of a sample, and at most the number of positions that can
    change, which also stands in for it where nothing was measured.
    """
    different = list(dict.fromkeys(measured))
    some = [different[i] for i in np.random.RandomState(0).permutation(len(different))[:_N_COMPARED]]
    apart = cdist(some, some, scorer=Levenshtein.distance, dtype=np.int32)[np.triu_indices(len(some), 1)]
    typical = min(space.n_varying, np.median(apart)) if len(apart) else space.n_varying
    return 1 - (1 - MAX_IDENTITY) * typical / space.length


def describe_moved(moved: dict[str, int], n_drawn: int) -> str:
    """One line: how many draws broke limits, and which."""
    by_limit = ", ".join(f"{name} {n:,}" for name, n in moved.items() if name != "any" and n)
    if not by_limit:
        return f"limits: met by all {n_drawn:,} draws as they were made"
    return (
        f"limits: {moved['any']:,} of {n_drawn:,} draws broke them ({by_limit}) and were moved to the likeliest "
        "sequence within them"
    )


def poor_predictions(estimator: Any) -> list[str]:
    """A warning of each reward, of the only one or of several quantities, that predicts hardly better than a mean."""
    check = estimator.reward_check_
    parts = {f"the reward of {name[3:]}": r2 for name, r2 in check.items() if name.startswith("r2_")}
    return [
        f"{name} predicts rows that it has not seen hardly better than their mean does (R2 {r2:.2f}): designs by it "
        "are guesses. Check that each measurement stands beside its own design; if measurements differ by factors of "
        "a hundred, pass their logarithms; or measure more."
        for name, r2 in (parts or {"the reward": check["r2"]}).items()
        if r2 < _LEAST_R2
    ]


def choose_different(candidates: list[str], order: np.ndarray, n: int, max_identity: float) -> tuple[list[int], int]:
    """Take candidates in a given order, and skip those that are too similar to one that was taken.

    Each candidate is compared with those taken before it, so the cost is at most quadratic.

    Parameters
    ----------
    candidates : list of str
        All different.
    order : ndarray of int
        Places of the candidates, the best first.
    n : int
        Candidates wanted.
    max_identity : float
        Most that two of them may be alike: 1 - edit distance / length.

    Returns
    -------
    chosen : list of int
        At most n places.
    n_alike : int
        Candidates that were passed over.
    """
    length = max(map(len, candidates), default=0)
    # A rounding error in the share must not change the limit in letters.
    least = math.ceil(length * (1 - max_identity - 1e-9))
    if least <= 1:
        return [int(i) for i in order[:n]], 0

    def too_near(places: Any, others: Any) -> np.ndarray:
        return _too_near([candidates[i] for i in places], [candidates[i] for i in others], least)

    return _choose(order, n, too_near)


def choose_rows_apart(rows: np.ndarray, order: np.ndarray, n: int, least: float) -> tuple[list[int], int]:
    """As `choose_different`, of points (n_candidates, k) with at least some Euclidean distance."""
    return _choose(order, n, lambda places, others: euclidean(rows[list(places)], rows[list(others)]) < least)


def _choose(order: np.ndarray, n: int, too_near: Callable[[Any, Any], np.ndarray]) -> tuple[list[int], int]:
    """Take places in order, but for those too near to one taken before; how many were passed over."""
    chosen: list[int] = []
    n_alike = 0
    for start in range(0, len(order), _BLOCK):
        places = order[start : start + _BLOCK]
        alike = np.zeros(len(places), dtype=bool) | (too_near(places, chosen).any(axis=1) if chosen else False)
        within = too_near(places, places)
        for i, place in enumerate(places):
            if alike[i]:
                n_alike += 1
                continue
            chosen.append(int(place))
            if len(chosen) == n:
                return chosen, n_alike
            alike |= within[i]
    return chosen, n_alike


def concerns(table: pd.DataFrame, y: np.ndarray, *, n_designs: int, n_drawn: int, n_different: int) -> list[str]:
    """Sentences that a person should read before ordering a table of designs.

    Parameters
    ----------
    table : DataFrame
        With "mean", "lower" and "flags".
    y : ndarray
        The measurements.
    n_designs : int
        Designs that were asked for.
    n_drawn, n_different : int
        Candidates drawn, and how many of them differ.

    Returns
    -------
    sentences : list of str
        None if nothing is unusual.
    """
    n, best, spread = len(table), y.max(), y.std()
    found = []
    if n < n_designs:
        others = "the others are too much like these" if n < n_different else "the model made no other"
        found.append(
            f"{n:,} of {n_designs:,} designs found among {n_drawn:,} candidates: {others}. A larger alpha keeps "
            "designs more diverse."
        )
    elif n_different < min(n_drawn / 2, 2 * n_designs):  # too few to choose from
        found.append(
            f"the model makes few different designs: {n_different:,} among {n_drawn:,} draws. If the design space is "
            "not that small, use a larger alpha."
        )
    serious = serious_flags(table["flags"])
    if len(serious) > n / 2:
        common = serious.explode().value_counts()
        found.append(
            f"{'all' if len(serious) == n else f'{len(serious):,} of'} {n:,} designs have a flag, most often "
            f'"{common.index[0]}" ({common.iloc[0]:,}). Read the flags before you order.'
        )
    n_below = int((table["lower"] < best).sum())
    if n_below > n / 2:
        found.append(
            f"the lower bounds of {n_below:,} of {n:,} designs are below the best measurement, {best:.3g}. These "
            "designs may be no better than the best measured one."
        )
    if (n_above := int((table["lower"] > best + spread).sum())) > 0:
        found.append(
            f"the lower bounds of {n_above:,} of {n:,} designs exceed every measurement by more than a standard "
            f"deviation; the highest is {table['lower'].max():.3g}, the best measurement {best:.3g}. The reward "
            "extrapolates: check that the assay can give such values."
        )
    return found


def serious_flags(flags: pd.Series) -> pd.Series:
    """Lists of the flags other than that of a large penalty, of the designs that have any.

    Examples
    --------
    >>> serious_flags(pd.Series(["", LARGE_PENALTY, "measured already; " + LARGE_PENALTY])).tolist()
    [['measured already']]
    """
    lists = pd.Series([[flag for flag in text.split("; ") if flag not in ("", LARGE_PENALTY)] for text in flags])
    return lists[lists.str.len() > 0]


def _too_near(rows: list[str], others: list[str], least: int) -> np.ndarray:
    """Whether fewer than `least` edits lie between each row and each other, (n_rows, n_others)."""
    return cdist(rows, others, scorer=Levenshtein.distance, score_cutoff=least - 1, dtype=np.int32) < least
