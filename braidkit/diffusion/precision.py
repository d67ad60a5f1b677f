"""Policies whose networks compute in bfloat16, where the processor is faster at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from braidkit.diffusion._policies import Policy
from braidkit.networks import Adapter
from braidkit.parameters import check_choice

if TYPE_CHECKING:
    from braidkit.diffusion._base import DiffusionModel

PRECISIONS = ("auto", "float32", "bfloat16")
# Narrower networks, and small ones of linear layers alone, lose in conversions what they gain in products.
MIN_CHANNELS = 64
# Of the shared network under an adapter, such as a language model.
MIN_WIDTH = 256


def check_precision(precision: str) -> None:
    """Raise unless it is one of `PRECISIONS`."""
    check_choice("precision", precision, PRECISIONS)


def resolve_precision(precision: str, network: nn.Module, device: torch.device) -> str:
    """The precision of a network in updates.

    "auto" is bfloat16 for wide convolutions, and for adapters on wide networks, on a CPU that multiplies it.
    """
    if precision != "auto":
        return precision
    if isinstance(network, Adapter):
        parts = network.shared.module.modules()
        wide = any(isinstance(part, nn.Linear) and part.in_features >= MIN_WIDTH for part in parts)
    else:
        wide = any(isinstance(part, nn.Conv1d) and part.out_channels >= MIN_CHANNELS for part in network.modules())
    return "bfloat16" if wide and device.type == "cpu" and has_bfloat16_units() else "float32"


def has_bfloat16_units() -> bool:
    """Whether the processor has instructions for products of bfloat16: AMX or AVX512-BF16."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def at_precision(model: DiffusionModel, precision: str) -> DiffusionModel:
    """The chain itself for "float32"; for "bfloat16" one on the same weights with `Bfloat16Policies`."""
    check_choice("precision", precision, ("float32", "bfloat16"))
    return model if precision == "float32" else cast("DiffusionModel", Bfloat16Policies(model))


class Bfloat16Policies:
    """A chain that is another's in everything, weights included, but computes its policies under autocast.

    Convolutions and linear layers take and give bfloat16. States, the parameters of policies, and so draws and KL, are
    of the precision that they have without it, and the readout is the chain's own.

    Parameters
    ----------
    model : DiffusionModel
    """

    def __init__(self, model: DiffusionModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copy asks for these before the object has a model
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self._model, name)

    def policy(self, x_t: Tensor, t: int) -> Policy:
        """The law of x_{t-1} given states x_t of shape (n, \\*state_shape)."""
        # Entered anew for each policy: what autocast keeps of weights must not outlive an optimiser's step.
        with torch.autocast(x_t.device.type, dtype=torch.bfloat16):
            policy = self._model.policy(x_t, t)
        return policy.mapped(lambda part: part.to(x_t.dtype))

    def sample_points(self, noise: Tensor) -> Tensor:
        """Run the chain on given noise, as the chain itself does, with these policies."""
        return cast(Any, type(self._model)).sample_points(self, noise)
