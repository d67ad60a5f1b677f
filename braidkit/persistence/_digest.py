"""One digest of contents: what data, models, estimators and settings are known by."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

# State of estimators and modules that changes no result.
FREE = frozenset({"verbose", "n_jobs", "device", "device_", "checkpoint_dir", "training", "frozen"})
# What every module holds, whatever it is.
_BARE_MODULE = vars(nn.Module())


def digest(*values: Any) -> str:
    """Short digest of data, parameters, estimators, models and functions, by what they hold.

    Equal things have one digest in every process, on every device and whoever holds them. Values, shapes and kinds of
    numbers count, and so does all other state, but for `FREE`. A function is its code, the data that it names, and what
    it encloses, without the code of functions that it calls. An object with a method ``digest_parts()`` is its class
    and what that gives. Where an object does not tell what it holds, its repr stands for it: then one thing may pass
    for two, but not two for one.

    Examples
    --------
    >>> digest(["ACGT", "TTTT"]) == digest(np.array(["ACGT", "TTTT"]))
    True
    >>> digest(np.zeros(2)) == digest(np.zeros(2, dtype=np.float32))
    False
    """
    return _plain(values, ())[:16]


def _hashed(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _plain(value: Any, inside: tuple[int, ...]) -> str:
    """A plain value as it is, and the digest of any other; `inside` are the ids of the objects that hold it."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype)):
        return repr(value)
    if isinstance(value, torch.device):
        return "device"
    if isinstance(value, (Tensor, np.ndarray)):
        return _array(value, inside)
    if isinstance(value, (type, types.BuiltinFunctionType, types.ModuleType)):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
    if id(value) in inside:
        return "itself"
    held = (*inside, id(value))
    if isinstance(value, Mapping):
        return _hashed("mapping", *sorted(_hashed(_plain(k, held), _plain(v, held)) for k, v in value.items()))
    if isinstance(value, (set, frozenset)):
        return _hashed("set", *sorted(_plain(item, held) for item in value))
    if isinstance(value, (list, tuple)):
        return _hashed("list", *(_plain(item, held) for item in value))
    return _hashed(f"{type(value).__module__}.{type(value).__qualname__}", _state(value, held))


def _array(value: Tensor | np.ndarray, inside: tuple[int, ...]) -> str:
    """An array by its kind, shape and bytes; one of strings or objects as a list."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OUSM":  # pointers, or as many letters as the longest row has; dates torch does not know
            return _plain(value.tolist(), (*inside, id(value)))
        data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    else:
        flat = value.detach().cpu().contiguous().reshape(-1)
        data = flat.resolve_conj().resolve_neg().view(torch.uint8).numpy()
    kind = str(value.dtype).removeprefix("torch.")
    return _hashed("array", kind, str(tuple(value.shape)), hashlib.sha256(data.data).hexdigest())


def _state(value: Any, held: tuple[int, ...]) -> str:
    """The contents of an object, without its class."""
    if hasattr(value, "digest_parts"):
        return _plain(value.digest_parts(), held)
    if isinstance(value, types.CodeType):
        return _plain((value.co_code, value.co_names, value.co_consts), held)
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        named = [value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__]
        data = [item for item in named if not callable(item) and not isinstance(item, types.ModuleType)]
        name = (value.__module__, value.__qualname__)
        return _plain((name, value.__code__, value.__defaults__, value.__kwdefaults__, cells, data), held)
    if isinstance(value, nn.Module):
        return _plain(module_parts(value), held)
    if isinstance(value, BaseEstimator):
        return _plain({name: item for name, item in vars(value).items() if name not in FREE}, held)
    try:
        return _plain(value.__reduce_ex__(2), held)
    except Exception:  # whatever an object raises that cannot be pickled
        return repr(value)


def module_parts(module: nn.Module) -> dict[str, Any]:
    """Parameters, buffers, submodules and all other state of a module, by name."""
    state = {name: item for name, item in vars(module).items() if name not in FREE and name not in _BARE_MODULE}
    # Those that change what the module computes; the numbers that torch gives them differ from process to process.
    hooks = [list(calls.values()) for calls in (module._forward_pre_hooks, module._forward_hooks)]
    own = dict(module._parameters) | dict(module._buffers) | dict(module._modules)
    return {"state": state, "own": own, "hooks": hooks}
