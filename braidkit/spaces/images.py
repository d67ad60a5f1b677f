"""ImageSpace: designs that are images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.parameters import check_number
from braidkit.spaces._base import Space
from braidkit.spaces.points import Points
from braidkit.spaces.reading import read_designs

# Images that are checked at a time.
_AT_ONCE = 1024
# Rows from which constant pixels are held. A pixel that is the same in so many differs in fewer than 0.3 % of pictures,
# by the rule of three. An image has many pixels: with a tenth of the rows, many pictures would differ somewhere.
_ENOUGH_ROWS = 1000


class ImageSpace(Space):
    """Images of one size; points have shape (n, channels, height, width) with entries in [-1, 1].

    Parameters
    ----------
    height, width : int
        Pixels.
    channels : int, default=3
    template : array-like of shape (height, width[, channels]), optional
        A number from 0 to 1 where a pixel is held at it in all designs, None (or NaN) where it is free. Without a
        template, estimators hold pixels that are the same in 1,000 rows or more, each channel by itself. Fewer rows
        do not show that a pixel never varies.
    """

    has_pixels = True
    designs = "images"
    default_chain = "image"
    default_features = "vector"

    def __init__(
        self, height: int, width: int, channels: int = 3, template: Sequence[Any] | np.ndarray | None = None
    ) -> None:
        sizes = {"height": height, "width": width, "channels": channels}
        for name, value in sizes.items():
            check_number(name, value, low=1, whole=True)
        self.shape = (int(channels), int(height), int(width))
        self.template = None if template is None else self._check_template(template)

    @property
    def n_free(self) -> int:
        return self.n_features if self.template is None else int(np.isnan(self.template).sum())

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
        """Round pixels to the 256 levels of 8 bits, within [-1, 1], and write those that are held.

        The gradient passes the rounding as if it were not there (straight-through), and is zero outside [-1, 1] and at
        held pixels.
        """
        inside = x.clamp(-1, 1)
        return self.hold(inside + ((((inside + 1) * 127.5).round() / 127.5 - 1) - inside).detach())

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
        if self.template is not None:
            images = np.where(np.isnan(self.template), images, self.template.astype(np.float32))
        images = images[..., 0] if self.shape[0] == 1 else images
        return images if kind == "float" else np.round(images * 255).astype(np.uint8)

    @property
    def held(self) -> str:
        n = self.n_features - self.n_free
        what = "pixels" if self.shape[0] == 1 else "values of pixels, by channel,"
        return f"{n:,} of {self.n_features:,} {what}" if n else ""

    def _held_points(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.template is None:
            return None
        values = self.template.transpose(2, 0, 1)
        return ~np.isnan(values), (2 * np.nan_to_num(values) - 1).astype(np.float32)

    def _constant(self, x: Points) -> np.ndarray | None:
        rows = x.rows
        constant = np.ones(rows.shape[1:], dtype=bool)
        for start in range(0, len(rows), _AT_ONCE):
            constant &= (rows[start : start + _AT_ONCE] == rows[0]).all(axis=0)
        if constant.all():
            raise InvalidDesignError(f"all {len(rows):,} rows of X are the same image: there is nothing to vary.")
        if len(rows) < _ENOUGH_ROWS or not constant.any():
            return None
        values = rows[0].astype(np.float64) / (255 if rows.dtype == np.uint8 else 1)
        channels, height, width = self.shape
        return np.where(constant, values, np.nan).reshape(height, width, channels)

    def _check_template(self, template: Any) -> np.ndarray:
        """The template as an array (height, width, channels), NaN where it is free, checked."""
        channels, height, width = self.shape
        try:
            values = np.array(template, dtype=np.float64)
            values = values[..., None] if values.shape == (height, width) and channels == 1 else values
            known = values[~np.isnan(values)]
            right = values.shape == (height, width, channels) and ((known >= 0) & (known <= 1)).all()
        except (TypeError, ValueError):
            right = False
        if not right:
            size = f"({height}, {width}, {channels})"
            raise InvalidParameterError(
                f"template must have shape {size}, with numbers from 0 to 1 where pixels are held, and None elsewhere; "
                f"got {template!r:.60}."
            )
        if len(known) == values.size:
            raise InvalidParameterError("template holds every pixel: leave at least one free, as None.")
        return values

    def to_config(self) -> dict[str, Any]:
        channels, height, width = self.shape
        config = {"space": "ImageSpace", "height": height, "width": width, "channels": channels}
        if self.template is None:
            return config
        values = self.template.astype(object)
        values[np.isnan(self.template)] = None
        return config | {"template": values.tolist()}

    def __repr__(self) -> str:
        channels, height, width = self.shape
        held = f", {self.held} held" if self.held else ""
        return f"ImageSpace(height={height}, width={width}, channels={channels}{held})"
