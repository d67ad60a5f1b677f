"""Rounds: a run that continues with the measurements, the chain and the designs of an earlier one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from braidkit.cli.measured import read_measured
from braidkit.datasets.table import MeasuredTable, unquoted
from braidkit.diffusion import DiffusionModel
from braidkit.evaluation.arguments import check_table
from braidkit.evaluation.rounds import RoundCheck, check_round
from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError
from braidkit.finetuning import ConservativeDiffusionFinetuner
from braidkit.finetuning.saved import PRETRAINED
from braidkit.persistence import is_saved
from braidkit.spaces import SequenceSpace
from braidkit.spaces.sequences import ALPHABETS

DESIGNS = "designs.csv"


@dataclass(frozen=True)
class PreviousRun:
    """The parts of an earlier run that a new round needs.

    Attributes
    ----------
    path : Path
    table : MeasuredTable
        All that was measured for it.
    designs : DataFrame
        What it proposed.
    """

    path: Path
    table: MeasuredTable
    designs: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> PreviousRun:
        """Read the directory of a run.

        Raises
        ------
        CheckpointError
            If it holds no run of sequences that has ended.
        """
        if not is_saved(path / PRETRAINED):
            raise CheckpointError(f"--previous {path} is no run of braidkit design that has ended.")
        space = DiffusionModel.from_pretrained(path / PRETRAINED).space
        if not isinstance(space, SequenceSpace):
            raise CheckpointError(f"{path} is a run on {space.designs}, not on sequences.")
        try:
            designs = pd.read_csv(path / DESIGNS, dtype={"sequence": str}, keep_default_na=False)
            designs["sequence"] = unquoted(designs["sequence"])
            check_table(designs, DESIGNS, texts=("sequence",), numbers=("mean", "lower"))
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path / DESIGNS} cannot be read ({error}); pass a run that has ended.") from error
        return cls(path, read_measured(path, space), designs)

    @property
    def pretrained(self) -> Path:
        """Directory of the chain that its designs came from by fine-tuning."""
        return self.path / PRETRAINED

    @property
    def alphabet(self) -> str | None:
        """Letters to read the new table by, where they cannot be guessed."""
        letters = self.table.space.alphabet
        return None if letters in ALPHABETS.values() else letters

    def check(self, new: MeasuredTable, objective: str | None = None) -> RoundCheck | None:
        """Compare predictions of the earlier designs with their measurements; None if another objective was asked."""
        had_objective = f"{self.table.targets[0]}_mean" in self.designs
        if had_objective != (objective is not None):
            return None
        if objective is None:
            return check_round(self.designs, new.sequences, new.y)
        finetuner = ConservativeDiffusionFinetuner.load(self.path)
        if finetuner.objective != objective:
            return None
        return check_round(self.designs, new.sequences, finetuner.reward_.combine(new.columns()))

    def pooled(self, new: MeasuredTable) -> MeasuredTable:
        """The rows of both rounds; those of one sequence are averaged, by their errors or weights if both have them.

        Raises
        ------
        IncompatibleModelError
            If the new rows have another alphabet or length.
        InvalidParameterError
            If they measure something else, by its name.
        """
        old = self.table
        if not new.space.makes_same(old.space):
            raise IncompatibleModelError(
                f"--previous {self.path} is a run on {old.space.length}-letter {old.space.name}, but the table has "
                f"{new.space.length}-letter {new.space.name}; pass a table of such sequences (--alphabet tells letters "
                "that were guessed wrongly), or leave out --previous."
            )
        if new.targets != old.targets:
            raise InvalidParameterError(
                f"--previous {self.path} measured {', '.join(old.targets)}, and the table measures "
                f"{', '.join(new.targets)}; if it is the same quantity, name it so: --target "
                f"{old.targets[0]}={new.targets[0]}."
            )
        groups, sequences = pd.factorize(np.array([*old.sequences, *new.sequences], dtype=object))
        n_both = len(groups) - len(sequences)
        y, error, weight = _averaged(old, new, groups)
        left_out = [
            f"{name} left out, which only one round has"
            for name, one, other in (
                ("standard errors", old.y_error, new.y_error),
                ("weights", old.sample_weight, new.sample_weight),
            )
            if (one is None) != (other is None)
        ]
        return replace(
            new,
            sequences=sequences.tolist(),
            y=y,
            y_error=error,
            sample_weight=weight,
            n_rows=new.n_rows + len(old.sequences),
            n_averaged=new.n_averaged + n_both,
            notes=(*new.notes, f"{len(old.sequences):,} of the run before", *left_out),
        )


def _averaged(
    old: MeasuredTable, new: MeasuredTable, groups: np.ndarray
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
