"""Read pictures from files into the array that estimators take."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braidkit.exceptions import InvalidDesignError, InvalidParameterError, MissingExtraError
from braidkit.parameters import check_number

# Levels of 16 bits for each of the 256 of 8 bits.
_SIXTEEN_BITS = 257


def read_images(
    files: Sequence[str | os.PathLike[str] | Any], *, size: tuple[int, int] | None = None, channels: int = 3
) -> NDArray[np.uint8]:
    """Read image files, or take PIL images, as one array.

    Photographs are turned upright, transparent pictures are put on white, and 16 bits become 8.

    Parameters
    ----------
    files : list of path-like, or of PIL images
    size : (height, width), optional
        Cut each in its centre to this shape and scale it to this size. By default all must have one size.
    channels : {1, 3}, default=3
        Grey pictures become colour ones of one colour, and colour ones grey, by their luminance.

    Returns
    -------
    images : ndarray of shape (n, height, width[, 3]), uint8

    Raises
    ------
    InvalidDesignError
        Naming the first row whose file is missing or broken, or whose size is not that of the first.

    Examples
    --------
    >>> from PIL import Image
    >>> read_images([Image.new("L", (40, 20))], size=(8, 8)).shape
    (1, 8, 8, 3)
    """
    if channels not in (1, 3):
        raise InvalidParameterError(f"channels must be 1 or 3; got {channels!r}.")
    if size is not None:
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise InvalidParameterError(f"size must be (height, width); got {size!r:.60}.")
        for side in size:
            check_number("size", side, low=1, whole=True)
    if isinstance(files, str) or not isinstance(files, Collection):
        raise InvalidParameterError(f"files must be a list of paths or of images; got {files!r:.60}.")
    if len(files) == 0:
        raise InvalidDesignError("there are no files to read.")
    images: list[NDArray[np.uint8]] = []
    for row, file in enumerate(files):
        try:
            picture = opened(file)
        except ValueError as error:
            raise InvalidDesignError(
                f"row {row:,}: {file} cannot be read as a picture ({error}); mend the file, or leave out the row."
            ) from error
        images.append(pixels_of(picture, size=size, channels=channels))
        if images[row].shape != images[0].shape:
            (height, width), (first_height, first_width) = images[row].shape[:2], images[0].shape[:2]
            raise InvalidDesignError(
                f"row {row:,}: {file} is {height} x {width} pixels, and row 0 is {first_height} x {first_width}; pass "
                "size=(height, width) to cut and scale all to one size."
            )
    return np.stack(images)


def opened(file: Any) -> Any:
    """A PIL image, upright, without transparency, of mode "L" or "RGB", of a file or another PIL image.

    Raises
    ------
    ValueError
        If it cannot be read to its end.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError('pictures need Pillow: pip install "braidkit[images]".') from error
    try:
        picture = file if isinstance(file, Image.Image) else Image.open(file)
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, AttributeError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    if picture.mode == "F":
        raise ValueError("its pixels are floats; convert it to 8 bits")
    if picture.mode.startswith("I"):
        # Pillow would cut all above 255 off.
        levels = np.asarray(picture).astype(np.int64) // _SIXTEEN_BITS
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    grey = picture.mode in ("1", "L", "LA")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(ground, picture)
    return picture.convert("L" if grey else "RGB")


def pixels_of(picture: Any, *, size: tuple[int, int] | None, channels: int) -> NDArray[np.uint8]:
    """Pixels (height, width[, 3]) of what `opened` gave; cut in the centre and scaled where a size is asked for."""
    from PIL import Image, ImageOps

    picture = picture.convert("RGB" if channels == 3 else "L")
    if size is not None:
        picture = ImageOps.fit(picture, (size[1], size[0]), method=Image.Resampling.BICUBIC)
    return np.asarray(picture)
