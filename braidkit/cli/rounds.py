"""Rounds: a run that continues with the measurements, the chain and the designs of an earlier one."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from sklearn.neighbors import NearestNeighbors

from braidkit.cli.measured import MEASURED, read_measured, read_measured_rows
from braidkit.cli.run_directory import RunDirectory
from braidkit.datasets.measured import MeasuredDesigns
from braidkit.datasets.table import MeasuredTable, unquoted
from braidkit.datasets.vector_table import MeasuredVectors, check_labels, to_space
from braidkit.diffusion import DiffusionModel
from braidkit.evaluation.arguments import check_table
from braidkit.evaluation.rounds import RoundCheck, check_round, compare_keys
from braidkit.evaluation.vector_designs import design_columns
from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError
from braidkit.finetuning import ConservativeDiffusionFinetuner
from braidkit.finetuning.saved import PRETRAINED
from braidkit.persistence import is_saved
from braidkit.spaces import SequenceSpace, Space, VectorSpace, design_groups
from braidkit.spaces.columns import found_whole
from braidkit.spaces.sequences import ALPHABETS

DESIGNS = "designs.csv"
# The unit is in doubt if all new measurements lie beyond the old ones by more than this many times the old range.
FAR_OFF = 3
# How far a setting may be from that of a design which it was made by, as a share of the range that most rows span.
NEAR = 0.02
# A setting in the table of designs is rounded by less than this share of its column's range.
ROUNDING = 1e-3

Table = TypeVar("Table", MeasuredTable, MeasuredVectors)


@dataclass(frozen=True)
class PreviousRun(abc.ABC, Generic[Table]):
    """The parts of an earlier run that a new round needs.

    Attributes
    ----------
    path : Path
    table : MeasuredTable or MeasuredVectors
        All that was measured for it.
    designs : DataFrame
        What it proposed.
    """

    path: Path
    table: Table
    designs: pd.DataFrame

    space_type: ClassVar[type[Space]]
    makes: ClassVar[str]  # what its designs are

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the directory of a run.

        Raises
        ------
        CheckpointError
            If it holds no run that has ended, or one of other designs.
        """
        if not is_saved(path / PRETRAINED):
            raise CheckpointError(f"--previous {path} is no run of braidkit design that has ended.")
        space = DiffusionModel.from_pretrained(path / PRETRAINED).space
        if not isinstance(space, cls.space_type):
            raise CheckpointError(
                f"--previous {path} is a run on {space.designs}, not on {cls.makes}; pass a run on {cls.makes}, or "
                "leave out --previous."
            )
        try:
            designs = cls._read_designs(path / DESIGNS, space)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path / DESIGNS} cannot be read ({error}); pass a run that has ended.") from error
        return cls(path, cls._read_table(path, space), designs)

    def check_kept(self, directory: RunDirectory) -> None:
        """Raise CheckpointError if a new run in a directory would replace this one."""
        for part in (PRETRAINED, MEASURED, DESIGNS):
            directory.check_input(self.path / part)

    def check(self, new: Table, objective: str | None = None) -> RoundCheck:
        """Compare predictions of the earlier designs with their measurements, unless another objective is asked for."""
        finetuner = ConservativeDiffusionFinetuner.load(self.path)
        if finetuner.objective != objective:
            was, now = (repr(text or new.targets[0]) for text in (finetuner.objective, objective))
            check = self._compared(new, np.zeros(len(new.y)))
            another = f"it was to make {was} large, and this one {now}"
            return replace(check, table=check.table[:0], another=another)
        return self._compared(new, new.y if objective is None else finetuner.reward_.combine(new.columns()))

    @abc.abstractmethod
    def pooled(self, new: Table) -> Table:
        """The rows of both rounds; those of one design are averaged, by their errors or weights if both have them.

        Raises
        ------
        IncompatibleModelError
            If the new rows are of other designs.
        InvalidParameterError
            If they measure something else, by its name.
        """

    @classmethod
    @abc.abstractmethod
    def _read_designs(cls, file: Path, space: Any) -> pd.DataFrame:
        """What the run proposed, with its predictions."""

    @classmethod
    @abc.abstractmethod
    def _read_table(cls, path: Path, space: Any) -> Table:
        """What was measured for the run."""

    @abc.abstractmethod
    def _compared(self, new: Table, y: np.ndarray) -> RoundCheck:
        """The earlier designs beside values of the new rows."""

    def _check_targets(self, new: Table) -> None:
        """Raise unless both rounds measured the same."""
        old = self.table
        if new.targets != old.targets:
            lacking = [name for name in old.targets if name not in new.targets]
            more = [name for name in new.targets if name not in old.targets]
            remedy = "name the same by --target, in that order"
            if lacking and more:
                remedy = f"if it is the same quantity, name it so: --target {lacking[0]}={more[0]}"
            raise InvalidParameterError(
                f"--previous {self.path} measured {', '.join(old.targets)}, and the table measures "
                f"{', '.join(new.targets)}; {remedy}."
            )

    def _measurements(self, new: Table, groups: np.ndarray) -> dict[str, Any]:
        """Measurements of both rounds by group of equal designs, as fields of a table."""
        old = self.table
        y, error, weight = _averaged(old, new, groups)
        notes = [*new.notes, f"{len(old.y):,} of the run before"]
        for name, one, other in (
            ("standard errors", _noisy(old), _noisy(new)),
            ("weights", old.sample_weight is None, new.sample_weight is None),
        ):
            if one != other:
                notes.append(f"{name} left out, which only one round has")
        return {
            "y": y,
            "y_error": error,
            "sample_weight": weight,
            "n_rows": new.n_rows + len(old.y),
            "n_averaged": new.n_averaged + len(groups) - len(y),
            "notes": tuple(notes),
            "doubts": tuple(_other_units(old, new)),
        }


