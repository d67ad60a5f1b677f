"""ImageSpace: designs that are images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import InvalidDesignError
from braidkit.parameters import check_number
from braidkit.spaces._base import Space
from braidkit.spaces.points import Points
from braidkit.spaces.reading import read_designs

# Images that are checked at a time.
_AT_ONCE = 1024


class ImageSpace(Space):
    """Images of one size; points have shape (n, channels, height, width) with entries in [-1, 1].

    Parameters
    ----------
    height, width : int
        Pixels.
    channels : int, default=3
    """

    designs = "images"
    default_chain = "image"
    default_features = "vector"

    def __init__(self, height: int, width: int, channels: int = 3) -> None:
        sizes = {"height": height, "width": width, "channels": channels}
        for name, value in sizes.items():
            check_number(name, value, low=1, whole=True)
        self.shape = (int(channels), int(height), int(width))

    @property
    def n_free(self) -> int:
        return self.n_features

    def kind_of(self, X: Any) -> str:
        """Name the kind of array that `X` is: "uint8" (0 to 255) or "float" (0 to 1)."""
        return "uint8" if read_designs(X).dtype == np.uint8 else "float"

    def points(self, X: Any) -> Points:
        """Images of shape (n, height, width[, channels]), uint8 or floats in [0, 1], scaled to [-1, 1] in batches."""
        images = read_designs(X)
        channels, height, width = self.shape
        expected = (height, width) if channels == 1 and images.ndim == 3 else (height, width, channels)
        if images.shape[1:] != expected or images.dtype.kind not in "fiub":
            raise InvalidDesignError(
                f"images must have shape (n, {', '.join(map(str, expected))}), channels last; got {images.shape}"
                f" of type {images.dtype}."
            )
        if images.dtype != np.uint8:
            for start in range(0, len(images), _AT_ONCE):
                self._check_range(images[start : start + _AT_ONCE], start)
        return Points(images, self._scaled, self.shape)

    def discretise(self, x: Tensor) -> Tensor:
        """Round pixels to the 256 levels of 8 bits, within [-1, 1].

        The gradient passes the rounding as if it were not there (straight-through), and is zero outside [-1, 1].
        """
        inside = x.clamp(-1, 1)
        return inside + ((((inside + 1) * 127.5).round() / 127.5 - 1) - inside).detach()

    def _check_range(self, images: np.ndarray, start: int) -> None:
        """Raise unless pixels lie between 0 and 1; the first image is row `start`."""
        flat = images.reshape(len(images), -1)
        wrong = ~((flat >= 0) & (flat <= 1)).all(axis=1)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InvalidDesignError(
                f"row {start + row:,}: pixels run from {flat[row].min():g} to {flat[row].max():g}; pass uint8 images "
                "or floats from 0 to 1."
            )

    def _scaled(self, images: Tensor) -> Tensor:
        """Points of images, channels last or without an axis of channels."""
        channels, height, width = self.shape
        pixels = images.float().reshape(-1, height, width, channels)
        pixels = pixels / 255 if images.dtype == torch.uint8 else pixels
        return pixels.permute(0, 3, 1, 2).contiguous() * 2 - 1

    def decode(self, x: Tensor, kind: str | None = "uint8") -> np.ndarray:
        """Turn points into images, channels last (no channel axis for one channel)."""
        self._check_decoding(x, kind, ("uint8", "float"))
        images = (x.detach().clamp(-1, 1).permute(0, 2, 3, 1).cpu().numpy() + 1) / 2
        images = images[..., 0] if self.shape[0] == 1 else images
        return images if kind == "float" else np.round(images * 255).astype(np.uint8)

    def to_config(self) -> dict[str, Any]:
        channels, height, width = self.shape
        return {"space": "ImageSpace", "height": height, "width": width, "channels": channels}
