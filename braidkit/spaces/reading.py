"""One reader of designs: whatever table library they come from, plain arrays that are indexed by position."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from braidkit.exceptions import BraidkitError, InvalidDesignError, SparseDesignError
from braidkit.spaces.points import Points


def read_designs(X: Any) -> np.ndarray:
    """Designs as a plain array: text (n,) as an object array of `str`, all else as an array of numbers.

    Parameters
    ----------
    X : collection of str, or array-like of numbers
        Lists, tuples, arrays of NumPy (text, bytes or objects too), columns, indexes and one-column frames of pandas,
        and what other libraries offer with ``__array__``, ``to_numpy`` or ``to_pylist``; tensors of any device.

    Returns
    -------
    designs : ndarray
        One entry, or row, a design. The caller's own array where nothing had to be changed.

    Raises
    ------
    InvalidDesignError
        If a row of text is missing or is no text, by number, or if `X` holds no designs at all.
    """
    array = _as_array(X)
    if array.dtype.kind in "Mm":
        raise InvalidDesignError(f"X holds dates ({array.reshape(-1)[0]}); pass strings, or rows of numbers.")
    text = array if array.dtype.kind in "UTS" or _has_text(array) else None
    if text is None:
        return array
    if text.ndim == 2 and text.shape[1] == 1:
        text = text[:, 0]
    if text.ndim != 1:
        raise InvalidDesignError(
            f"X has text in an array of shape {text.shape}; pass one string a row: join letters that stand apart, and "
            "leave out columns that are not designs."
        )
    rows = text.astype(object)
    for i, row in enumerate(rows):
        if isinstance(row, bytes):
            rows[i] = row.decode("latin-1")
        elif not isinstance(row, str):
            raise InvalidDesignError(f"row {i:,} is {row!r}, not a string; drop such rows.")
    return rows


def is_strings(X: Any) -> bool:
    """Whether `X` holds text, one string a design; an error by row where some are not."""
    X = read_designs(X)
    return X.ndim == 1 and X.dtype == object and len(X) > 0 and isinstance(X[0], str)


def design_groups(X: Any) -> np.ndarray:
    """Number identical designs alike, so that no split of rows tears them apart.

    Parameters
    ----------
    X : Points, Tensor of shape (n, ...), or designs
        Points of a space, or what `read_designs` reads; points also know that "acgt" is "ACGT".

    Returns
    -------
    groups : ndarray of shape (n,), int64
        From 0, in the order in which designs first appear.

    Examples
    --------
    >>> design_groups(["ACG", "TTT", "ACG"]).tolist()
    [0, 1, 0]
    """
    rows = X.rows if isinstance(X, Points) else read_designs(X)
    if rows.ndim > 1:
        # As one number each, -0.0 as 0.0; a digest in place of a long row.
        flat = rows.reshape(len(rows), -1).astype(np.float64 if rows.dtype == object else rows.dtype) + 0
        rows = np.array([blake2b(row.tobytes(), digest_size=16).digest() for row in flat] + [None], dtype=object)[:-1]
    return pd.factorize(rows)[0].astype(np.int64)


def join_groups(X: Any, groups: Any = None) -> np.ndarray:
    """Number rows so that those of one design, or of one of the user's groups, have the same number.

    Parameters
    ----------
    X : Tensor of shape (n, ...), or designs
    groups : array-like of shape (n,), optional

    Returns
    -------
    joined : ndarray of shape (n,), int64
        From 0, in the order in which they first appear.

    Raises
    ------
    InvalidDesignError
        If there are more or fewer entries in groups than designs.

    Examples
    --------
    >>> join_groups(["ACG", "TTT", "ACG", "GGG"], groups=["a", "b", "b", "c"]).tolist()
    [0, 0, 0, 1]
    """
    designs = design_groups(X)
    if groups is None:
        return designs
    check_readable("groups", groups, InvalidDesignError)
    try:
        array = np.asarray(groups)
        column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        given = pd.factorize(column, use_na_sentinel=True)[0]
    except (TypeError, ValueError) as error:
        raise InvalidDesignError(f"groups must hold one number or string a row ({error}).") from error
    if (given < 0).any():
        row = int((given < 0).argmax())
        raise InvalidDesignError(f"groups: row {row:,} is missing; give each design a group, or one of its own.")
    if len(given) != len(designs):
        raise InvalidDesignError(
            f"groups has {len(given):,} entries for {len(designs):,} designs; pass one for each design."
        )
    n_designs = int(designs.max(initial=-1)) + 1
    n_nodes = n_designs + int(given.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(given)), (designs, n_designs + given)), shape=(n_nodes, n_nodes))
    joined = connected_components(edges, directed=False)[1][designs]
    return pd.factorize(joined)[0].astype(np.int64)


def _as_array(X: Any) -> np.ndarray:
    """Any collection as an array of at least one dimension, without turning numbers beside text into text."""
    if isinstance(X, (str, bytes)):
        raise InvalidDesignError(f"X is one string ({X[:20]!r}); pass a list of strings.")
    check_readable("X", X, InvalidDesignError)
    if isinstance(X, Tensor):
        return tensor_entries("X", X, InvalidDesignError)
    if isinstance(X, np.ndarray):
        array = np.asarray(X)  # of a subclass, its plain entries
    elif isinstance(X, (list, tuple)):
        buffer = next((i for i, row in enumerate(X) if isinstance(row, (bytearray, memoryview))), None)
        if buffer is not None:  # numpy would read codes of letters as numbers
            raise InvalidDesignError(f"row {buffer:,} is a {type(X[buffer]).__name__}, not a string; decode such rows.")
        has_text = any(isinstance(row, (str, bytes)) for row in X)
        array = _ragged_is_refused(X, object if has_text else None)
    elif hasattr(X, "__array__") or hasattr(X, "to_numpy"):
        array = given_array("X", X, InvalidDesignError)
    elif hasattr(X, "to_pylist"):
        return _as_array(X.to_pylist())
    elif hasattr(X, "toarray"):
        raise SparseDesignError("X is a sparse matrix; pass a dense one: X.toarray().")
    else:
        array = _ragged_is_refused(X, None)
    if array.ndim == 0:
        raise InvalidDesignError(
            f"X is {X!r:.60}, not a collection of designs; pass a list of strings, or rows of numbers."
        )
    if array.dtype.names is not None:
        raise InvalidDesignError(
            f"X is an array with fields ({', '.join(array.dtype.names)}); pass plain rows of numbers, or a DataFrame."
        )
    return array


def check_readable(name: str, values: Any, kind: type[BraidkitError]) -> None:
    """Raise an error of a kind if some entries are masked: numpy would read what lies below the mask."""
    if np.ma.is_masked(values):
        raise kind(f"{name} has masked entries, which are missing; fill or drop such rows.")


def tensor_entries(name: str, values: Tensor, kind: type[BraidkitError]) -> np.ndarray:
    """A tensor of any device as an array; an error of a kind if it is not dense, or holds nothing."""
    try:
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise kind(
            f"{name} is a tensor that is sparse, nested or on the device meta ({error!s:.80}); pass a dense one."
        ) from error


def given_array(name: str, values: Any, kind: type[BraidkitError]) -> np.ndarray:
    """The array that another library's object gives of itself; an error of a kind if it gives none."""
    try:
        return np.asarray(values if hasattr(values, "__array__") else values.to_numpy())
    except Exception as error:  # whatever that library raises
        raise kind(f"{name}, a {type(values).__name__}, gives no array ({error!s:.80}); pass a NumPy array.") from error


def _ragged_is_refused(X: Any, dtype: Any) -> np.ndarray:
    """A sequence as an array; an error that names the first row of another length."""
    try:
        return np.asarray(X, dtype=dtype)
    except ValueError as error:
        lengths = [len(row) if hasattr(row, "__len__") else 0 for row in X]
        other = next((i for i, length in enumerate(lengths) if length != lengths[0]), 0)
        raise InvalidDesignError(
            f"X has rows of different lengths: row 0 has {lengths[0]} entries, row {other:,} has {lengths[other]}."
        ) from error


def _has_text(array: np.ndarray) -> bool:
    """Whether an array of objects holds text: its first entry that is not missing is a string."""
    if array.dtype != object:
        return False
    entries = array.reshape(-1)
    present = next((entry for entry in entries if not _is_missing(entry)), None)
    nothing_but_missing = array.ndim == 1 and len(entries) > 0 and present is None
    return isinstance(present, (str, bytes)) or nothing_but_missing


def _is_missing(entry: Any) -> bool:
    """Whether an entry of a table is None, NaN or pandas' NA."""
    return entry is None or entry is pd.NA or (isinstance(entry, float) and entry != entry)
