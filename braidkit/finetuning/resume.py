"""Save a fine-tuning run at each evaluation, and resume it from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from braidkit import persistence
from braidkit.finetuning.solver import Solver


def save_run(directory: Path, solver: Solver, config: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> None:
    """Save the current weights, the solver's state, and further values and tensors; an earlier save is replaced."""
    parts = {"current": solver.problem.model.trainable.state_dict(), "solver": solver.state_tensors()} | tensors
    flat = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    persistence.save(directory, config=config, tensors=flat)


def load_run(directory: Path, solver: Solver) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """Restore weights and solver in every process, and return the further values and tensors of `save_run`."""
    problem = solver.problem
    config, flat = problem.processes.once(lambda: persistence.load(directory))
    parts: dict[str, dict[str, Tensor]] = {"current": {}, "solver": {}}
    for key, value in flat.items():
        part, name = key.split(".", 1)
        parts.setdefault(part, {})[name] = value.to(problem.model.device)
    persistence.load_weights(problem.model.trainable, parts.pop("current"), str(directory))
    solver.load_state_tensors(parts.pop("solver"))
    return config, parts
