"""The one training loop: rewards, pretraining and fine-tuning all run in it.

A *step* is an object with ``update(i) -> dict[str, float]``: it does the i-th optimiser update and returns what is
worth watching. `train` calls it, shows progress and stops on request; `fit_supervised` is the mini-batch regression
that reward networks and diffusion models share.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from braidkit.progress import Progress


class Step(Protocol):
    """One optimiser update at a time."""

    def update(self, i: int) -> dict[str, float]:
        """Do update number `i` (from 0) and return figures to show."""


Callback = Callable[[int, dict[str, float]], bool | None]

_interrupts_propagate = contextvars.ContextVar("_interrupts_propagate", default=False)
_noted_interrupts: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("_noted_interrupts", default=None)


@contextlib.contextmanager
def noted_interrupts() -> Iterator[list[str]]:
    """Give a list that names each stage in the block that Ctrl-C ended early, without an error."""
    noted: list[str] = []
    outer = _noted_interrupts.get()
    token = _noted_interrupts.set(noted)
    try:
        yield noted
    finally:
        _noted_interrupts.reset(token)
        if outer is not None:
            outer.extend(noted)


def note_interrupt(stage: str) -> None:
    """Name a stage that Ctrl-C ended early to the `noted_interrupts` around it."""
    noted = _noted_interrupts.get()
    if noted is not None:
        noted.append(stage)


@contextlib.contextmanager
def interrupts_propagate() -> Iterator[None]:
    """Let Ctrl-C end more than the training it falls into: for stages that must be whole before the next begins."""
    token = _interrupts_propagate.set(True)
    try:
        yield
    finally:
        _interrupts_propagate.reset(token)


def train(
    step: Step,
    max_iter: int,
    *,
    start: int = 0,
    callbacks: Sequence[Callback] = (),
    verbose: int = 0,
    description: str = "",
) -> int:
    """Run optimiser updates until `max_iter`, a callback or the user stops them.

    Parameters
    ----------
    step : Step
    max_iter : int
        Updates in all, those before `start` included.
    start : int, default=0
        Updates done already, in a run that resumes.
    callbacks : sequence of callable
        Called after each update as ``callback(n_done, figures)``; a true return value stops the run.
    verbose : int, default=0
        Show progress if not 0.
    description : str
        Name of the training, for the progress bar.

    Returns
    -------
    n_iter : int
        Updates done in all. Ctrl-C ends the run here, without an error: what the step and the callbacks have kept
        is the result so far. Inside `interrupts_propagate` it goes on to the caller.
    """
    done = start
    progress = Progress(max_iter, description, shown=bool(verbose), initial=start, leave=verbose > 1)
    try:
        while done < max_iter:
            figures = step.update(done)
            done += 1
            progress.update(figures=figures)
            # Every callback runs, also after one has asked to stop.
            if any([callback(done, figures) for callback in callbacks]):
                break
    except KeyboardInterrupt:
        if _interrupts_propagate.get():
            raise
        note_interrupt(description)
        tqdm.write(f"{description or 'training'}: stopped by the user after {done} of {max_iter} updates")
    finally:
        progress.close()
    return done


def batches(n_rows: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless mini-batches of row numbers: a fresh permutation for each pass over the data.

    A last one of a single row goes to the one before it: batch normalisation cannot learn from one row.
    """
    sizes = [min(batch_size, n_rows - start) for start in range(0, n_rows, batch_size)]
    if len(sizes) > 1 and sizes[-1] == 1 < batch_size:
        sizes[-2:] = [batch_size + 1]
    while True:
        yield from torch.randperm(n_rows, generator=generator).split(sizes)


