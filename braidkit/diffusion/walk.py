"""The one walk along a chain: sampling, rollouts, recorded paths and particles differ in how they move a step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from braidkit.exceptions import InvalidParameterError

if TYPE_CHECKING:
    from braidkit.diffusion._base import DiffusionModel

Move = Callable[[Tensor, int, Tensor], Tensor]


def walk(chain: DiffusionModel, noise: Tensor, move: Move | None = None) -> Iterator[tuple[int, Tensor]]:
    """Give the states of trajectories one after the other, from pure noise to the last.

    Parameters
    ----------
    chain : DiffusionModel
    noise : Tensor of shape (n, n_steps + 1, \\*noise_shape)
        As `DiffusionModel.draw_noise` gives it, on the chain's device.
    move : callable, optional
        From states x_t, their t, and that step's noise to states x_{t-1}; by default a draw from the chain's policy.

    Yields
    ------
    t : int
        n_steps, ..., 0.
    x_t : Tensor of shape (n, \\*state_shape)
    """
    x = chain.initial(len(noise)).rsample(noise[:, 0])
    yield chain.n_steps, x
    for t in range(chain.n_steps, 0, -1):
        x = chain.policy(x, t).rsample(noise[:, t]) if move is None else move(x, t, noise[:, t])
        yield t - 1, x


def last_state(chain: DiffusionModel, noise: Tensor, move: Move | None = None) -> Tensor:
    """The last states of `walk`, x_0 (n, \\*state_shape)."""
    _check(chain, noise)
    return functools.reduce(lambda _, later: later, walk(chain, noise, move))[1]


def _check(chain: DiffusionModel, noise: Tensor) -> None:
    """Raise unless this is a chain, with noise of whole trajectories."""
    if not hasattr(chain, "check_noise"):  # also a chain of another precision, which is no subclass
        raise InvalidParameterError(f"chain must be a DiffusionModel; got {chain!r:.60}.")
    chain.check_noise(noise)


@torch.no_grad()
def sample_path(chain: DiffusionModel, noise: Tensor) -> list[Tensor]:
    """The states x_0, ..., x_T of trajectories, item t holding x_t of shape (n, \\*state_shape); no gradient."""
    _check(chain, noise)
    return [x for _, x in walk(chain, noise)][::-1]
