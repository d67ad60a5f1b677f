"""Design spaces: the two-way road between what users hold and the tensors that models see.

A space turns designs (strings, tokens, vectors, images) into float tensors ("points") and back, and says which row of
the input is wrong, where, and what to do about it.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import InvalidDesignError, InvalidParameterError

ALPHABETS = {"DNA": "ACGT", "RNA": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}


class Space(abc.ABC):
    """What a design is, as a tensor and as the user's own kind of object.

    Attributes
    ----------
    shape : tuple of int
        Shape of one design as a tensor.
    n_features : int
        Number of entries of that tensor; the width of a flat 2-D array of designs.
    """

    shape: tuple[int, ...]

    @property
    def n_features(self) -> int:
        return math.prod(self.shape)

    @abc.abstractmethod
    def kind_of(self, X: Any) -> str:
        """Name the kind of object that `X` is, as `decode` takes it."""

    @abc.abstractmethod
    def encode(self, X: Any) -> Tensor:
        """Turn designs into a float32 tensor of shape (n, \\*shape)."""

    @abc.abstractmethod
    def decode(self, x: Tensor, kind: str | None = None) -> Any:
        """Turn points of shape (n, \\*shape) into designs of the given kind."""

    def discretise(self, x: Tensor) -> Tensor:
        """Move relaxed points onto designs, with gradients that pass; here every point is a design."""
        return x

    @abc.abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Give the plain constructor arguments, and the class name under ``"space"``."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.to_config() == other.to_config()

    def __hash__(self) -> int:
        return hash(repr(sorted(self.to_config().items())))

    def __repr__(self) -> str:
        config = self.to_config()
        arguments = ", ".join(f"{name}={value!r}" for name, value in config.items() if name != "space")
        return f"{config['space']}({arguments})"


class SequenceSpace(Space):
    """Sequences of one length over one alphabet.

    Points have shape (n, length, n_letters): each position is a point of the simplex over the letters, a one-hot row
    where it is a design.

    Parameters
    ----------
    alphabet : str, default="DNA"
        "DNA", "RNA", "protein", or the letters themselves, such as "ACGT". Letters are upper-cased on reading unless
        the alphabet has lower-case letters of its own.
    length : int
        Number of positions.

    Examples
    --------
    >>> from braidkit import SequenceSpace
    >>> space = SequenceSpace("RNA", length=3)
    >>> space.encode(["ACU"]).shape
    torch.Size([1, 3, 4])
    >>> space.decode(space.encode(["ACU", "GGG"]))
    ['ACU', 'GGG']
    """

    def __init__(self, alphabet: str = "DNA", length: int = 1) -> None:
        letters = ALPHABETS.get(alphabet, alphabet)
        if len(letters) < 2 or len(set(letters)) != len(letters) or not letters.isascii():
            raise InvalidParameterError(
                f"alphabet must be {', '.join(ALPHABETS)} or at least two different ASCII letters; got {alphabet!r}."
            )
        if not isinstance(length, (int, np.integer)) or length < 1:
            raise InvalidParameterError(f"length must be a whole number of at least 1; got {length!r}.")
        self.alphabet = letters
        self.length = int(length)
        self.shape = (self.length, len(letters))
        self._codes = np.full(256, 255, dtype=np.uint8)
        for code, letter in enumerate(letters):
            if letters.upper() == letters:
                self._codes[ord(letter.lower())] = code
            self._codes[ord(letter)] = code

    @property
    def n_letters(self) -> int:
        return len(self.alphabet)

    @property
    def name(self) -> str:
        """The alphabet's usual name ("DNA"), or its letters."""
        return next((name for name, letters in ALPHABETS.items() if letters == self.alphabet), self.alphabet)

    def kind_of(self, X: Any) -> str:
        """Name the kind of object that `X` is: "strings", "tokens", "one_hot" or "flat"."""
        if is_strings(X):
            return "strings"
        shape = np.shape(X)
        if len(shape) == 3:
            return "one_hot"
        if len(shape) == 2:
            return "tokens" if shape[1] == self.length else "flat"
        raise InvalidDesignError(
            f"designs must be a list of strings, tokens (n, {self.length}), one-hot (n, {self.length}, "
            f"{self.n_letters}) or flat one-hot (n, {self.n_features}); got an array of shape {shape}."
        )

    def encode(self, X: Any) -> Tensor:
        """Turn sequences into one-hot points.

        Parameters
        ----------
        X : list of str, or array-like of shape (n, length), (n, length, n_letters) or (n, length * n_letters)
            Strings, whole-number tokens in the alphabet's order, or one-hot rows.

        Returns
        -------
        x : Tensor of shape (n, length, n_letters), float32

        Raises
        ------
        InvalidDesignError
            Naming the first row and position that is not in the space, and the remedy.
        """
        kind = self.kind_of(X)
        if kind in ("strings", "tokens"):
            tokens = self._tokens_of_strings(X) if kind == "strings" else self._check_tokens(np.asarray(X))
            return torch.nn.functional.one_hot(torch.from_numpy(tokens).long(), self.n_letters).float()
        array = np.asarray(X.detach().cpu() if isinstance(X, Tensor) else X)
        if array.shape[1:] not in ((self.length, self.n_letters), (self.n_features,)):
            if kind == "one_hot" and array.shape[1:] == (self.n_letters, self.length):
                raise InvalidDesignError(
                    f"one-hot designs have shape (n, {self.n_letters}, {self.length}), letters first; pass them as "
                    f"(n, {self.length}, {self.n_letters}): X.transpose(0, 2, 1)."
                )
            raise InvalidDesignError(
                f"X has rows of shape {array.shape[1:]}, but the space has {self.length} positions of "
                f"{self.n_letters} letters: pass strings, tokens (n, {self.length}) or flat one-hot "
                f"(n, {self.n_features})."
            )
        one_hot = np.array(array, dtype=np.float32).reshape(-1, self.length, self.n_letters)
        wrong = (np.count_nonzero(one_hot, axis=2) != 1) | (one_hot.max(axis=2, initial=0) != 1)
        if wrong.any():
            row, position = np.argwhere(wrong)[0]
            raise InvalidDesignError(
                f"row {row:,}: position {position + 1} is not one-hot ({one_hot[row, position].tolist()}); exactly "
                "one letter must be 1 and the others 0."
            )
        return torch.from_numpy(one_hot)

    def decode(self, x: Tensor, kind: str | None = "strings") -> Any:
        """Turn points into sequences by the likeliest letter of each position."""
        tokens = x.argmax(dim=-1)
        if kind in (None, "strings"):
            letters = np.frombuffer(self.alphabet.encode(), dtype=np.uint8)[tokens.cpu().numpy()]
            return [row.tobytes().decode() for row in letters]
        if kind == "tokens":
            return tokens.cpu().numpy()
        one_hot = torch.nn.functional.one_hot(tokens, self.n_letters).float().cpu().numpy()
        return one_hot if kind == "one_hot" else one_hot.reshape(len(one_hot), -1)

    def discretise(self, x: Tensor) -> Tensor:
        """One-hot of the likeliest letters; the gradient passes straight through."""
        hard = torch.nn.functional.one_hot(x.argmax(dim=-1), self.n_letters).to(x.dtype)
        return hard + x - x.detach() if x.requires_grad else hard

    def to_config(self) -> dict[str, Any]:
        return {"space": "SequenceSpace", "alphabet": self.alphabet, "length": self.length}

    def _tokens_of_strings(self, X: Any) -> np.ndarray:
        """Letter codes (n, length) of strings."""
        rows = [_as_str(row, i) for i, row in enumerate(X)]
        lengths = np.array([len(row) for row in rows])
        if (lengths != self.length).any():
            row = int(np.flatnonzero(lengths != self.length)[0])
            spread = (
                f"lengths run from {lengths.min()} to {lengths.max()}; crop or drop rows so that all have "
                f"{self.length} letters"
                if lengths.min() != lengths.max()
                else f"all rows have {lengths[0]} letters; use a space or a pretrained model of that length"
            )
            raise InvalidDesignError(
                f"row {row:,} has {lengths[row]} letters, but the space has length {self.length}: {spread}."
            )
        # Letters outside ASCII become "?", which no alphabet of letters has.
        letters = np.frombuffer("".join(rows).encode("ascii", "replace"), dtype=np.uint8)
        tokens = self._codes[letters].reshape(len(rows), self.length)
        if (tokens == 255).any():
            row, position = np.argwhere(tokens == 255)[0]
            bad = len(np.unique(np.argwhere(tokens == 255)[:, 0]))
            others = f" ({bad:,} rows have such letters)" if bad > 1 else ""
            raise InvalidDesignError(
                f"row {row:,}: {rows[row][position]!r} at position {position + 1} is not in the alphabet "
                f"{self.alphabet}{others}; drop or correct such rows, or pass the alphabet that the sequences use."
            )
        return tokens

    def _check_tokens(self, tokens: np.ndarray) -> np.ndarray:
        """Whole-number tokens (n, length) in 0..n_letters - 1."""
        if not np.issubdtype(tokens.dtype, np.number):
            raise InvalidDesignError(f"tokens must be numbers; got an array of type {tokens.dtype}.")
        wrong = ~np.isin(tokens, np.arange(self.n_letters))
        if wrong.any():
            row, position = np.argwhere(wrong)[0]
            raise InvalidDesignError(
                f"row {row:,}: token {tokens[row, position]!r} at position {position + 1} is not a whole number from "
                f"0 to {self.n_letters - 1}."
            )
        return tokens.astype(np.int64)