class PreviousSequences(PreviousRun[MeasuredTable]):
    """An earlier run on sequences, whose pretrained chain the new one takes."""

    space_type: ClassVar[type[Space]] = SequenceSpace
    makes: ClassVar[str] = "sequences"

    @property
    def pretrained(self) -> Path:
        """Directory of the chain that its designs came from by fine-tuning."""
        return self.path / PRETRAINED

    @property
    def alphabet(self) -> str | None:
        """Letters to read the new table by, where they cannot be guessed."""
        letters = self.table.space.alphabet
        return None if letters in ALPHABETS.values() else letters

    def pooled(self, new: MeasuredTable) -> MeasuredTable:
        old = self.table
        had, has = old.space.letters, new.space.letters
        if had.alphabet != has.alphabet or has.shortest < had.shortest or has.length > had.length:
            raise IncompatibleModelError(
                f"--previous {self.path} is a run on {had.in_words()}-letter {old.space.name}, but the table has "
                f"{has.in_words()}-letter {new.space.name}; pass a table of such sequences (--alphabet tells letters "
                "that were guessed wrongly), or leave out --previous."
            )
        self._check_targets(new)
        groups, sequences = pd.factorize(np.array([*old.sequences, *new.sequences], dtype=object))
        space = old.space.unrestricted()
        return replace(new, sequences=sequences.tolist(), space=space, **self._measurements(new, groups))

    @classmethod
    def _read_designs(cls, file: Path, space: Any) -> pd.DataFrame:
        designs = pd.read_csv(file, dtype={"sequence": str}, keep_default_na=False)
        designs["sequence"] = unquoted(designs["sequence"])
        check_table(designs, DESIGNS, texts=("sequence",), numbers=("mean", "lower"))
        return designs

    @classmethod
    def _read_table(cls, path: Path, space: Any) -> MeasuredTable:
        return read_measured(path, space)

    def _compared(self, new: MeasuredTable, y: np.ndarray) -> RoundCheck:
        return check_round(self.designs, new.sequences, y)


