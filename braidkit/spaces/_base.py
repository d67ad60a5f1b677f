"""The contract of a design space."""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import IncompatibleModelError, InvalidDesignError, InvalidParameterError
from braidkit.spaces.points import Points


class Space(abc.ABC):
    """The set of allowed designs, and their form as tensors and as objects of the user.

    Some entries of a design may be held: `discretise` and `decode` write them, so that all designs have them whatever a
    chain makes, and no gradient passes there. `encode` reads rows as they are, held or not.

    Attributes
    ----------
    shape : tuple of int
        Shape of one design as a tensor.
    n_features : int
        Number of entries of that tensor; the width of a flat 2-D array of designs.
    alphabet : str or None
        Letters of sequences; None elsewhere.
    has_columns, has_pixels : bool
        Whether designs are rows of numbers, of a column each, and whether they are images.
    nucleotides : bool
        Whether designs are DNA or RNA.
    template : object or None
        The held entries. None means not specified: estimators then hold entries that are the same in all rows.
    designs, default_chain, default_features : str
        Name of the designs in messages, and of the default chain and feature network.
    """

    shape: tuple[int, ...]
    alphabet: str | None = None
    has_columns: ClassVar[bool] = False
    has_pixels: ClassVar[bool] = False
    nucleotides: bool = False
    template: Any = None
    designs: ClassVar[str]
    default_chain: Any
    default_features: ClassVar[str]

    @classmethod
    def require(cls, space: Any, needed_by: str) -> Self:
        """The space itself; `InvalidParameterError` if it is none of this class."""
        if not isinstance(space, cls):
            article = "an" if cls.__name__[0] in "AEIOU" else "a"
            raise InvalidParameterError(f"{needed_by} needs {article} {cls.__name__}; got {space!r}.")
        return space

    @property
    def n_features(self) -> int:
        return math.prod(self.shape)

    @property
    def visible_shape(self) -> tuple[int, ...]:
        """Shape of what rewards see of a design: all of it, but for letters that are padding."""
        return self.shape

    @property
    @abc.abstractmethod
    def n_free(self) -> int:
        """Numbers that choose a design: what is not held, and for letters one less than there are."""

    @property
    def n_designs(self) -> float:
        """Number of designs."""
        return math.inf

    @abc.abstractmethod
    def kind_of(self, X: Any) -> str:
        """Name the kind of object that `X` is, as `decode` takes it."""

    @abc.abstractmethod
    def points(self, X: Any) -> Points:
        """Read and check designs, which become points batch by batch."""

    def encode(self, X: Any) -> Tensor:
        """Turn designs into a float32 tensor of shape (n, \\*shape)."""
        return self.points(X)[:]

    @abc.abstractmethod
    def decode(self, x: Tensor, kind: str | None = None) -> Any:
        """Turn points of shape (n, \\*shape) into designs of the given kind."""

    def discretise(self, x: Tensor) -> Tensor:
        """Move relaxed points onto designs, with gradients that pass; here every point is a design, once held."""
        return self.hold(x)

    def spread(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Points as a density of them is to see them: with noise where designs are rounded; here as they are."""
        return x

    def hold(self, x: Tensor) -> Tensor:
        """Points with the held entries written, and no gradient there."""
        held = self._held_points()
        if held is None:
            return x
        # Keep one copy per device: a CUDA graph records a step once and replays it, so it may not copy from the host.
        cache = self.__dict__.setdefault("_held", {})
        if x.device not in cache:
            cache[x.device] = tuple(torch.from_numpy(part).to(x.device) for part in held)
        mask, values = cache[x.device]
        return torch.where(mask, values.to(x.dtype), x)

    def _held_points(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The entries of a point that are held, and their values; two arrays that broadcast to `shape`."""
        return None

    def holding_constants(self, x: Points) -> Space:
        """The space that holds what is the same in all of these designs, unless a template was given.

        Raises
        ------
        InvalidDesignError
            If all designs are the same.
        """
        if self.template is not None:
            return self
        template = self._constant(x)
        return self if template is None else self.with_template(template)

    def _constant(self, x: Points) -> Any:
        """The template of what is the same in all designs, or None where nothing is."""
        return None

    def with_template(self, template: Any) -> Space:
        """The same space with another template."""
        space = copy.copy(self)
        space.template = template
        return space

    def named(self, names: Sequence[str]) -> Space:
        """The same space with names of its columns, where it has columns."""
        return self

    def unrestricted(self) -> Space:
        """The same space with nothing held, and without limits on its designs."""
        return self.with_template(None)

    def restricted_as(self, other: Space) -> Space:
        """The same space with what another of the same designs holds, and its limits, where it has any."""
        return self if other.template is None else self.with_template(other.template)

    @property
    def held(self) -> str:
        """The held entries in words ("positions 1-6, 45-50"); empty if none is held."""
        return ""

    def makes_same(self, other: Space) -> bool:
        """Whether points of the two spaces are the same designs, held or not."""
        return self.unrestricted() == other.unrestricted()

    def from_points_of(self, other: Space, x: Tensor) -> Tensor:
        """Points of this space for the designs that points of another are; with gradients.

        Raises
        ------
        IncompatibleModelError
            If designs of the one are not designs of the other.
        """
        if not self.makes_same(other):
            raise IncompatibleModelError(f"designs of {other} are not designs of {self}.")
        return x

    def check_same_designs(self, X: Any) -> None:
        """Raise IncompatibleModelError if `X` plainly holds designs of another space; `X` is an array as read."""
        if X.ndim == 1 and X.dtype == object and len(X) and isinstance(X[0], str):
            raise IncompatibleModelError(
                f"pretrained makes {self.designs}, but X is sequences; pass a model of sequences, or pretrained=None."
            )

    def check_points(self, x: Any) -> None:
        """Raise unless `x` is a tensor of points: finite numbers of shape (n, \\*shape)."""
        if not isinstance(x, Tensor):
            raise InvalidDesignError(f"points must be a tensor, as encode gives them; got a {type(x).__name__}.")
        if x.is_complex() or x.is_meta:
            raise InvalidDesignError(f"points must be real numbers; got a tensor of {x.dtype} on {x.device}.")
        if tuple(x.shape[1:]) != self.shape or x.ndim != len(self.shape) + 1:
            expected = ", ".join(map(str, self.shape))
            raise InvalidDesignError(f"points must have shape (n, {expected}); got {tuple(x.shape)}.")

    def _check_decoding(self, x: Any, kind: str | None, kinds: tuple[str, ...]) -> None:
        """Raise unless these are points, and the kind to decode them to is one of the space's."""
        self.check_points(x)
        if not bool(torch.isfinite(x).all()):
            row = int((~torch.isfinite(x.flatten(1))).any(dim=1).nonzero()[0])
            raise InvalidDesignError(f"points must be finite; row {row:,} is not.")
        if kind is not None and kind not in kinds:
            raise InvalidDesignError(f"kind must be one of {', '.join(kinds)}; got {kind!r}.")

    @abc.abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Give the plain constructor arguments, and the class name under ``"space"``."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.to_config() == other.to_config()

    def __hash__(self) -> int:
        return hash(repr(sorted(self.to_config().items())))

    def __getstate__(self) -> dict[str, Any]:
        # A copy makes what was computed from the rest anew.
        computed = ("_held", "automaton", "limited", "paddings")
        return {name: value for name, value in self.__dict__.items() if name not in computed}

    def __repr__(self) -> str:
        config = self.to_config()
        arguments = ", ".join(f"{name}={value!r}" for name, value in config.items() if name != "space")
        return f"{config['space']}({arguments})"


def ranges(numbers: np.ndarray) -> str:
    """Ascending whole numbers in words: "1-6, 45"."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs if len(run))
