"""Read a table of measured pictures: paths of image files, with a measurement of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from braidkit.datasets._cells import Cells, others, read_cells
from braidkit.datasets.measured import AskedColumns, MeasuredDesigns, check_any_kept
from braidkit.datasets.pictures import opened, pixels_of
from braidkit.datasets.table import unquoted
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.persistence import digest, read_path
from braidkit.spaces import ImageSpace

# Broken files that are named.
_MOST_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class MeasuredPictures(MeasuredDesigns):
    """Pictures with one measurement each, and what was done to the rows that were read.

    Attributes
    ----------
    files : list of str
        Paths as the table has them, all different, in the order of their first row.
    X : ndarray of shape (n_files, height, width[, 3]), uint8
    space : ImageSpace
    y, n_rows, n_averaged, dropped, notes, targets, y_error, sample_weight, noise
        As in `MeasuredDesigns`.
    """

    files: list[str]
    X: NDArray[np.uint8]
    space: ImageSpace

    def digest(self) -> str:
        """A digest of the pictures, measurements and noise."""
        return digest(self.X, self.y, *([self.told] if self.told else []))

    def describe(self) -> str:
        """One line: rows read and kept, the kind of pictures, the target's quantiles."""
        return self.described_as(in_words(self.space))


def in_words(space: ImageSpace) -> str:
    """The size and kind of a space's pictures."""
    channels, height, width = space.shape
    return f"{'grey' if channels == 1 else 'colour'} pictures of {height} x {width} pixels"


def read_pictures(
    path: str | os.PathLike[str],
    *,
    target: str | Sequence[str],
    image: str = "image",
    target_se: str | Sequence[str] = (),
    weight: str | None = None,
    space: ImageSpace | None = None,
    resize: bool = False,
    on_broken: str = "error",
) -> MeasuredPictures:
    """Read paths of pictures, and their measurements, from a table with a header row.

    Rows of one file are averaged. Rows without a measurement are dropped, and their pictures not read.

    Parameters
    ----------
    path : path-like
        A table as `read_table` reads it.
    target, target_se, weight
        As in `read_table`.
    image : str, default="image"
        Column of the paths, relative to the table's folder.
    space : ImageSpace, optional
        Size and channels that the pictures must have. By default the commonest size; grey if all are.
    resize : bool, default=False
        Cut pictures of other sizes in their centre and scale them. By default they are refused.
    on_broken : {"error", "drop"}, default="error"
        Treatment of rows whose file is missing or broken.

    Returns
    -------
    pictures : MeasuredPictures

    Raises
    ------
    InvalidDesignError
        Naming the row and the file, for a path that is empty, a file that is missing or broken, or another size.
    InvalidParameterError, InvalidTargetError, MissingExtraError
        As `read_table` does.
    """
    if on_broken not in ("error", "drop"):
        raise InvalidParameterError(f"on_broken must be 'error' or 'drop'; got {on_broken!r}.")
    path = read_path("path", path)
    asked = AskedColumns.parse(target, target_se, weight)
    if image in asked.names:
        raise InvalidParameterError(f"column {image!r} cannot be the pictures and the target; name two columns.")
    cells = read_cells(path, [image, *asked.names])
    measured, dropped = asked.values(cells), dict[str, int]()
    names = unquoted(pd.Series(cells.columns[image], dtype=str)).tolist()
    empty = [i for i, name in enumerate(names) if not name]
    if empty:
        raise InvalidDesignError(f"{cells.where(empty[0])}: {image!r} is empty{others(len(empty))}; drop such rows.")
    keep = np.ones(len(names), dtype=bool)
    asked.drop_unmeasured(measured, keep, dropped)
    weights = asked.drop_weightless(cells, keep, dropped)
    check_any_kept(path, keep, dropped)
    pictures = _read_files(cells, names, keep, on_broken, dropped)
    check_any_kept(path, keep, dropped)
    groups, files = pd.factorize(np.array(names, dtype=object)[keep])
    told = asked.averaged(cells, measured, weights, keep, groups)
    X, space, notes = _to_space(cells, names, {name: pictures[name] for name in files}, space, resize)
    if cells.n_comments:
        notes.append(f"{cells.n_comments:,} commented out")
    return MeasuredPictures(
        files=files.tolist(),
        X=X,
        space=space,
        n_rows=len(names),
        n_averaged=int(keep.sum()) - len(files),
        dropped=dropped,
        notes=tuple(notes),
        **told,
    )