class PreviousRecipes(PreviousRun[MeasuredVectors]):
    """An earlier run on recipes. Ranges and labels are those of both rounds, so that a new chain is trained on them."""

    space_type: ClassVar[type[Space]] = VectorSpace
    makes: ClassVar[str] = "recipes"

    def pooled(self, new: MeasuredVectors, real: Sequence[str] = ()) -> MeasuredVectors:
        """As of other runs; `real` names columns of whole numbers in which designs may have any."""
        tables = (self.table, new)
        frames = [table.space.to_frame(table.X) for table in tables]
        names = list(frames[1])
        if set(frames[0]) != set(names):
            raise IncompatibleModelError(
                f"--previous {self.path} is a run on the columns {', '.join(frames[0])}, and --columns of the table "
                f"are {', '.join(names)}; name the same, or leave out --previous."
            )
        for name in names:
            if len({is_numeric_dtype(frame[name]) for frame in frames}) > 1:
                raise IncompatibleModelError(
                    f"column {name!r} has labels in one round and numbers in the other; write it alike in both."
                )
        self._check_targets(new)
        both = pd.concat([frame[names] for frame in frames], ignore_index=True)
        for name in new.space.columns.one_of:
            check_labels(name, both[name], f"both rounds, {self.path} and the table,")
        # Whole numbers that a user let be any number stay so.
        columns = self.table.space.columns
        known = {*columns.whole, *self.table.space.held_columns}
        were = {columns.all_names[i] for i in found_whole(self.table.X) if i in columns.plain and i not in known}
        X, space = to_space({name: both[name].to_numpy() for name in names}, sorted({*real, *were}))
        groups = design_groups(X)
        first = np.unique(groups, return_index=True)[1]
        run = self.path.resolve().name
        earlier = [place if " of " in place else f"{place} of {run}" for place in self.table.places]
        places = [*earlier, *new.places]
        measured = self._measurements(new, groups)
        measured["doubts"] += tuple(self._moved(new))
        return replace(new, X=X[first], places=[places[i] for i in first], space=space, **measured)

    def _moved(self, new: MeasuredVectors) -> list[str]:
        """One warning for each column whose new values all lie outside the range of earlier rows and designs."""
        space = self.table.space
        written = dict(zip(space.columns.frame_names, design_columns(space), strict=True))
        old, rows = space.to_frame(self.table.X), new.space.to_frame(new.X)
        texts = []
        for name in (name for name in old if is_numeric_dtype(old[name])):
            had = pd.concat([old[name], self.designs[written[name]]]) if len(self.designs) else old[name]
            if rows[name].min() > had.max() or rows[name].max() < had.min():
                texts.append(_apart(name, had, rows[name]))
        return texts

    @classmethod
    def _read_designs(cls, file: Path, space: Any) -> pd.DataFrame:
        designs = pd.read_csv(file, dtype=str, keep_default_na=False)
        designs = designs.set_axis(unquoted(pd.Series(designs.columns)), axis="columns")
        written = dict(zip(space.columns.frame_names, design_columns(space), strict=True))
        labels = [written[name] for name in space.columns.one_of]
        numbers = [name for name in written.values() if name not in labels]
        for name in [*numbers, *(name for name in ("mean", "lower", "judge") if name in designs)]:
            designs[name] = pd.to_numeric(designs[name])
        for name in labels:
            designs[name] = unquoted(designs[name])
        check_table(designs, DESIGNS, texts=tuple(labels), numbers=(*numbers, "mean", "lower"))
        return designs

    @classmethod
    def _read_table(cls, path: Path, space: Any) -> MeasuredVectors:
        return read_measured_rows(path, space)

    def _compared(self, new: MeasuredVectors, y: np.ndarray) -> RoundCheck:
        space = self.table.space
        written = design_columns(space)
        low, high = np.quantile(self.table.X, [0.1, 0.9], axis=0)
        near = {space.columns.all_names[i]: NEAR * (high - low)[i] for i in space.columns.plain}
        designs = self.designs[written].set_axis(space.columns.frame_names, axis="columns")
        made = _nearest(designs, new.space.to_frame(new.X), near)
        return compare_keys(self.designs, range(len(designs)), made, y, written)


