"""A batch to order: the best lower bounds that meet the limits of a laboratory, with controls."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from braidkit.evaluation.arguments import check_fitted, draws_slowly, read_measured
from braidkit.evaluation.choosing import choose_different, default_candidates, default_identity
from braidkit.evaluation.designs import MAX_HOMOPOLYMER
from braidkit.evaluation.metrics import gc_content, shuffle_dinucleotides
from braidkit.evaluation.vector_designs import vector_batch
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_number, check_random_state, is_number
from braidkit.spaces import Limits, SequenceSpace
from braidkit.spaces.automaton import Automaton
from braidkit.spaces.restrictions import FREE, automata_by_limit, check_restrictions

# Shuffles of one design that are tried for one that meets the limits.
_MAX_SHUFFLES = 10

Checks = dict[str, Callable[[Sequence[str]], np.ndarray]]  # from n sequences to n booleans: which meet the limit


def select(
    estimator: Any,
    X: Any = None,
    y: Any = None,
    *,
    n_designs: int = 100,
    max_identity: float | None = None,
    gc: tuple[float, float] | None = None,
    max_homopolymer: int | None = MAX_HOMOPOLYMER,
    forbidden: Sequence[str] = (),
    sites: Sequence[str] = (),
    template: str | None = None,
    n_candidates: int | None = None,
    n_controls: int = 5,
    random_state: int | np.random.RandomState | None = None,
) -> pd.DataFrame:
    """Draw candidates and keep the best lower bounds that meet the limits and differ from each other.

    Candidates are taken from the best bound downwards. One that is too similar to a design already taken is passed
    over. Give limits that are known before the fit to the design space instead (`braidkit.spaces.Limits`): then the
    model makes no other designs.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
        Or another with ``sample``, ``space_`` and ``reward_``; on sequences or vectors.
    X : sequence of str, or array-like of shape (n_samples, n_features), optional
        The measured designs, needed for vectors: no design is one of them, and the best are controls.
    y : array-like of shape (n_samples,), optional
        Their measurements; with X.
    n_designs : int, default=100
        Designs wanted.
    max_identity : float, optional
        Most that two designs may be alike: 1 - edit distance / length. In (0, 1]; 1 only keeps them different. The
        default is that of `design_table`.
    gc : tuple of two floats, optional
        Least and greatest share of G and C, both allowed; for DNA and RNA.
    max_homopolymer : int or None, default=8
        Longest run of one letter.
    forbidden : sequence of str
        Words that no design may hold, as written.
    sites : sequence of str
        Words that no design may hold on either strand, such as sites of restriction enzymes; for DNA and RNA.
    template : str, optional
        Protected positions: a sequence of the designs' length with letters where they must stand and "." elsewhere.
    n_candidates : int, optional
        Designs drawn, by default as in `design_table`.
    n_controls : int, default=5
        Controls of each kind, after the designs: the measured sequences with the highest measurements, if there are X
        and y, and designs whose letters were shuffled, neighbouring pairs kept. Both meet the limits, but for
        `max_identity`; protected letters are put back after shuffling. Vectors are not shuffled.
    random_state : int, RandomState or None

    Returns
    -------
    table : DataFrame
        Columns "id"; "role" ("design", "best measured" or "shuffled design"); "sequence"; "mean", "penalty" and
        "lower", in y's units; "judge", if the estimator has one; "measured", for measured sequences. Its ``attrs`` hold
        "n_candidates", the different sequences drawn, and "rejected": how many of them did not meet each limit, by the
        name of its parameter. A sequence may fail several limits.

    Warns
    -----
    UserWarning
        If fewer than `n_designs` designs are found, naming the limit to loosen.

    Raises
    ------
    InvalidParameterError
        If the designs are pictures, an argument is out of range, or a limit can be met by none. Raised before
        any design is drawn.

    Examples
    --------
    >>> from braidkit import ConservativeDiffusionFinetuner, SequenceSpace, SimplexDiffusion, make_utr
    >>> from braidkit.evaluation import select
    >>> X, y = make_utr(60, random_state=0)
    >>> chain = SimplexDiffusion(SequenceSpace("DNA", 50), n_steps=3).fit(X, max_iter=5, random_state=0)
    >>> finetuner = ConservativeDiffusionFinetuner(chain, max_iter=1, batch_size=16, random_state=0).fit(X, y)
    >>> table = select(finetuner, X, y, n_designs=3, n_candidates=50, n_controls=1, random_state=0)
    >>> table["role"].tolist()
    ['design', 'design', 'design', 'best measured', 'shuffled design']
    """
    check_fitted(estimator)
    if missing := [name for name in ("sample", "space_", "reward_") if not hasattr(estimator, name)]:
        raise InvalidParameterError(f"estimator has no {missing[0]}; pass a fitted ConservativeDiffusionFinetuner.")
    space = estimator.space_
    if space.alphabet is None and not space.has_columns:
        raise InvalidParameterError(f"select is for sequences and vectors, but the designs are in {space}.")
    check_number("n_designs", n_designs, low=1, whole=True)
    check_number("n_controls", n_controls, low=0, whole=True)
    if max_identity is not None:
        check_number("max_identity", max_identity, low=0, high=1, above=True)
    n_drawn = default_candidates(n_designs, slow=draws_slowly(estimator)) if n_candidates is None else n_candidates
    check_number("n_candidates", n_drawn, low=1, whole=True)
    if y is not None and X is None:
        raise InvalidParameterError("y has no designs; pass X as well.")
    if space.has_columns:
        of_letters = {
            "gc": gc,
            "max_homopolymer": max_homopolymer not in (None, MAX_HOMOPOLYMER),
            "forbidden": list(forbidden),
            "sites": list(sites),
            "template": template,
        }
        if given := [name for name, value in of_letters.items() if value]:
            raise InvalidParameterError(f"{given[0]} is a limit of sequences, but the designs are vectors.")
        return vector_batch(
            estimator,
            X,
            y,
            n_designs=n_designs,
            n_candidates=n_drawn,
            max_identity=max_identity,
            n_controls=n_controls,
            random_state=random_state,
        )
    measured, y = ([] if X is None else space.strings(X), None) if y is None else read_measured(X, y, estimator)
    max_identity = default_identity(space, measured) if max_identity is None else max_identity
    limits = check_limits(
        space, gc=gc, max_homopolymer=max_homopolymer, forbidden=forbidden, sites=sites, template=template
    )
    rng = check_random_state(random_state)

    drawn = estimator.sample(n_drawn, rng)
    candidates = list(dict.fromkeys(space.strings(drawn)))
    known = set(measured)
    checks = limits | ({"X": lambda rows: np.array([row not in known for row in rows])} if known else {})
    fails = np.array([~meets(candidates) for meets in checks.values()]).reshape(len(checks), len(candidates))
    fit = [candidates[i] for i in np.flatnonzero(~fails.any(axis=0))]
    order = np.argsort(-np.asarray(estimator.reward_.predict_lower(fit)), kind="stable") if fit else np.empty(0, int)
    chosen, n_alike = choose_different(fit, order, n_designs, max_identity)
    designs = [fit[i] for i in chosen]
    rejected = dict(zip(checks, fails.sum(axis=1).tolist(), strict=True)) | {"max_identity": n_alike}
    if len(designs) < n_designs:
        alone = (fails & (fails.sum(axis=0) == 1)).sum(axis=1).tolist()
        gain = dict(zip(checks, alone, strict=True)) | {"max_identity": n_alike}
        warnings.warn(_shortage(len(designs), n_designs, len(candidates), rejected, gain), stacklevel=2)

    parts = [_part(estimator, "design", designs)]
    if y is not None:
        best = _meeting(limits, measured, np.argsort(-y, kind="stable"))[:n_controls]
        parts.append(_part(estimator, "best measured", [measured[i] for i in best], y[best]))
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
    sites: Sequence[str],
    template: str | None,
) -> Checks:
    """Limits on single sequences, by the name of their parameter; raises for those that no sequence can meet."""
    limits: Checks = {}
    if gc is not None:
        low, high = _two_shares(gc)
        if space.name not in ("DNA", "RNA"):
            raise InvalidParameterError(f"gc is for DNA and RNA, but the designs are written in {space.alphabet}.")
        limits["gc"] = lambda rows: (low <= (share := gc_content(rows))) & (share <= high)
    words = Limits(forbidden=forbidden, sites=sites, max_homopolymer=max_homopolymer).checked(space.letters)
    for name, part in automata_by_limit(space.letters, words).items():
        limits[name] = functools.partial(_meets, part, space)
    if template is not None:
        if space.letters.padding is not None:
            raise InvalidParameterError(
                "template is for designs of one length; hold letters by the space: SequenceSpace(template=...)."
            )
        if not isinstance(template, str) or len(template) != space.length or set(template) - set(space.alphabet + "."):
            raise InvalidParameterError(
                f"template must have {space.length} characters, each one of {space.alphabet} or '.'; got {template!r}."
            )
        held = [(i, letter) for i, letter in enumerate(template) if letter != "."]
        limits["template"] = lambda rows: np.array([all(row[i] == letter for i, letter in held) for row in rows])
    letters = _held_letters(space, template)
    check_restrictions(space.letters, letters, words)
    if gc is not None and space.letters.padding is None:
        n_gc, n_free = sum(map(letters.count, "GC")), letters.count(FREE)
        least, most = n_gc / space.length, (n_gc + n_free) / space.length
        if high < least or low > most:
            raise InvalidParameterError(
                f"gc={gc!r} cannot be met: with the held letters the share is from {least:.3g} to {most:.3g}."
            )
    return limits


def _held_letters(space: SequenceSpace, template: str | None) -> str:
    """The letters that a template of dots and the space hold together, `FREE` elsewhere."""
    own = space.template or FREE * space.length
    asked = own if template is None else template.replace(".", FREE)
    for i, (new, old) in enumerate(zip(asked, own, strict=True)):
        if FREE not in (new, old) and new != old:
            raise InvalidParameterError(f"template has {new!r} at position {i + 1}, where all designs have {old!r}.")
    return "".join(old if new == FREE else new for new, old in zip(asked, own, strict=True))


def _meets(automaton: Automaton, space: SequenceSpace, rows: Sequence[str]) -> np.ndarray:
    """Which rows an automaton accepts."""
    return automaton.meets(torch.from_numpy(space.points(rows).rows)).numpy() if len(rows) else np.zeros(0, dtype=bool)


def _two_shares(gc: Any) -> tuple[float, float]:
    """Least and greatest share of G and C."""
    pair = list(gc) if isinstance(gc, (tuple, list, np.ndarray)) else []
    if len(pair) != 2 or not all(map(is_number, pair)) or not 0 <= pair[0] <= pair[1] <= 1:
        raise InvalidParameterError(f"gc must be two shares, (least, greatest), such as (0.4, 0.6); got {gc!r}.")
    return float(pair[0]), float(pair[1])


def _meeting(limits: Checks, rows: list[str], order: Sequence[int] | np.ndarray) -> list[int]:
    """The row numbers, in their order, of rows that meet all limits."""
    met = np.logical_and.reduce([np.ones(len(rows), dtype=bool), *(meets(rows) for meets in limits.values())])
    return [int(i) for i in order if met[i]]


def _shuffled(
    designs: list[str], limits: Checks, template: str | None, n: int, rng: np.random.RandomState
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
    """The warning for too few designs; it names the limit to loosen."""
    limit = max(gain, key=lambda name: (gain[name], rejected[name]))
    said = f"{found:,} of {n:,} designs found among {n_candidates:,} different candidates; "
    if not rejected[limit]:
        return said + "no limit rejected any: pass more n_candidates, or fine-tune with a larger alpha."
    others = ", ".join(f"{name} {count:,}" for name, count in rejected.items() if count and name != limit)
    others = f" (others: {others})" if others else ""
    remedy = "measured sequences were drawn again" if limit == "X" else f"loosen {limit}"
    return said + f"{limit} rejected {rejected[limit]:,}{others}: {remedy}, or pass more n_candidates."