class VectorSpace(Space):
    """Vectors of one width; points are standardised, so that chains and networks see entries near one.

    Parameters
    ----------
    n_features : int
    loc, scale : array-like of shape (n_features,), optional
        What is subtracted, and then divided by; zeros and ones by default.
    """

    def __init__(
        self,
        n_features: int,
        loc: Sequence[float] | np.ndarray | None = None,
        scale: Sequence[float] | np.ndarray | None = None,
    ) -> None:
        self.shape = (int(n_features),)
        self.loc = np.zeros(n_features) if loc is None else np.asarray(loc, dtype=np.float64)
        self.scale = np.ones(n_features) if scale is None else np.asarray(scale, dtype=np.float64)
        if self.loc.shape != self.shape or self.scale.shape != self.shape:
            raise InvalidParameterError(f"loc and scale must have n_features = {n_features} entries each.")
        if not (self.scale > 0).all():
            raise InvalidParameterError(f"scale must be > 0; got {self.scale.min()}.")

    @classmethod
    def from_data(cls, X: Any) -> VectorSpace:
        """Standardise by the columns of `X`; a constant column keeps scale 1."""
        array = np.asarray(X, dtype=np.float64)
        deviation = array.std(axis=0)
        constant = deviation <= 1e-12 * np.maximum(1.0, np.abs(array).max(axis=0))
        return cls(array.shape[1], array.mean(axis=0), np.where(constant, 1.0, deviation))

    def kind_of(self, X: Any) -> str:
        """There is one kind, "vectors": a 2-D array."""
        if is_strings(X):
            raise InvalidDesignError("designs are strings, but the space holds vectors; use a SequenceSpace.")
        return "vectors"

    def encode(self, X: Any) -> Tensor:
        """Standardise rows; `X` is an array-like of shape (n, n_features)."""
        self.kind_of(X)
        array = np.asarray(X.detach().cpu() if isinstance(X, Tensor) else X, dtype=np.float64)
        if array.ndim != 2 or array.shape[1:] != self.shape:
            raise InvalidDesignError(
                f"X has shape {array.shape}, but the space holds vectors of {self.shape[0]} features."
            )
        if not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            raise InvalidDesignError(
                f"row {row:,}: feature {column} is {array[row, column]}; drop or impute such rows."
            )
        return torch.tensor((array - self.loc) / self.scale, dtype=torch.float32)

    def decode(self, x: Tensor, kind: str | None = None) -> np.ndarray:
        """Undo the standardisation; gives a float64 array of shape (n, n_features)."""
        return x.detach().cpu().numpy().astype(np.float64) * self.scale + self.loc

    def to_config(self) -> dict[str, Any]:
        return {
            "space": "VectorSpace",
            "n_features": self.shape[0],
            "loc": self.loc.tolist(),
            "scale": self.scale.tolist(),
        }


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


