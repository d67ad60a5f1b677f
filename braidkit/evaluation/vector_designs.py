"""The designs of a run on rows of numbers, such as recipes: chosen, described and scored as sequences are."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from braidkit.evaluation.arguments import read_measured
from braidkit.evaluation.choosing import (
    MAX_IDENTITY,
    MAX_RARITY,
    RARE,
    choose_rows_apart,
    concerns,
    default_candidates,
    poor_predictions,
    serious_flags,
)
from braidkit.evaluation.flags import in_words, kept_pretrained, usual_flags
from braidkit.evaluation.quantities import columns_of, quantity_columns, reward_of_quantities, unsure_conditions
from braidkit.evaluation.row_distance import RowDistance
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.optimum import BATCH, approximates_optimum, moved_to_optimum
from braidkit.parameters import check_number, check_random_state
from braidkit.progress import Progress
from braidkit.spaces import VectorSpace, design_groups

# Measured rows, drawn at random, whose penalties the designs' are compared with.
_N_PENALTIES = 2000
# Times that the default limit on likeness is halved where it leaves too few designs.
_HALVINGS = 4
# Columns of the tables, which those of the designs may not be called by; and what the latter are called then.
_OWN = ("id", "role", "mean", "penalty", "lower", "judge", "nearest", "nearest_value", "distance", "rarity", "at_bound")
_OWN_TOO = ("flags", "measured", "log_likelihood", "sequence", "holds")
_PREFIX = "column "


def vector_table(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    n_designs: int,
    n_candidates: int | None,
    max_identity: float | None,
    random_state: int | np.random.RandomState | None,
) -> pd.DataFrame:
    """`design_table` of vectors; arguments are checked but for `n_candidates`."""
    n_drawn = default_candidates(n_designs) if n_candidates is None else n_candidates
    check_number("n_candidates", n_drawn, low=n_designs, whole=True)
    measured, y = read_measured(X, y, estimator)
    distance = RowDistance(estimator.space_, measured)
    rng = check_random_state(random_state)
    rows, figures = _draw(estimator, n_drawn, rng)
    known, rare = distance.nearest(rows)[1] == 0, figures["rarity"].to_numpy() > MAX_RARITY
    order = np.lexsort([-figures["lower"], rare, known])
    texts: list[str] = []
    chosen, n_alike = _chosen(distance, rows, order, n_designs, max_identity, texts)
    table = scored_rows(estimator, rows[chosen], distance, y)
    flags: dict[str, Any] = {
        **usual_flags(estimator, table, measured, y, rng, _N_PENALTIES),
        RARE: rare[chosen],
        **unsure_conditions(estimator, rows[chosen]),
    }
    table["rarity"] = figures["rarity"].to_numpy()[chosen]
    table["at_bound"] = _at_bound(estimator.space_, rows[chosen])
    table["flags"] = in_words(flags)
    table = table.sort_values("lower", ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "id", [f"design_{i + 1}" for i in range(len(table))])
    texts += concerns(table, y, n_designs=n_designs, n_drawn=n_drawn, n_different=len(rows))
    texts += kept_pretrained(estimator, n_drawn) + poor_predictions(estimator)
    for text in texts:
        warnings.warn(text, stacklevel=3)
    table.attrs.update(
        n_drawn=n_drawn,
        n_candidates=len(rows),
        rejected={"X": int(known.sum()), "rarity": int(rare.sum()), "max_identity": n_alike},
        n_doubtful=len(serious_flags(table["flags"])),
        moved={},
        warnings=texts,
    )
    return table


def vector_batch(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    n_designs: int,
    n_candidates: int | None,
    max_identity: float | None,
    n_controls: int,
    random_state: int | np.random.RandomState | None,
) -> pd.DataFrame:
    """`select` of vectors; arguments are checked but for `n_candidates`. The controls are the best measured rows."""
    if X is None:
        raise InvalidParameterError("distances of vectors are told by the measured ones; pass X.")
    n_drawn = default_candidates(n_designs) if n_candidates is None else n_candidates
    check_number("n_candidates", n_drawn, low=1, whole=True)
    measured, values = read_measured(X, np.zeros(len(X)) if y is None else y, None if y is None else estimator)
    measured = np.asarray(measured, dtype=np.float64)
    distance = RowDistance(estimator.space_, measured)
    drawn = np.asarray(estimator.sample(n_drawn, check_random_state(random_state)))
    rows = drawn[np.unique(design_groups(drawn), return_index=True)[1]]
    known = distance.nearest(rows)[1] == 0
    fit = rows[~known]
    order = np.argsort(-np.asarray(estimator.reward_.predict_lower(fit)), kind="stable") if len(fit) else np.arange(0)
    texts: list[str] = []
    chosen, n_alike = _chosen(distance, fit, order, n_designs, max_identity, texts)
    parts = {"design": fit[chosen]}
    if y is not None:
        best = np.argsort(-values, kind="stable")[:n_controls]
        parts["best measured"] = measured[best]
    if len(chosen) < n_designs:
        texts.append(
            f"{len(chosen):,} of {n_designs:,} designs found among {len(rows):,} different candidates; max_identity "
            f"rejected {n_alike:,}, and {int(known.sum()):,} were measured already: loosen max_identity, or pass more "
            "n_candidates."
        )
    for text in texts:
        warnings.warn(text, stacklevel=3)
    tables = []
    for role, some in parts.items():
        if len(some):
            table = _predicted(estimator, some)
            table.insert(0, "role", role)
            table.insert(0, "id", [f"{role.replace(' ', '_')}_{i + 1}" for i in range(len(table))])
            tables.append(table.assign(measured=np.nan if role == "design" else values[best]))
    found = pd.concat(tables, ignore_index=True) if tables else _predicted(estimator, measured[:1])[:0]
    found.attrs.update(n_candidates=len(rows), rejected={"X": int(known.sum()), "max_identity": n_alike})
    return found


def scored_rows(estimator: Any, rows: NDArray[np.float64], distance: RowDistance, y: np.ndarray) -> pd.DataFrame:
    """Rows (n, n_features) as a table with their predictions and the nearest measured rows."""
    table = _predicted(estimator, rows)
    index, apart = distance.nearest(rows)
    return table.assign(nearest=index, nearest_value=y[index], distance=apart)


def rows_of(estimator: Any, table: pd.DataFrame) -> NDArray[np.float64]:
    """The rows (n, n_features) that a table of designs is of."""
    space = estimator.space_
    missing = [name for name in design_columns(space) if name not in table]
    if missing:
        raise InvalidParameterError(f"designs has no column {missing[0]!r}; pass a table of design_table.")
    return space.from_frame(table[design_columns(space)].set_axis(space.columns.frame_names, axis="columns"))


def design_columns(space: VectorSpace) -> list[str]:
    """The columns of a table of designs that make up a design."""
    return [_shown(name) for name in space.columns.frame_names]


def check_names(space: VectorSpace, quantities: Sequence[str]) -> None:
    """Raise if a column is called as one that tables have of a quantity of an objective."""
    for name in space.columns.frame_names:
        if (quantity := next((one for one in quantities if name in columns_of(one)), None)) is not None:
            raise InvalidParameterError(
                f"column {name!r} is called as that of a prediction of {quantity!r} in tables of designs; rename the "
                f"column, or give the target another name, as in 'value={quantity}'."
            )


def _shown(name: str) -> str:
    """The name of a column in a table that has columns of its own; different ones stay different."""
    bare = name
    while bare.startswith(_PREFIX):
        bare = bare.removeprefix(_PREFIX)
    return _PREFIX + name if bare in (*_OWN, *_OWN_TOO) else name


def _predicted(estimator: Any, rows: NDArray[np.float64]) -> pd.DataFrame:
    """Rows as a table, with their predictions."""
    reward = reward_of_quantities(estimator)
    check_names(estimator.space_, [] if reward is None else list(reward.predict_parts(rows[:1])))
    mean, lower = estimator.reward_.predict(rows), estimator.reward_.predict_lower(rows)
    columns = {"mean": mean, "penalty": mean - lower, "lower": lower}
    if hasattr(estimator, "judge_"):
        columns |= {"judge": estimator.judge_.predict(rows), **quantity_columns(estimator, rows)}
    table = estimator.space_.to_frame(rows)
    return table.rename(columns=_shown).assign(**columns)


def _chosen(
    distance: RowDistance,
    rows: NDArray[np.float64],
    order: np.ndarray,
    n: int,
    max_identity: float | None,
    texts: list[str],
) -> tuple[list[int], int]:
    """Places of rows that differ enough, and how many were passed over; a smaller default limit is told in `texts`."""
    points, least = distance.coordinates(rows), 1 - (MAX_IDENTITY if max_identity is None else max_identity)
    chosen, n_alike = choose_rows_apart(points, order, n, least * distance.typical())
    if len(chosen) < n and max_identity is None:
        for _ in range(_HALVINGS):
            least /= 2
            chosen, n_alike = choose_rows_apart(points, order, n, least * distance.typical())
            if len(chosen) == n:
                break
        texts.append(
            f"designs are much alike: some are {100 * least:.1f} % of the distance of two measured "
            "rows apart. A larger alpha keeps them more diverse."
        )
    return chosen, n_alike


def _at_bound(space: VectorSpace, rows: NDArray[np.float64]) -> list[str]:
    """Of each row, names of the columns of numbers that are at an end of their range; more may lie beyond it."""
    if space.bounds is None:
        return [""] * len(rows)
    names = {i: space.columns.all_names[i] for i in space.columns.plain}
    ends = np.isclose(rows, space.bounds[0], rtol=1e-6, atol=0) | np.isclose(rows, space.bounds[1], rtol=1e-6, atol=0)
    free = [i for i in names if i not in space.held_columns and i not in space.columns.whole]
    return [", ".join(names[i] for i in free if row[i]) for row in ends]


def _draw(estimator: Any, n: int, rng: np.random.RandomState) -> tuple[NDArray[np.float64], pd.DataFrame]:
    """The different designs (m, n_features) of n draws, with "lower", in y's units, and "rarity" of each."""
    model, space, pretrained = estimator.model_, estimator.space_, estimator.pretrained_
    generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
    refined = approximates_optimum(estimator)
    rows, rarity = [], []
    with Progress(n, "candidates", shown=bool(getattr(estimator, "verbose", 0))) as progress:
        for start in range(0, n, BATCH):
            size = min(BATCH, n - start)
            points = model.sample_points(model.draw_noise(size, generator))
            points = moved_to_optimum(estimator, points, generator) if refined else points
            rows.append(space.decode(points))
            rarity.append(pretrained.rarity(points).cpu().numpy())
            progress.update(size)
    joined = np.concatenate(rows)
    first = np.unique(design_groups(joined), return_index=True)[1]
    lower = estimator.reward_.predict_lower(joined[first])
    return joined[first], pd.DataFrame({"lower": lower, "rarity": np.concatenate(rarity)[first]})
