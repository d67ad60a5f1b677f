"""SequenceSpace: DNA, RNA, proteins, or sequences over any alphabet."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import IncompatibleModelError, InvalidDesignError, InvalidParameterError
from braidkit.parameters import check_number
from braidkit.spaces._base import Space, ranges
from braidkit.spaces.points import Points
from braidkit.spaces.reading import is_strings, read_designs

FREE = "_"  # marks the free positions of a template
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
    template : str, optional
        A letter for each position, the same in all designs, or "_" where it is free, such as "AC__GT". Without a
        template, estimators hold the positions that are the same in all rows of their data; a template of "_" alone
        holds none. Not for alphabets that have "_" as a letter.

    Examples
    --------
    >>> from braidkit import SequenceSpace
    >>> space = SequenceSpace("RNA", length=3)
    >>> space.encode(["ACU"]).shape
    torch.Size([1, 3, 4])
    >>> space.decode(space.encode(["ACU", "GGG"]))
    ['ACU', 'GGG']
    >>> SequenceSpace("RNA", template="A__").decode(space.encode(["CCC"]))
    ['ACC']
    """

    alphabet: str
    designs = "sequences"
    default_chain = "simplex"
    default_features = "sequence"

    def __init__(self, alphabet: str = "DNA", length: int | None = None, template: str | None = None) -> None:
        letters = ALPHABETS.get(alphabet, alphabet) if isinstance(alphabet, str) else ""
        if len(letters) < 2 or len(set(letters)) != len(letters) or not letters.isascii():
            raise InvalidParameterError(
                f"alphabet must be {', '.join(ALPHABETS)} or at least two different ASCII letters; got {alphabet!r}."
            )
        if length is None and isinstance(template, str):
            length = len(template)
        if length is None:
            raise InvalidParameterError(
                "length must be a whole number of at least 1; got None. A space has sequences of one length: "
                f"SequenceSpace({alphabet!r}, length=50)."
            )
        check_number("length", length, low=1, whole=True)
        self.alphabet = letters
        self.length = int(length)
        self.shape = (self.length, len(letters))
        self.nucleotides = self.name in ("DNA", "RNA")
        self._codes = np.full(256, 255, dtype=np.uint8)
        for code, letter in enumerate(letters):
            if letters.upper() == letters:
                self._codes[ord(letter.lower())] = code
            self._codes[ord(letter)] = code
        self.template = None if template is None else self._check_template(template)

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

    @property
    def n_free(self) -> int:
        return self.n_free_positions * (self.n_letters - 1)

    @property
    def n_designs(self) -> int:
        return self.n_letters**self.n_free_positions

    @property
    def n_free_positions(self) -> int:
        """Number of positions that are not held."""
        return self.length if self.template is None else self.template.count(FREE)

    def points(self, X: Any) -> Points:
        """Read sequences, which become one-hot points batch by batch.

        Parameters
        ----------
        X : list of str, or array-like of shape (n, length), (n, length, n_letters) or (n, length * n_letters)
            Strings, whole-number tokens in the alphabet's order, or one-hot rows.

        Returns
        -------
        x : Points of shape (n, length, n_letters)

        Raises
        ------
        InvalidDesignError
            Naming the first row and position that is not in the space, and the remedy.
        """
        X = read_designs(X)
        kind = self.kind_of(X)
        if kind in ("strings", "tokens"):
            tokens = self._tokens_of_strings(X) if kind == "strings" else self._check_tokens(X)
        else:
            tokens = self._tokens_of_one_hot(X, kind)
        return Points(tokens, self._one_hot, self.shape)

    def _one_hot(self, tokens: Tensor) -> Tensor:
        """Points (n, length, n_letters) of tokens (n, length)."""
        return torch.nn.functional.one_hot(tokens.long(), self.n_letters).float()

    def strings(self, X: Any) -> list[str]:
        """Designs of any kind as strings, as they are: what the template holds is not written."""
        return self._write(self.points(X).rows)

    def decode(self, x: Tensor, kind: str | None = "strings") -> Any:
        """Turn points into sequences by the likeliest letter of each position."""
        self._check_decoding(x, kind, ("strings", "tokens", "one_hot", "flat"))
        tokens = self.hold(x.detach()).argmax(dim=-1)
        if kind in (None, "strings"):
            return self._write(tokens.cpu().numpy())
        if kind == "tokens":
            return tokens.cpu().numpy()
        one_hot = self._one_hot(tokens).cpu().numpy()
        return one_hot if kind == "one_hot" else one_hot.reshape(len(one_hot), -1)

    def _write(self, tokens: np.ndarray) -> list[str]:
        """Strings of tokens (n, length)."""
        letters = np.frombuffer(self.alphabet.encode(), dtype=np.uint8)[tokens]
        return [row.tobytes().decode() for row in letters]

    def discretise(self, x: Tensor) -> Tensor:
        """One-hot of the likeliest letters; the gradient passes straight through where no letter is held."""
        hard = torch.nn.functional.one_hot(x.argmax(dim=-1), self.n_letters).to(x.dtype)
        return self.hold(hard + x - x.detach() if x.requires_grad else hard)

    def check_same_designs(self, X: np.ndarray) -> None:
        """Raise IncompatibleModelError if strings plainly have another length or alphabet."""
        if X.ndim != 1 or len(X) == 0 or not isinstance(X[0], str):
            return
        seen = SequenceSpace(likely_alphabet(X), max(1, len(X[0])))
        if seen.length == self.length and seen.alphabet == self.alphabet:
            return
        other_letters = not set().union(*X) <= set(self.alphabet + self.alphabet.lower())
        if seen.length != self.length or (other_letters and seen.name in ("DNA", "RNA") and seen.name != self.name):
            raise IncompatibleModelError(
                f"pretrained makes {self.length}-letter {self.name}, but X is {seen.length}-letter {seen.name}; "
                "pass a model trained on such sequences, or pretrained=None."
            )

    @property
    def held(self) -> str:
        """Held positions in words, from 1: "positions 1-6, 45-50"."""
        where = self._held_mask()
        return f"positions {ranges(np.flatnonzero(where) + 1)}" if where.any() else ""

    def _held_mask(self) -> np.ndarray:
        """The positions that are held, as booleans (length,)."""
        template = self.template or FREE * self.length
        return np.array([letter != FREE for letter in template])

    def _held_points(self) -> tuple[np.ndarray, np.ndarray] | None:
        where = self._held_mask()
        if not where.any():
            return None
        letters = [self.alphabet.find(letter) for letter in self.template]
        return where[:, None], np.eye(self.n_letters, dtype=np.float32)[letters]

    def _constant(self, x: Points) -> str | None:
        if FREE in self.alphabet:
            return None
        tokens = x.rows
        constant = (tokens == tokens[0]).all(axis=0)
        if constant.all():
            raise InvalidDesignError(f"all {len(tokens):,} rows of X are the same sequence: there is nothing to vary.")
        if not constant.any():
            return None
        return "".join(self.alphabet[t] if c else FREE for t, c in zip(tokens[0], constant, strict=True))

    def _check_template(self, template: str) -> str:
        """The template in the alphabet's own letters, checked."""
        if not isinstance(template, str) or len(template) != self.length:
            raise InvalidParameterError(
                f"template must be a string of length {self.length}, a letter or {FREE!r} for each position; got "
                f"{template!r}."
            )
        if FREE in self.alphabet:
            raise InvalidParameterError(f"template marks free positions by {FREE!r}, which is a letter here.")
        letters = template if self.alphabet.upper() != self.alphabet else template.upper()
        wrong = next((i for i, letter in enumerate(letters) if letter not in self.alphabet + FREE), None)
        if wrong is not None:
            raise InvalidParameterError(
                f"template has {template[wrong]!r} at position {wrong + 1}, which is not in the alphabet "
                f"{self.alphabet}; mark free positions by {FREE!r}."
            )
        if FREE not in letters:
            raise InvalidParameterError(f"template holds every position: leave at least one free, as {FREE!r}.")
        return letters

    def to_config(self) -> dict[str, Any]:
        return {"space": "SequenceSpace", "alphabet": self.alphabet, "length": self.length} | (
            {} if self.template is None else {"template": self.template}
        )

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
        return tokens.astype(np.uint8)

    def _tokens_of_one_hot(self, X: np.ndarray, kind: str) -> np.ndarray:
        """Tokens (n, length) of one-hot rows, flat or not."""
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
        one_hot = X.reshape(-1, self.length, self.n_letters)
        wrong = (np.count_nonzero(one_hot, axis=2) != 1) | (one_hot.max(axis=2, initial=0) != 1)
        if wrong.any():
            row, position = np.argwhere(wrong)[0]
            raise InvalidDesignError(
                f"row {row:,}: position {position + 1} is not one-hot ({one_hot[row, position].tolist()}); exactly "
                "one letter must be 1 and the others 0."
            )
        return one_hot.argmax(axis=2).astype(np.uint8)


def likely_alphabet(rows: np.ndarray) -> str:
    """The letters of the named alphabet that most rows are written in; nucleotides where half of the rows are.

    Rows, not letters: N is an amino acid, but one of it does not make DNA a protein.
    """
    share = {
        letters: sum(set(row.upper()) <= set(letters) for row in rows) / len(rows) for letters in ALPHABETS.values()
    }
    nucleotides = max("ACGT", "ACGU", key=lambda letters: share[letters])
    return nucleotides if share[nucleotides] >= 0.5 else max(share, key=lambda letters: share[letters])
