"""Let a fitted reward read points of the chain's space, where that was standardised by other rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from braidkit.exceptions import IncompatibleModelError
from braidkit.finetuning.contracts import standardised
from braidkit.spaces import Space


def in_space(reward: Any, space: Space) -> Any:
    """Make a fitted reward read points of a space; it is returned unchanged if the points are the same.

    Raises
    ------
    IncompatibleModelError
        If it was fitted on other designs.
    """
    if not space.makes_same(reward.space_):
        raise IncompatibleModelError(
            f"reward was fitted on {reward.space_}, but the designs are in {space}; fit it on those."
        )
    same = reward.space_.unrestricted() == space.unrestricted()
    return reward if same else RescaledReward(reward, space)


class RescaledReward:
    """A fitted reward that reads points of another space; methods that take designs are unchanged.

    Parameters
    ----------
    reward : fitted regressor with ``lower(x)``
    space : Space
        A space of the same designs.

    Attributes
    ----------
    space_ : Space
    """

    def __init__(self, reward: Any, space: Space) -> None:
        self.reward = reward
        self.space_ = space

    def standardised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and penalty (n,) of points of `space_`, for y of mean 0 and deviation 1."""
        return standardised(self.reward, self._own_points(x))

    def mean_and_penalty(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and penalty (n,) of points of `space_`, in y's units."""
        return self.reward.mean_and_penalty(self._own_points(x))

    def lower(self, x: Tensor) -> Tensor:
        """The bound (n,) of points of `space_`, in y's units."""
        return self.reward.lower(self._own_points(x))

    def _own_points(self, x: Tensor) -> Tensor:
        return self.reward.space_.from_points_of(self.space_, x)

    def __getattr__(self, name: str) -> Any:
        if name == "reward" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.reward, name)
