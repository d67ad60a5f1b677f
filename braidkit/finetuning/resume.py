"""What a fine-tuning run saves at each evaluation, and how it goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from braidkit import persistence
from braidkit.finetuning.solver import Solver


def save_run(directory: Path, solver: Solver, config: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> None:
    """Write the weights as they are, the solver's state and what else is given, in place of what was saved before."""
    parts = {"current": solver.problem.model.trainable.state_dict(), "solver": solver.state_tensors()} | tensors
    flat = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    persistence.save(directory, config=config, tensors=flat)


def load_run(directory: Path, solver: Solver) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Put weights and solver back as they were, in every process; gives what else `save_run` was given."""
    problem = solver.problem
    config, flat = problem.processes.once(lambda: persistence.load(directory))
    parts: dict[str, dict[str, Tensor]] = {"current": {}, "solver": {}}
    for key, value in flat.items():
        part, name = key.split(".", 1)
        parts.setdefault(part, {})[name] = value.to(problem.model.device)
    persistence.load_weights(problem.model.trainable, parts.pop("current"), str(directory))
    solver.load_state_tensors(parts.pop("solver"))
    return config, parts