def warmup_cosine(i: int, max_iter: int) -> float:
    """Share of the learning rate at update `i`: a short linear warm-up, then a half cosine down to zero."""
    warmup = max(1, min(100, max_iter // 20))
    if i < warmup:
        return (i + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (i - warmup) / max(1, max_iter - warmup)))


class SupervisedStep:
    """Mini-batch gradient descent on a loss of row numbers: Adam, warm-up and cosine, clipped gradients.

    Parameters
    ----------
    module : nn.Module
        Whose parameters are trained.
    loss : callable
        From row numbers, a LongTensor (batch,), to a scalar tensor.
    n_rows : int
    batch_size, max_iter : int
    learning_rate, weight_decay : float
    generator : torch.Generator
        Gives the order of the rows.
    max_grad_norm : float, default=1.0
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Tensor], Tensor],
        n_rows: int,
        *,
        batch_size: int,
        max_iter: int,
        learning_rate: float,
        generator: torch.Generator,
        weight_decay: float = 0.0,
        max_grad_norm: float = 1.0,
    ) -> None:
        self.module = module
        self.loss = loss
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda i: warmup_cosine(i, max_iter))
        self.max_grad_norm = max_grad_norm
        self._batches = batches(n_rows, min(batch_size, n_rows), generator)

    def update(self, i: int) -> dict[str, float]:
        """Do one update on the next mini-batch."""
        loss = self.loss(next(self._batches))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        return {"loss": float(loss.detach())}


class KeepBest:
    """Callback: keep the weights with the lowest validation loss, and stop when it has long not fallen.

    Parameters
    ----------
    module : nn.Module
    validation_loss : callable
        Without arguments, gives a float; called every `every` updates in evaluation mode.
    every : int
    patience : int
        Evaluations without improvement after which the run stops.
    """

    def __init__(self, module: nn.Module, validation_loss: Callable[[], float], *, every: int, patience: int) -> None:
        self.module = module
        self.validation_loss = validation_loss
        self.every = every
        self.patience = patience
        self.best = math.inf
        self.curve: list[float] = []
        self._weights = copy.deepcopy(module.state_dict())
        self._since = 0

    def __call__(self, n_done: int, figures: dict[str, float]) -> bool:
        if n_done % self.every:
            return False
        self.module.eval()
        with torch.no_grad():
            value = self.validation_loss()
        self.module.train()
        self.curve.append(value)
        if value < self.best:
            self.best, self._since = value, 0
            self._weights = copy.deepcopy(self.module.state_dict())
        else:
            self._since += 1
        return self._since >= self.patience

    def restore(self) -> None:
        """Put the best weights back."""
        if self.curve:
            self.module.load_state_dict(self._weights)


def fit_supervised(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    n_rows: int,
    *,
    max_iter: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    weight_decay: float = 0.0,
    validation_loss: Callable[[], float] | None = None,
    patience: int = 5,
    n_evaluations: int = 20,
    verbose: int = 0,
    description: str = "",
) -> tuple[int, list[float]]:
    """Train a module on mini-batches, keeping the weights that do best on held-out rows.

    Parameters
    ----------
    module, loss, n_rows, batch_size, max_iter, learning_rate, weight_decay, generator
        As in `SupervisedStep`.
    validation_loss : callable, optional
        Without arguments, gives the held-out loss; without it the last weights are kept.
    patience : int, default=5
        Evaluations without improvement after which training stops.
    n_evaluations : int, default=20
        Evaluations over the whole run.
    verbose, description
        As in `train`.

    Returns
    -------
    n_iter : int
        Updates done.
    validation_curve : list of float
        The held-out loss at each evaluation.
    """
    step = SupervisedStep(
        module,
        loss,
        n_rows,
        batch_size=batch_size,
        max_iter=max_iter,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        generator=generator,
    )
    module.train()
    keep = None
    if validation_loss is not None:
        every = max(1, max_iter // n_evaluations)
        keep = KeepBest(module, validation_loss, every=every, patience=patience)
    callbacks = [] if keep is None else [keep]
    n_iter = train(step, max_iter, callbacks=callbacks, verbose=verbose, description=description)
    if keep is not None:
        keep.restore()
    module.eval()
    return n_iter, [] if keep is None else keep.curve
