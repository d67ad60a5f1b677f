"""SequenceSpace: DNA, RNA, proteins, or sequences over any alphabet."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.spaces._base import Space
from braidkit.spaces.reading import is_strings, read_designs

ALPHABETS = {"DNA": "ACGT", "RNA": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}


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
        X = read_designs(X)
        kind = self.kind_of(X)
        if kind in ("strings", "tokens"):
            tokens = self._tokens_of_strings(X) if kind == "strings" else self._check_tokens(X)
            return torch.nn.functional.one_hot(torch.from_numpy(tokens).long(), self.n_letters).float()
        if X.shape[1:] not in ((self.length, self.n_letters), (self.n_features,)):
            if kind == "one_hot" and X.shape[1:] == (self.n_letters, self.length):
                raise InvalidDesignError(
                    f"one-hot designs have shape (n, {self.n_letters}, {self.length}), letters first; pass them as "
                    f"(n, {self.length}, {self.n_letters}): X.transpose(0, 2, 1)."
                )
            raise InvalidDesignError(
                f"X has rows of shape {X.shape[1:]}, but the space has {self.length} positions of "
                f"{self.n_letters} letters: pass strings, tokens (n, {self.length}) or flat one-hot "
                f"(n, {self.n_features})."
            )
        one_hot = np.array(X, dtype=np.float32).reshape(-1, self.length, self.n_letters)
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

    def _tokens_of_strings(self, rows: np.ndarray) -> np.ndarray:
        """Letter codes (n, length) of strings."""
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
        # Characters beyond the table of codes share its last entry, which no letter has.
        characters = np.frombuffer("".join(rows).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        tokens = self._codes[np.minimum(characters, 255)].reshape(len(rows), self.length)
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
