"""ImageSpace: designs that are images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.spaces._base import Space


class ImageSpace(Space):
    """Images of one size; points have shape (n, channels, height, width) with entries in [-1, 1].

    Parameters
    ----------
    height, width : int
        Pixels.
    channels : int, default=3
    """

    def __init__(self, height: int, width: int, channels: int = 3) -> None:
        if min(height, width, channels) < 1:
            raise InvalidParameterError(
                f"height, width and channels must be at least 1; got {height}, {width}, {channels}."
            )
        self.shape = (int(channels), int(height), int(width))

    def kind_of(self, X: Any) -> str:
        """Name the kind of array that `X` is: "uint8" (0 to 255) or "float" (0 to 1)."""
        return "uint8" if np.asarray(X).dtype == np.uint8 else "float"

    def encode(self, X: Any) -> Tensor:
        """Scale images of shape (n, height, width[, channels]), uint8 or floats in [0, 1], to [-1, 1]."""
        array = np.asarray(X)
        channels, height, width = self.shape
        expected = (height, width) if channels == 1 and array.ndim == 3 else (height, width, channels)
        if array.shape[1:] != expected:
            raise InvalidDesignError(
                f"images must have shape (n, {', '.join(map(str, expected))}), channels last; got {array.shape}."
            )
        images = np.array(array, dtype=np.float32).reshape(-1, height, width, channels)
        if array.dtype == np.uint8:
            images /= 255
        wrong = ~((images >= 0) & (images <= 1)).all(axis=(1, 2, 3))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InvalidDesignError(
                f"row {row:,}: pixels run from {images[row].min():g} to {images[row].max():g}; pass uint8 images or "
                "floats from 0 to 1."
            )
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous() * 2 - 1

    def decode(self, x: Tensor, kind: str | None = "uint8") -> np.ndarray:
        """Turn points into images, channels last (no channel axis for one channel)."""
        images = (x.detach().clamp(-1, 1).permute(0, 2, 3, 1).cpu().numpy() + 1) / 2
        images = images[..., 0] if self.shape[0] == 1 else images
        return images if kind == "float" else np.round(images * 255).astype(np.uint8)

    def to_config(self) -> dict[str, Any]:
        channels, height, width = self.shape
        return {"space": "ImageSpace", "height": height, "width": width, "channels": channels}
