"""Parts that several models share: frozen networks by reference, and copies that share storage."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Part = TypeVar("Part", bound=nn.Module)


class Shared:
    """A frozen network that models hold by reference, such as a large pretrained one under an adapter.

    It is no submodule of its holder: it is not copied, counted, moved, trained or saved with it. What holds it names
    it in its own configuration, and finds it again when it is loaded.

    Parameters
    ----------
    module : nn.Module
        Set to evaluation mode, and frozen, from here on.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval().requires_grad_(False)
        self._elsewhere: dict[torch.device, nn.Module] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self

    def on(self, device: torch.device) -> nn.Module:
        """The network on a device; where it is not there itself, a copy that is made once."""
        if next(self.module.parameters()).device == device:
            return self.module
        if device not in self._elsewhere:
            self._elsewhere[device] = copy.deepcopy(self.module).to(device)
        return self._elsewhere[device]


class Adapter(nn.Module):
    """A shared network of which some tensors are the model's own: what fine-tuning changes of it.

    The network contains the adapter's layers, as peft inserts those of LoRA, with values that have no effect. This
    module holds other values for them, and puts them in place for one pass at a time.

    Parameters
    ----------
    shared : Shared
    names : iterable of str
        Names of the network's parameters to replace; copies of these are the initial values.

    Examples
    --------
    >>> backbone = Shared(nn.Linear(3, 2))
    >>> adapter = Adapter(backbone, ["bias"])
    >>> [name for name, _ in adapter.named_parameters()]
    ['own.bias']
    >>> bool((adapter(torch.zeros(1, 3)) == backbone.module.bias).all())
    True
    """

    def __init__(self, shared: Shared, names: Iterable[str]) -> None:
        super().__init__()
        self.shared = shared
        values = dict(shared.module.named_parameters())
        # No name of a parameter may have a dot.
        self.own = nn.ParameterDict({name.replace(".", "/"): values[name].detach().clone() for name in names})

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        """The output of the network with the adapter's tensors in it."""
        tensors = {name.replace("/", "."): tensor for name, tensor in self.own.items()}
        module = self.shared.on(next(iter(tensors.values())).device)
        return torch.func.functional_call(module, tensors, arguments, settings)


def shared_parts(module: nn.Module) -> list[Shared]:
    """The `Shared` networks that a module and its submodules hold, each once."""
    held = (value for part in module.modules() for value in vars(part).values() if isinstance(value, Shared))
    return list(dict.fromkeys(held))


def share(module: Part, *, own: nn.Module | None = None) -> Part:
    """A copy whose tensors have the storage of the module's own, but for those of one part of it.

    Either may be moved, or changed in type, without the other; their values are shared until then.

    Parameters
    ----------
    module : nn.Module
    own : nn.Module, optional
        The part of `module` whose tensors are copied.
    """
    apart = set() if own is None else {id(tensor) for tensor in _tensors(own)}
    memo: dict[int, Any] = {id(tensor): _alias(tensor) for tensor in _tensors(module) if id(tensor) not in apart}
    return copy.deepcopy(module, memo)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _alias(tensor: Tensor) -> Tensor:
    """Another tensor, or parameter, on the same storage."""
    alias = tensor.detach()
    return nn.Parameter(alias, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else alias
