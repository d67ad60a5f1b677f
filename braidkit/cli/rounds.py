"""Rounds: a run that continues with the measurements, the chain and the designs of an earlier one."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from braidkit.cli.measured import read_measured, read_measured_rows
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
# Digits of numbers in the table of designs, by which measured recipes are found among them.
DIGITS = 6

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

    def check(self, new: Table, objective: str | None = None) -> RoundCheck | None:
        """Compare predictions of the earlier designs with their measurements; None if another objective was asked."""
        had_objective = f"{self.table.targets[0]}_mean" in self.designs
        if had_objective != (objective is not None):
            return None
        if objective is None:
            return self._compared(new, new.y)
        finetuner = ConservativeDiffusionFinetuner.load(self.path)
        if finetuner.objective != objective:
            return None
        return self._compared(new, finetuner.reward_.combine(new.columns()))

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
            raise InvalidParameterError(
                f"--previous {self.path} measured {', '.join(old.targets)}, and the table measures "
                f"{', '.join(new.targets)}; if it is the same quantity, name it so: --target "
                f"{old.targets[0]}={new.targets[0]}."
            )

    def _measurements(self, new: Table, groups: np.ndarray) -> dict[str, Any]:
        """Measurements of both rounds by group of equal designs, as fields of a table."""
        old = self.table
        y, error, weight = _averaged(old, new, groups)
        notes = [*new.notes, f"{len(old.y):,} of the run before"]
        for name, one, other in (
            ("standard errors", old.y_error, new.y_error),
            ("weights", old.sample_weight, new.sample_weight),
        ):
            if (one is None) != (other is None):
                notes.append(f"{name} left out, which only one round has")
        return {
            "y": y,
            "y_error": error,
            "sample_weight": weight,
            "n_rows": new.n_rows + len(old.y),
            "n_averaged": new.n_averaged + len(groups) - len(y),
            "notes": tuple(notes),
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
        if not new.space.makes_same(old.space):
            raise IncompatibleModelError(
                f"--previous {self.path} is a run on {old.space.length}-letter {old.space.name}, but the table has "
                f"{new.space.length}-letter {new.space.name}; pass a table of such sequences (--alphabet tells letters "
                "that were guessed wrongly), or leave out --previous."
            )
        self._check_targets(new)
        groups, sequences = pd.factorize(np.array([*old.sequences, *new.sequences], dtype=object))
        return replace(new, sequences=sequences.tolist(), **self._measurements(new, groups))

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

    def pooled(self, new: MeasuredVectors) -> MeasuredVectors:
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
        real = {
            table.space.columns.all_names[i]
            for table in tables
            for i in set(found_whole(table.X)) & set(table.space.columns.plain) - set(table.space.columns.whole)
        }
        X, space = to_space({name: both[name].to_numpy() for name in names}, sorted(real))
        groups = design_groups(X)
        first = np.unique(groups, return_index=True)[1]
        places = [*(f"{place} of the run before" for place in self.table.places), *new.places]
        measured = self._measurements(new, groups)
        return replace(new, X=X[first], places=[places[i] for i in first], space=space, **measured)

    @classmethod
    def _read_designs(cls, file: Path, space: Any) -> pd.DataFrame:
        designs = pd.read_csv(file, dtype=str, keep_default_na=False)
        designs = designs.set_axis(unquoted(pd.Series(designs.columns)), axis="columns")
        written = dict(zip(space.columns.frame_names, design_columns(space), strict=True))
        labels = [written[name] for name in space.columns.one_of]
        numbers = [name for name in written.values() if name not in labels]
        for name in [*numbers, "mean", "lower"]:
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
        measured = new.space.to_frame(new.X)[space.columns.frame_names]
        return compare_keys(self.designs, _keys(self.designs[written]), _keys(measured), y, written)


def _keys(settings: pd.DataFrame) -> list[str]:
    """A text for each row, the same for settings that a table of designs does not tell apart."""
    texts = [[v if isinstance(v, str) else f"{float(v) + 0.0:.{DIGITS}g}" for v in settings[name]] for name in settings]
    return ["\t".join(row) for row in zip(*texts, strict=True)]


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
        share = np.nan_to_num(errors.reshape(columns.shape) ** -2.0, nan=1.0)
    total = _sums(share, groups)
    shape = (-1,) if y.ndim == 1 else (-1, columns.shape[1])
    error = None
    if errors is not None:
        known = np.isfinite(_sums(errors.reshape(columns.shape), groups))
        error = np.where(known, total**-0.5, np.nan).reshape(shape)
    weight = None if weights is None else np.bincount(groups, weights=weights)
    return (_sums(share * columns, groups) / total).reshape(shape), error, weight


def _both(old: np.ndarray | None, new: np.ndarray | None) -> np.ndarray | None:
    return None if old is None or new is None else np.concatenate([old, new])


def _sums(columns: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums (n_groups, k) of columns (n, k) by group."""
    return np.column_stack([np.bincount(groups, weights=column) for column in columns.T])
