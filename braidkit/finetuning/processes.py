"""Share one fit among several processes; usually there is only one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from braidkit.exceptions import InvalidParameterError, MissingExtraError
from braidkit.persistence import digest

T = TypeVar("T")
CPU = torch.device("cpu")


class Processes:
    """Communication between the processes of one fit; a single process does not need accelerate.

    Parameters
    ----------
    device : torch.device, default=cpu
        The device of this process: the CPU, or the GPU that the launcher gave it.

    Attributes
    ----------
    rank, count : int
        Number of this process, from 0, and number of processes. Process 0 fits the chain and the rewards, writes files
        and prints messages.
    """

    def __init__(self, device: torch.device = CPU) -> None:
        self.rank, self.count = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            if device.index is not None:
                raise InvalidParameterError(
                    f'several processes each have a GPU of their own; pass device="auto" in place of {str(device)!r}.'
                )
            try:
                from accelerate import PartialState
            except ImportError as error:
                raise MissingExtraError('several processes need accelerate: pip install "braidkit[dist]".') from error
            # The other processes wait while the first trains a chain, which may take hours.
            state = PartialState(cpu=device.type == "cpu", timeout=timedelta(days=7))
            self.rank, self.count = state.process_index, state.num_processes

    def once(self, call: Callable[[], T]) -> T:
        """Call in the first process only, and return its result, or raise its error, in all processes."""
        if self.count == 1:
            return call()
        from accelerate.utils import broadcast_object_list

        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = call()
            except Exception as error:  # any error: the other processes wait, and must end as well
                outcome[1] = _sendable(error)
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def check_same(self, **held: Any) -> None:
        """Raise in a process whose data or model differ from those of the first process; None is ignored."""
        if self.count == 1:
            return
        own = {name: digest(part) for name, part in held.items() if part is not None}
        first = self.once(lambda: own)
        differ = [name for name in held if own.get(name) != first.get(name)]
        if differ:
            raise InvalidParameterError(
                f"{' and '.join(differ)} of process {self.rank} differ from the first process's; make or read them "
                "alike in all processes: pass whole numbers as random_state, or load what one process has saved."
            )

    def check_batch_size(self, batch_size: int) -> None:
        """Raise unless every process gets the same number of rows of a batch."""
        if batch_size % self.count:
            raise InvalidParameterError(
                f"batch_size must be a multiple of the number of processes; got {batch_size} for {self.count}."
            )

    def own_rows(self, batch: Tensor) -> Tensor:
        """The rows of a batch that this process works on."""
        return batch.chunk(self.count)[self.rank]

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace gradients by their means over the processes."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        mean = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        parts = mean.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
            parameter.grad = part.view_as(gradient)


def _sendable(error: Exception) -> Exception:
    """The error itself, or a RuntimeError with the same text if it cannot be pickled."""
    try:
        pickle.dumps(error)
    except Exception:  # pickle raises errors of many kinds
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