def read_picture_files(
    path: str | os.PathLike[str], space: ImageSpace, *, image: str = "image", resize: bool = False
) -> tuple[list[str], NDArray[np.uint8]]:
    """Read the pictures that a table names, without measurements: their paths, and (n, height, width[, 3]).

    Raises
    ------
    InvalidDesignError
        As `read_pictures` does.
    """
    cells = read_cells(read_path("path", path), [image])
    names = unquoted(pd.Series(cells.columns[image], dtype=str)).tolist()
    pictures = _read_files(cells, names, np.ones(len(names), dtype=bool), "error", {})
    X = _to_space(cells, names, pictures, space, resize)[0]
    rows = {name: i for i, name in enumerate(pictures)}
    return names, X[[rows[name] for name in names]]


def _read_files(
    cells: Cells, names: list[str], keep: np.ndarray, on_broken: str, dropped: dict[str, int]
) -> dict[str, Any]:
    """Open pictures by their names in the table; rows whose file is broken are refused, or taken out of `keep`."""
    pictures: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for name in dict.fromkeys(name for name, kept in zip(names, keep, strict=True) if kept):
        file = cells.path.parent / name
        try:
            pictures[name] = opened(file)
        except ValueError as error:
            broken[name] = "there is no such file" if not _is_there(file) else f"no picture: {error}"
    if broken and on_broken == "error":
        first = next(iter(broken))
        n = sum(name in broken for name in names)
        raise InvalidDesignError(
            f"{cells.where(names.index(first))}: {first} cannot be read ({broken[first]}){others(n)}; mend the "
            "file, or leave such rows out (--skip-broken, or on_broken='drop')."
        )
    if broken:
        lost = np.array([name in broken for name in names]) & keep
        some = list(broken)[:_MOST_NAMES]
        more = f" and {len(broken) - len(some):,} more" if len(broken) > len(some) else ""
        dropped[f"whose picture cannot be read ({', '.join(some)}{more})"] = int(lost.sum())
        keep &= ~lost
    return pictures


def _is_there(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _to_space(
    cells: Cells, names: list[str], pictures: dict[str, Any], space: ImageSpace | None, resize: bool
) -> tuple[NDArray[np.uint8], ImageSpace, list[str]]:
    """The array of pictures, its space, and what was done to them, in words."""
    sizes = {name: (picture.height, picture.width) for name, picture in pictures.items()}
    grey = [name for name, picture in pictures.items() if picture.mode == "L"]
    if space is None:
        commonest = Counter(sizes.values()).most_common(1)[0][0]
        space = ImageSpace(*commonest, 1 if len(grey) == len(pictures) else 3)
        wanted = "the commonest size"
    else:
        wanted = f"what is wanted here, {in_words(space)}"
    channels, *size = space.shape
    other = [name for name in pictures if sizes[name] != tuple(size)]
    scaled = set(other)
    if other and not resize:
        height, width = sizes[other[0]]
        raise InvalidDesignError(
            f"{cells.where(names.index(other[0]))}: {other[0]} has {height} x {width} pixels, not {size[0]} x "
            f"{size[1]}, {wanted}{others(sum(name in scaled for name in names))}; scale such pictures, or have them "
            "cut in the centre and scaled (--resize, or resize=True)."
        )
    notes = [f"{len(other):,} cut and scaled"] if other else []
    changed = grey if channels == 3 else [name for name in pictures if name not in set(grey)]
    if changed:
        was, now = ("grey", "colour") if channels == 3 else ("in colour", "grey")
        notes.append(f"{len(changed):,} {was}, such as {changed[0]}, read as {now}")
    shape = (size[0], size[1])
    X = np.stack(
        [
            pixels_of(picture, size=shape if name in scaled else None, channels=channels)
            for name, picture in pictures.items()
        ]
    )
    return X, space, notes
