"""Which designs to order: the best lower bounds that meet the limits of a laboratory, with controls."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from braidkit.evaluation.designs import MAX_HOMOPOLYMER, longest_run
from braidkit.evaluation.edit_distance import edit_distances
from braidkit.evaluation.metrics import gc_content, shuffle_dinucleotides
from braidkit.exceptions import InvalidParameterError
from braidkit.spaces import SequenceSpace

# Shuffles of one design that are tried for one that meets the limits.
_MAX_SHUFFLES = 10

Limits = dict[str, Callable[[Sequence[str]], np.ndarray]]  # from n sequences to n booleans: which meet the limit


def select(
    estimator: Any,
    n: int,
    X: Any = None,
    y: Any = None,
    *,
    max_identity: float = 0.9,
    gc: tuple[float, float] | None = None,
    max_homopolymer: int | None = MAX_HOMOPOLYMER,
    forbidden: Sequence[str] = (),
    template: str | None = None,
    n_candidates: int | None = None,
    n_controls: int = 5,
    random_state: int | np.random.RandomState | None = None,
) -> pd.DataFrame:
    """Draw candidates and keep the best lower bounds that meet the limits and differ from each other.

    Candidates are taken from the best bound downwards; one too much like a design that was taken is passed over.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
        Or another with ``sample``, ``space_`` and ``reward_``; on sequences.
    n : int
        Designs wanted.
    X : sequence of str, optional
        The measured sequences: no design is one of them, and the best are controls.
    y : array-like of shape (n_samples,), optional
        Their measurements; with X.
    max_identity : float, default=0.9
        Most that two designs may be alike: 1 - edit distance / length. In (0, 1]; 1 only keeps them different.
    gc : tuple of two floats, optional
        Least and greatest share of G and C, both allowed; for DNA and RNA.
    max_homopolymer : int or None, default=8
        Longest run of one letter.
    forbidden : sequence of str
        Words that no design may hold, such as sites of restriction enzymes; as written, so give both strands.
    template : str, optional
        Protected positions: a sequence of the designs' length with letters where they must stand and "." elsewhere.
    n_candidates : int, optional
        Designs drawn; by default ten for each that is wanted, and at least 1,000.
    n_controls : int, default=5
        Controls of each kind, after the designs: the measured sequences with the highest measurements, if there are X
        and y, and designs whose letters were shuffled, neighbouring pairs kept. Both meet the limits, but for
        `max_identity`; protected letters are put back after shuffling.
    random_state : int, RandomState or None

    Returns
    -------
    table : DataFrame
        Columns "id"; "role" ("design", "best measured" or "shuffled design"); "sequence"; "mean", "penalty" and
        "lower", in y's units; "judge", if the estimator has one; "measured", for measured sequences. Its ``attrs`` hold
        "n_candidates", the different sequences drawn, and "rejected": how many of them did not meet each limit, by the
        name of its parameter; one may meet several limits not.

    Warns
    -----
    UserWarning
        If fewer than `n` designs are found, naming the limit to loosen.

    Raises
    ------
    InvalidParameterError
        If the designs are no sequences, or a limit can be met by none.
    """
    check_is_fitted(estimator)
    space = estimator.space_
    if not isinstance(space, SequenceSpace):
        raise InvalidParameterError(f"select is for sequences, but the designs are in {space}.")
    if n < 1 or n_controls < 0:
        raise InvalidParameterError(f"n must be at least 1 and n_controls at least 0; got {n} and {n_controls}.")
    if not 0 < max_identity <= 1:
        raise InvalidParameterError(f"max_identity must be > 0 and <= 1; got {max_identity!r}.")
    if y is not None and X is None:
        raise InvalidParameterError("y has no sequences; pass X as well.")
    measured = [] if X is None else space.decode(space.encode(X), "strings")
    limits = check_limits(space, gc=gc, max_homopolymer=max_homopolymer, forbidden=forbidden, template=template)
    rng = check_random_state(random_state)

    drawn = estimator.sample(max(1000, 10 * n) if n_candidates is None else n_candidates, rng)
    candidates = list(dict.fromkeys(space.decode(space.encode(drawn), "strings")))
    known = set(measured)
    checks = limits | ({"X": lambda rows: np.array([row not in known for row in rows])} if known else {})
    fails = np.array([~meets(candidates) for meets in checks.values()]).reshape(len(checks), len(candidates))
    fit = [candidates[i] for i in np.flatnonzero(~fails.any(axis=0))]
    designs, n_alike = _different(fit, estimator.reward_.predict_lower(fit) if fit else [], n, max_identity)
    rejected = dict(zip(checks, fails.sum(axis=1).tolist(), strict=True)) | {"max_identity": n_alike}
    if len(designs) < n:
        alone = (fails & (fails.sum(axis=0) == 1)).sum(axis=1).tolist()
        gain = dict(zip(checks, alone, strict=True)) | {"max_identity": n_alike}
        warnings.warn(_shortage(len(designs), n, len(candidates), rejected, gain), stacklevel=2)

    parts = [_part(estimator, "design", designs)]
    if y is not None:
        values = np.asarray(y, dtype=np.float64)
        check_consistent_length(measured, values)
        best = _meeting(limits, measured, np.argsort(-values, kind="stable"))[:n_controls]
        parts.append(_part(estimator, "best measured", [measured[i] for i in best], values[best]))
    parts.append(_part(estimator, "shuffled design", _shuffled(designs, limits, template, n_controls, rng)))
    table = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    table.attrs.update(n_candidates=len(candidates), rejected=rejected)
    return table


def check_limits(
    space: SequenceSpace,
    *,
    gc: tuple[float, float] | None,
    max_homopolymer: int | None,
    forbidden: Sequence[str],
    template: str | None,
) -> Limits:
    """Limits on single sequences, by the name of their parameter; raises for those that no sequence can meet."""
    limits: Limits = {}
    if gc is not None:
        low, high = gc
        if space.name not in ("DNA", "RNA"):
            raise InvalidParameterError(f"gc is for DNA and RNA, but the designs are written in {space.alphabet}.")
        if not 0 <= low <= high <= 1:
            raise InvalidParameterError(f"gc must be two shares, 0 <= least <= greatest <= 1; got {gc!r}.")
        limits["gc"] = lambda rows: (low <= (share := gc_content(rows))) & (share <= high)
    if max_homopolymer is not None:
        longest = max_homopolymer
        if longest < 1:
            raise InvalidParameterError(f"max_homopolymer must be at least 1 or None; got {longest!r}.")
        limits["max_homopolymer"] = lambda rows: np.array([longest_run(row) <= longest for row in rows])
    if isinstance(forbidden, str):
        raise InvalidParameterError(f"forbidden must be a list of words; got the word {forbidden!r}.")
    if len(forbidden):
        words = list(forbidden)
        for word in words:
            if not word or set(word) - set(space.alphabet):
                raise InvalidParameterError(f"forbidden has {word!r}, which is not written in {space.alphabet}.")
        limits["forbidden"] = lambda rows: np.array([not any(word in row for word in words) for row in rows])
    if template is not None:
        if len(template) != space.length or set(template) - set(space.alphabet + "."):
            raise InvalidParameterError(
                f"template must have {space.length} characters, each one of {space.alphabet} or '.'; got "
                f"{template!r} with {len(template)}."
            )
        held = [(i, letter) for i, letter in enumerate(template) if letter != "."]
        limits["template"] = lambda rows: np.array([all(row[i] == letter for i, letter in held) for row in rows])
    return limits


def _different(candidates: list[str], lower: Sequence[float], n: int, max_identity: float) -> tuple[list[str], int]:
    """The n best candidates that differ enough, best first, and how many better ones were passed over."""
    length = max(map(len, candidates), default=0)
    alike = np.zeros(len(candidates), dtype=bool)
    chosen: list[str] = []
    n_alike = 0
    for i in np.argsort(-np.asarray(lower), kind="stable"):
        if alike[i]:
            n_alike += 1
            continue
        chosen.append(candidates[i])
        if len(chosen) == n:
            break
        # A rounding error in the share must not tell apart what the letters do not.
        alike |= 1 - edit_distances([candidates[i]], candidates)[0] / length > max_identity + 1e-9
    return chosen, n_alike


def _meeting(limits: Limits, rows: list[str], order: Sequence[int] | np.ndarray) -> list[int]:
    """Those of the row numbers, in their order, whose rows meet all limits."""
    met = np.logical_and.reduce([np.ones(len(rows), dtype=bool), *(meets(rows) for meets in limits.values())])
    return [int(i) for i in order if met[i]]


def _shuffled(
    designs: list[str], limits: Limits, template: str | None, n: int, rng: np.random.RandomState
) -> list[str]:
    """Up to n designs with their letters shuffled, protected ones put back, that meet the limits."""
    found: list[str] = []
    for design in designs:
        if len(found) == n:
            break
        tries = shuffle_dinucleotides([design] * _MAX_SHUFFLES, rng)
        if template is not None:
            tries = [
                "".join(new if held == "." else held for new, held in zip(row, template, strict=True)) for row in tries
            ]
        new = [tries[i] for i in _meeting(limits, tries, range(len(tries))) if tries[i] not in {design, *found}]
        found += new[:1]
    return found


def _part(estimator: Any, role: str, sequences: list[str], measured: np.ndarray | None = None) -> pd.DataFrame:
    """Rows of the table, scored."""
    columns = {"mean": estimator.reward_.predict, "lower": estimator.reward_.predict_lower}
    if hasattr(estimator, "judge_"):
        columns["judge"] = estimator.judge_.predict
    scores = {name: predict(sequences) if sequences else np.empty(0) for name, predict in columns.items()}
    table = pd.DataFrame({"role": role, "sequence": pd.Series(sequences, dtype=object)} | scores)
    table.insert(3, "penalty", table["mean"] - table["lower"])
    table["measured"] = np.nan if measured is None else measured
    table.insert(0, "id", [f"{role.replace(' ', '_')}_{i + 1}" for i in range(len(table))])
    return table


def _shortage(found: int, n: int, n_candidates: int, rejected: dict[str, int], gain: dict[str, int]) -> str:
    """Which limit to loosen, where fewer designs were found than wanted."""
    limit = max(gain, key=lambda name: (gain[name], rejected[name]))
    said = f"{found:,} of {n:,} designs found among {n_candidates:,} different candidates; "
    if not rejected[limit]:
        return said + "no limit rejected any: pass more n_candidates, or fine-tune with a larger alpha."
    others = ", ".join(f"{name} {count:,}" for name, count in rejected.items() if count and name != limit)
    others = f" (others: {others})" if others else ""
    remedy = "measured sequences were drawn again" if limit == "X" else f"loosen {limit}"
    return said + f"{limit} rejected {rejected[limit]:,}{others}: {remedy}, or pass more n_candidates."