def space_from_config(config: dict[str, Any]) -> Space:
    """Build a space from what its `to_config` gave."""
    kinds: dict[str, type[Space]] = {kind.__name__: kind for kind in (SequenceSpace, VectorSpace, ImageSpace)}
    arguments = {name: value for name, value in config.items() if name != "space"}
    return kinds[config["space"]](**arguments)


def infer_space(X: Any) -> Space:
    """Find the space that designs live in: strings make a `SequenceSpace`, 2-D numbers a `VectorSpace`.

    Where half of the rows are nucleotides, the alphabet is DNA or RNA; the length is that of the first row.
    """
    if is_strings(X):
        if len(X) == 0:
            raise InvalidDesignError("X is empty: there is nothing to learn from.")
        rows = [_as_str(row, i) for i, row in enumerate(X)]
        # Rows, not letters: N is an amino acid, but one of it does not make DNA a protein.
        share = {
            letters: sum(set(row.upper()) <= set(letters) for row in rows) / len(rows) for letters in ALPHABETS.values()
        }
        nucleotides = max("ACGT", "ACGU", key=lambda letters: share[letters])
        likely = nucleotides if share[nucleotides] >= 0.5 else max(share, key=lambda letters: share[letters])
        return SequenceSpace(likely, max(1, len(rows[0])))
    return VectorSpace.from_data(X)


def is_strings(X: Any) -> bool:
    """Whether `X` is a one-dimensional collection of strings."""
    if isinstance(X, str):
        raise InvalidDesignError(f"X is one string ({X[:20]!r}); pass a list of strings.")
    if isinstance(X, np.ndarray):
        return X.ndim == 1 and (X.dtype.kind in "UT" or (X.dtype == object and len(X) > 0 and isinstance(X[0], str)))
    if hasattr(X, "iloc"):
        return getattr(X, "ndim", 2) == 1 and len(X) > 0 and isinstance(X.iloc[0], str)
    return isinstance(X, Sequence) and len(X) > 0 and isinstance(X[0], str)


def _as_str(row: Any, i: int) -> str:
    """The row itself if it is a string; an error by row if not (a missing value in a table, say)."""
    if not isinstance(row, str):
        raise InvalidDesignError(f"row {i:,} is {row!r}, not a string; drop such rows.")
    return row
