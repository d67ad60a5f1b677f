"""Progress that a person sees: a bar on a terminal or in a notebook, now and then a line in a log file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import monotonic

from tqdm.auto import tqdm

# Seconds between two lines where there is no bar, and updates between two looks at the figures of a bar.
SECONDS, FIGURES_EVERY = 60.0, 10


class Progress:
    """How much of a task is done; close it at the end.

    A log file gets no bar: each redrawing of one would be a carriage return there.

    Parameters
    ----------
    total : int
    description : str
    shown : bool, default=True
        If not, say nothing.
    initial : int, default=0
        Done before.
    leave : bool, default=False
        Leave the bar on the screen at the end.
    """

    def __init__(
        self, total: int, description: str, *, shown: bool = True, initial: int = 0, leave: bool = False
    ) -> None:
        self.total, self.description, self.shown, self.done = total, description, shown, initial
        self._said = monotonic()
        # A bar that is not shown would leave tqdm's thread behind.
        self._bar = (
            tqdm(total=total, initial=initial, desc=description, dynamic_ncols=True, leave=leave)
            if shown and is_watched()
            else None
        )

    def update(self, n: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """Count n more as done, and show figures now and then."""
        self.done += n
        if self._bar is not None:
            self._bar.update(n)
            if figures and (self.done % FIGURES_EVERY == 0 or self.done == self.total):
                self._bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()}, refresh=False)
        elif self.shown and monotonic() - self._said >= SECONDS:
            self._said = monotonic()
            print(f"{self.description}: {self.done:,} of {self.total:,}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def is_watched() -> bool:
    """Whether somebody looks at stderr: on a terminal, or in a notebook."""
    return "ipykernel" in sys.modules or sys.stderr.isatty()
