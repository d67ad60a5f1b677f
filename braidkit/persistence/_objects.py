"""Objects as JSON and tensors: what they hold, by names. Nothing of a file is executed when it is read."""

from __future__ import annotations

import importlib
import types
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from braidkit.exceptions import CheckpointError

# Only classes and functions of these packages are written, and only theirs are looked up by name.
_PACKAGES = ("braidkit", "torch.nn", "gpytorch", "linear_operator", "sklearn.frozen")
_KIND = "kind"


def to_parts(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Write an object as what JSON holds, and the tensors in it by name.

    Plain values, containers, arrays, tensors and spaces are written, and objects of braidkit, torch's modules and
    gpytorch with all that they hold. An object that is held twice is one again when it is read.

    Raises
    ------
    CheckpointError
        Naming what holds an object of another package.
    """
    writer = _Writer()
    return writer.write(value, ""), writer.tensors


def from_parts(content: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Read what `to_parts` wrote. Tensors of a GPU come back to one if there is one, else to the CPU.

    Raises
    ------
    CheckpointError
        If it names what this version does not have, or what is no part of these packages.
    """
    try:
        return _Reader(tensors).read(content)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"a saved object cannot be read by this version of braidkit ({error}).") from error


class _Writer:
    """Writes objects, each once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._numbers: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no id is given twice

    def write(self, value: Any, where: str) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) is list:
            return [self.write(item, where) for item in value]
        if id(value) in self._numbers:
            return {_KIND: "same", "as": self._numbers[id(value)]}
        if type(value) in (dict, OrderedDict):
            pairs = [[self.write(k, where), self.write(v, f"{where}.{k}")] for k, v in value.items()]
            return {_KIND: "dict", "ordered": type(value) is OrderedDict, "pairs": pairs}
        if type(value) in (tuple, set, frozenset, torch.Size):
            return {_KIND: type(value).__name__, "items": [self.write(item, where) for item in value]}
        if isinstance(value, np.generic):
            return {_KIND: "number", "dtype": value.dtype.str, "value": value.item()}
        if isinstance(value, (torch.dtype, torch.device)):
            return {_KIND: type(value).__name__, "name": str(value).removeprefix("torch.")}
        if isinstance(value, np.ndarray):
            return self._array(value, where)
        if isinstance(value, np.random.RandomState):
            return {_KIND: "random_state", "state": self.write(value.get_state(), where)}
        if isinstance(value, (type, types.FunctionType)):
            return {_KIND: "named", "name": _name(value, where)}
        if isinstance(value, types.MethodType):
            return {_KIND: "method", "of": self.write(value.__self__, where), "name": value.__name__}
        return self._object(value, where)

    def _array(self, value: np.ndarray, where: str) -> Any:
        if value.dtype.kind in "OUS":
            return {_KIND: "objects", "shape": list(value.shape), "items": self.write(value.ravel().tolist(), where)}
        return {_KIND: "array", "of": self._keep(torch.from_numpy(np.ascontiguousarray(value)))}

    def _object(self, value: Any, where: str) -> Any:
        number = self._numbers[id(value)] = len(self._alive)
        self._alive.append(value)
        if isinstance(value, Tensor):
            # Columns that are together in memory stay so: products of matrices are the same to the last bit.
            turned = value.ndim == 2 and not value.is_contiguous() and value.mT.is_contiguous()
            name = self._keep(value.detach().mT if turned else value.detach())
            content = {_KIND: "tensor", "of": name, "turned": turned, "device": value.device.type, "number": number}
            return content | {"gradient": value.requires_grad, "parameter": isinstance(value, nn.Parameter)}
        name = _name(type(value), where)
        if isinstance(value, tuple):  # a named one
            return {_KIND: "tuple of", "name": name, "items": [self.write(item, where) for item in value]}
        state = value.__getstate__()
        return {_KIND: "object", "name": name, "number": number, "state": self.write(state, where)}

    def _keep(self, tensor: Tensor) -> str:
        name = f"tensor {len(self.tensors)}"
        self.tensors[name] = tensor
        return name


class _Reader:
    """Reads what a `_Writer` wrote."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._known: dict[int, Any] = {}

    def read(self, content: Any) -> Any:
        if isinstance(content, list):
            return [self.read(item) for item in content]
        if not isinstance(content, dict):
            return content
        kind = content[_KIND]
        if kind == "same":
            return self._known[content["as"]]
        if kind == "dict":
            pairs = ((self.read(k), self.read(v)) for k, v in content["pairs"])
            return OrderedDict(pairs) if content["ordered"] else dict(pairs)
        if kind in ("tuple", "set", "frozenset", "Size"):
            makers = {"tuple": tuple, "set": set, "frozenset": frozenset, "Size": torch.Size}
            return makers[kind](self.read(content["items"]))
        if kind == "number":
            return np.dtype(content["dtype"]).type(content["value"])
        if kind == "dtype":
            return getattr(torch, content["name"])
        if kind == "device":
            return _available(content["name"])
        if kind == "array":
            return self._tensors[content["of"]].numpy()
        if kind == "objects":
            array = np.empty(len(content["items"]), dtype=object)
            array[:] = self.read(content["items"])
            return array.reshape(content["shape"])
        if kind == "random_state":
            state = np.random.RandomState()
            state.set_state(self.read(content["state"]))
            return state
        if kind == "named":
            return _named(content["name"])
        if kind == "method":
            return self._method(self.read(content["of"]), content["name"])
        return self._object(kind, content)

    @staticmethod
    def _method(of: Any, name: str) -> Any:
        if not isinstance(getattr(type(of), name), types.FunctionType) or not _is_ours(type(of).__module__):
            raise CheckpointError(f"{name} is no method of a {type(of).__name__}; it is not loaded.")
        return getattr(of, name)

    def _object(self, kind: str, content: dict[str, Any]) -> Any:
        if kind == "tensor":
            tensor = self._tensors[content["of"]].to(_available(content["device"]))
            tensor = tensor.mT if content["turned"] else tensor
            tensor = nn.Parameter(tensor, False) if content["parameter"] else tensor
            self._known[content["number"]] = tensor.requires_grad_(content["gradient"])
            return tensor
        made = _named(content["name"])
        if kind == "tuple of":
            return made(*self.read(content["items"]))
        value = self._known[content["number"]] = made.__new__(made)
        state = self.read(content["state"])
        if hasattr(value, "__setstate__"):
            value.__setstate__(state)
        else:
            value.__dict__.update(state or {})
        return value


def _name(value: Any, where: str) -> str:
    """The name of a class or function, if it can be found by it again."""
    name = f"{value.__module__}.{value.__qualname__}"
    if _is_ours(value.__module__) and "<" not in value.__qualname__:
        return name
    place = where.removeprefix(".") or "the object"
    raise CheckpointError(
        f"{place} holds a {name}, which cannot be saved: only what is of braidkit, torch's modules and gpytorch is "
        "read again without running code. Leave it out, or keep the estimator by means of your own."
    )


def _named(name: str) -> Any:
    """The class or function of a name that `_name` gave."""
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:i])
        if not _is_ours(module):
            break
        try:
            value = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            value = getattr(value, part)
        own = isinstance(value, (type, types.FunctionType)) and _is_ours(value.__module__)
        if own:
            return value
        break
    raise CheckpointError(f"{name} is no class of braidkit, torch's modules or gpytorch; it is not loaded.")


def _is_ours(module: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in _PACKAGES)


def _available(device: str) -> torch.device:
    """A device of a kind, or the CPU where there is none."""
    kind = torch.device(device).type
    return torch.device(kind if kind == "cpu" or (kind == "cuda" and torch.cuda.is_available()) else "cpu")
