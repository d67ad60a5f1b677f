"""Record the rounds of a selection in a file, so that no design is measured twice when a run is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from braidkit import persistence
from braidkit.exceptions import CheckpointError
from braidkit.finetuning.contracts import CheckpointSelection


class OracleRounds:
    """The rounds that a run has asked of its selection, by update; saved before anything else happens.

    Parameters
    ----------
    selection : CheckpointSelection
    decode : callable
        From points (n, \\*space.shape) to the designs that the selection measures.
    checkpoint : Path, optional
        Directory of a run that can be resumed. It identifies the run, and the file lies beside it.
    """

    def __init__(
        self, selection: CheckpointSelection, decode: Callable[[Tensor], Any], checkpoint: Path | None = None
    ) -> None:
        self.selection = selection
        self.decode = decode
        self._run = object() if checkpoint is None else str(checkpoint.resolve())
        self._file = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}-rounds.json")
        self._rounds: dict[str, dict[str, Any]] = {}

    def open(self, to_come: Iterable[int], n_seen: int) -> None:
        """Claim a round for each update at which designs are to be evaluated, or raise; `n_seen` were evaluated."""
        if self._file is not None and self._file.exists():
            try:
                self._rounds = persistence.read_json(self._file)
            except CheckpointError as error:
                message = f"{error} Restore it from a copy, or remove it to have all rounds measured again."
                raise CheckpointError(message) from error
        n_to_come = sum(str(n_done) not in self._rounds for n_done in to_come)
        self.selection.open_run(self._run, max(len(self._rounds), n_seen), n_to_come)

    def ask(self, n_done: int, designs: Tensor) -> list[float]:
        """True rewards of an update's designs; a resumed run makes the same designs, and they are not asked again."""
        asked = self._rounds.get(str(n_done), {})
        digest = persistence.digest(designs)
        if asked.get("designs") != digest:
            scores = self.selection.query(self._run, self.decode(designs))
            asked = self._rounds[str(n_done)] = {"designs": digest, "rewards": scores.tolist()}
            if self._file is not None:
                persistence.write_json(self._file, self._rounds)
        rewards: list[float] = asked["rewards"]
        return rewards
