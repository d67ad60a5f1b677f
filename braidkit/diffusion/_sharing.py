"""Chains that others use: frozen, as views with the same weights, and as copies with weights of their own."""

from __future__ import annotations

import abc
import copy
import json
from typing import Any, ClassVar, Self

from torch import nn

from braidkit.diffusion._saved import SavedModel
from braidkit.exceptions import IncompatibleModelError
from braidkit.networks import share, shared_parts
from braidkit.spaces import Space


class SharedModel(SavedModel, abc.ABC):
    """The part of every `DiffusionModel` that says what its copies share with it."""

    # Whether `readout` runs a network, so that a fine-tuned model must carry the pretrained one.
    _reads_out_by_network: ClassVar[bool] = True

    frozen: bool

    @property
    @abc.abstractmethod
    def trainable(self) -> nn.Module:
        """The part that fine-tuning changes."""

    @property
    @abc.abstractmethod
    def readout_network(self) -> nn.Module:
        """The pretrained network, which `readout` uses."""

    def freeze(self) -> Self:
        """Make the weights constant: evaluation mode, no gradients, no further `fit`."""
        self.frozen = True
        return self.eval().requires_grad_(False)

    def trainable_copy(self) -> Self:
        """A copy whose `trainable` part is its own, to be changed; all else shares the storage of this model's.

        Its readout uses a frozen copy of the present network.
        """
        model = share(self, own=self.trainable)
        if self._reads_out_by_network:
            model.decoder = share(self.readout_network)
        if model.decoder is not None:
            model.decoder.requires_grad_(False)
        return model

    def untrained_copy(self) -> Any:
        """A chain of the same kind and settings, without weights."""
        return type(self)(self.space, **self._config())

    def in_space(self, space: Space) -> Any:
        """The same chain, weights shared, with designs of a space that holds other entries; itself if that is its own.

        Raises
        ------
        IncompatibleModelError
            If the spaces differ in more than what they hold.
        """
        if space == self.space:
            return self
        if not isinstance(space, Space) or space.unrestricted() != self.space.unrestricted():
            raise IncompatibleModelError(f"this {type(self).__name__} makes designs of {self.space}, not of {space}.")
        model = self._view()
        model.space = space
        return model

    def _view(self) -> Self:
        """The same chain as another object: weights are shared, attributes are not."""
        model = copy.copy(self)
        for own in ("_modules", "_parameters", "_buffers"):
            model.__dict__[own] = dict(self.__dict__[own])
        return model

    def digest_parts(self) -> list[Any]:
        """Contents of the model for `braidkit.persistence.digest`: settings, weights, and the networks it shares."""
        shared = [part.module for part in shared_parts(self)]
        return [[json.dumps(self.to_config())], [*map(repr, shared)], *self.state_dict().values(), *shared]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        new.frozen = False
        new.requires_grad_(True)
        return new

    def __sklearn_clone__(self) -> Self:
        return self
