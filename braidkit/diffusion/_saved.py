"""Chains as directories: what a saved model is known by, and how it comes back."""

from __future__ import annotations

import abc
import inspect
import os
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from braidkit import persistence
from braidkit.diffusion.guided_network import GuidedNetwork
from braidkit.exceptions import CheckpointError
from braidkit.spaces import Space, space_from_config

if TYPE_CHECKING:
    from braidkit.diffusion._base import DiffusionModel


class SavedModel(nn.Module, abc.ABC):
    """The part of every `DiffusionModel` that saves and loads it; classes are known by their names."""

    _classes: ClassVar[dict[str, type[SavedModel]]] = {}

    space: Space
    network: nn.Module | None
    decoder: nn.Module | None
    kind: str | None

    @abc.abstractmethod
    def _build_network(self, n_conditions: int = 0) -> nn.Module:
        """A network with fresh weights, whose input has this many more channels than a state of the chain."""

    @abc.abstractmethod
    def _config(self) -> dict[str, Any]:
        """Constructor arguments besides the space, as JSON holds them."""

    @abc.abstractmethod
    def check_trained(self) -> None:
        """Raise NotTrainedError unless the model has been trained or loaded."""

    @abc.abstractmethod
    def freeze(self) -> Any:
        """Make the weights constant: evaluation mode, no gradients, no further `fit`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        SavedModel._classes[cls._saved_name()] = cls

    @classmethod
    def _saved_name(cls) -> str:
        """Name of the class in saved models; classes of other packages have their module in it, to avoid clashes."""
        own = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
        return cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}"

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the model to a directory: ``model.safetensors`` and ``config.json``."""
        self.check_trained()
        persistence.save(directory, config=self.to_config(), tensors=self._saved_tensors())

    def _saved_tensors(self) -> dict[str, Tensor]:
        """The weights that `save_pretrained` writes."""
        return self.state_dict()

    def _load_tensors(self, tensors: dict[str, Tensor], source: str) -> None:
        """Take on what `_saved_tensors` gave."""
        persistence.load_weights(self, tensors, source)

    def to_config(self) -> dict[str, Any]:
        """All but the weights, as JSON holds it."""
        return {
            "class": self._saved_name(),
            "space": self.space.to_config(),
            "kind": self.kind,
            "fine_tuned": self.decoder is not None,
            "n_conditions": self.network.condition.shape[1] if isinstance(self.network, GuidedNetwork) else 0,
            "arguments": self._config(),
        }

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str]) -> DiffusionModel:
        """Load a model that `save_pretrained` wrote; it comes back frozen.

        Raises
        ------
        CheckpointError
            If the directory is not there, cannot be read, or holds a model of another class.
        """
        config, tensors = persistence.load(directory)
        kind = cls._classes.get(config.get("class", ""))
        if kind is None or not issubclass(kind, cls) or inspect.isabstract(kind):
            there = f"a {config['class']!r}" if "class" in config else "no model, but another save"
            raise CheckpointError(f"{directory} holds {there}, not a {cls.__name__}.")
        model = SavedModel.from_config(config)
        model._load_tensors(tensors, str(directory))
        return model.freeze()

    @staticmethod
    def from_config(config: dict[str, Any]) -> Any:
        """A model of the kind and settings that `to_config` gave, with weights still to be loaded."""
        kind = SavedModel._classes[config["class"]]
        model = kind._from_config(config)
        model.kind = config["kind"]
        return model

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Any:
        constructor: Any = cls
        model = constructor(space_from_config(config["space"]), **config["arguments"])
        model.network = model._saved_network(config.get("n_conditions", 0))
        if config["fine_tuned"]:
            model.decoder = model._saved_network(config.get("n_conditions", 0))
        return model

    def _saved_network(self, n_conditions: int) -> nn.Module:
        """A network to load weights into; `n_conditions` counts the null token's channel, and 0 is no guidance."""
        network = self._build_network(n_conditions)
        return GuidedNetwork(network, torch.zeros(1, n_conditions)) if n_conditions else network
