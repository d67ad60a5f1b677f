"""The ledger of a selection's rounds: no design is paid for twice, whenever a run is killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from braidkit import persistence
from braidkit.finetuning.contracts import CheckpointSelection


class OracleRounds:
    """What a run has asked its selection, by update, kept in a file before anything else happens.

    Parameters
    ----------
    selection : CheckpointSelection
    decode : callable
        From designs as points (n, \\*space.shape) to what the selection measures.
    checkpoint : Path, optional
        Directory of a run that can be resumed. It tells the run from others, and the file lies beside it.
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
            self._rounds = json.loads(self._file.read_text())
        n_to_come = sum(str(n_done) not in self._rounds for n_done in to_come)
        self.selection.open_run(self._run, max(len(self._rounds), n_seen), n_to_come)

    def ask(self, n_done: int, designs: Tensor) -> list[float]:
        """True rewards of an update's designs, asked for once: a run that is resumed makes the same ones again."""
        asked = self._rounds.get(str(n_done), {})
        digest = persistence.fingerprint(designs)
        if asked.get("designs") != digest:
            scores = self.selection.query(self._run, self.decode(designs))
            asked = self._rounds[str(n_done)] = {"designs": digest, "rewards": scores.tolist()}
            if self._file is not None:
                with persistence.replace_file(self._file) as temporary:
                    temporary.write_text(json.dumps(self._rounds))
        rewards: list[float] = asked["rewards"]
        return rewards