def _nearest(designs: pd.DataFrame, measured: pd.DataFrame, near: dict[str, float]) -> list[int]:
    """Of each measured row the nearest design, by number, of the same labels and of numbers that are near; or -1."""
    points = []
    for name in designs:
        both = pd.concat([designs[name], measured[name]], ignore_index=True)
        if name in near:
            width = max(near[name], ROUNDING * float(np.ptp(both)))
            points.append(both.to_numpy(dtype=np.float64) / (width or 1.0))
        else:
            points.append(2.0 * pd.factorize(both)[0])  # so that other labels are too far
    rows = np.column_stack(points)
    search = NearestNeighbors(n_neighbors=1, metric="chebyshev").fit(rows[: len(designs)])
    apart, index = search.kneighbors(rows[len(designs) :])
    return np.where(apart[:, 0] <= 1, index[:, 0], -1).tolist()


def _averaged(
    old: MeasuredDesigns, new: MeasuredDesigns, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Means by group, their standard errors, and sums of weights, where both rounds have these."""
    y = np.concatenate([old.y, new.y])
    columns = y.reshape(len(y), -1)
    errors = _both(old.y_error, new.y_error)
    weights = _both(old.sample_weight, new.sample_weight)
    share = np.ones_like(columns) if weights is None else np.repeat(weights[:, None], columns.shape[1], axis=1)
    if errors is not None:
        told = errors.reshape(columns.shape)
        # Where only one round has those of a target, rows of both would be weighed by different units.
        share = np.where(np.isfinite(told).all(axis=0), told**-2.0, 1.0)
        errors = np.where(np.isfinite(told).all(axis=0), told, np.nan)
    total = _sums(share, groups)
    shape = (-1,) if y.ndim == 1 else (-1, columns.shape[1])
    error = None
    if errors is not None and np.isfinite(errors).any():
        error = np.where(np.isfinite(_sums(errors, groups)), total**-0.5, np.nan).reshape(shape)
    weight = None if weights is None else np.bincount(groups, weights=weights)
    return (_sums(share * columns, groups) / total).reshape(shape), error, weight


def _other_units(old: MeasuredDesigns, new: MeasuredDesigns) -> list[str]:
    """One warning for each target whose new values all lie far from the old ones."""
    texts = []
    columns = (table.y.reshape(len(table.y), -1).T for table in (old, new))
    for name, had, has in zip(old.targets, *columns, strict=True):
        margin = FAR_OFF * np.ptp(had)
        if has.min() > had.max() + margin or has.max() < had.min() - margin:
            texts.append(_apart(name, had, has))
    return texts


def _apart(name: str, had: Any, has: Any) -> str:
    """Say that the values of a column in two rounds do not overlap."""
    return (
        f"{name} was {had.min():g} to {had.max():g} in the round before, and is {has.min():g} to {has.max():g} in the "
        "table: check that both rounds have it in the same unit"
    )


def _noisy(table: MeasuredDesigns) -> tuple[bool, ...]:
    """Of which targets the standard errors are known."""
    columns = np.full((1, len(table.targets)), np.nan) if table.y_error is None else table.y_error
    return tuple(np.isfinite(columns.reshape(-1, len(table.targets))).any(axis=0).tolist())


def _both(old: np.ndarray | None, new: np.ndarray | None) -> np.ndarray | None:
    return None if old is None or new is None else np.concatenate([old, new])


def _sums(columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums (n_groups, k) of columns (n, k) by group."""
    return np.column_stack([np.bincount(groups, weights=column) for column in columns.T])
