"""Letters: an alphabet, the lengths of its sequences, and how strings, tokens and one-hot rows are read as both."""

from __future__ import annotations

from typing import Any

import numpy as np

from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.parameters import LARGEST_COUNT, check_choice

ALPHABETS = {"DNA": "ACGT", "RNA": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWY"}
# The padding letter where letters are characters; no string that is read or written has it.
PAD = "\0"


class Letters:
    """The alphabet of sequences, and their lengths.

    Parameters
    ----------
    alphabet : str
        As in `SequenceSpace`.
    length : int or (int, int)
        One, or the shortest and the longest.
    padding : {"right", "left"}
        Where sequences that are shorter than the longest are filled up.

    Attributes
    ----------
    alphabet : str
        The letters themselves.
    shortest, length : int
        Least and greatest number of letters.
    padding : str or None
        None where all sequences have one length.
    symbols : str
        The letters by their numbers, padding last where there is any.
    """

    def __init__(self, alphabet: str, length: Any, padding: str) -> None:
        letters = ALPHABETS.get(alphabet, alphabet) if isinstance(alphabet, str) else ""
        if len(letters) < 2 or len(set(letters)) != len(letters) or not letters.isascii() or PAD in letters:
            raise InvalidParameterError(
                f"alphabet must be {', '.join(ALPHABETS)} or at least two different ASCII letters; got {alphabet!r}."
            )
        pair = list(length) if isinstance(length, (tuple, list)) else [length, length]
        whole = all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in pair)
        if not whole or len(pair) != 2 or not 1 <= pair[0] <= pair[1] <= LARGEST_COUNT:
            raise InvalidParameterError(
                f"length must be a whole number of at least 1, or the shortest and the longest of several; got "
                f"{length!r}: SequenceSpace({alphabet!r}, length=50), or length=(25, 100)."
            )
        check_choice("padding", padding, ("right", "left"))
        self.alphabet = letters
        self.shortest, self.length = map(int, pair)
        self.padding = padding if self.shortest < self.length else None
        self.symbols = letters + PAD * (self.padding is not None)
        self._codes = np.full(256, 255, dtype=np.uint8)
        for code, letter in enumerate(letters):
            if letters.upper() == letters:
                self._codes[ord(letter.lower())] = code
            self._codes[ord(letter)] = code

    def in_words(self) -> str:
        """The lengths: "50", or "25 to 100"."""
        return f"{self.length}" if self.padding is None else f"{self.shortest} to {self.length}"

    def spans(self, lengths: np.ndarray) -> np.ndarray:
        """Booleans (n, length): the positions that sequences of these lengths fill."""
        positions = np.arange(self.length)
        if self.padding == "left":
            return positions >= self.length - lengths[:, None]
        return positions < lengths[:, None]

    def write(self, tokens: np.ndarray) -> list[str]:
        """Strings of tokens (n, length), without padding."""
        letters = np.frombuffer(self.symbols.encode(), dtype=np.uint8)[tokens]
        return [row.tobytes().decode().replace(PAD, "") for row in letters]

    def tokens_of_strings(self, rows: np.ndarray) -> np.ndarray:
        """Letter codes (n, length) of strings."""
        lengths = np.array([len(row) for row in rows])
        wrong = (lengths < self.shortest) | (lengths > self.length)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            spread = (
                f"lengths run from {lengths.min()} to {lengths.max()}; crop or drop rows so that all have "
                f"{self.in_words()} letters, or use a space of all these lengths, "
                f"SequenceSpace(length=({lengths.min()}, {lengths.max()}))"
                if lengths.min() != lengths.max()
                else f"all rows have {lengths[0]} letters; use a space or a pretrained model of that length"
            )
            has = "length" if self.padding is None else "lengths"
            raise InvalidDesignError(
                f"row {row:,} has {lengths[row]} letters, but the space has {has} {self.in_words()}: {spread}."
            )
        # Characters beyond the table of codes share its last entry, which no letter has.
        characters = np.frombuffer("".join(rows).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        codes = self._codes[np.minimum(characters, 255)]
        if (codes == 255).any():
            starts = np.concatenate([[0], lengths.cumsum()])
            bad = np.unique(np.searchsorted(starts, np.flatnonzero(codes == 255), side="right") - 1)
            row, position = int(bad[0]), int(np.flatnonzero(codes[starts[bad[0]] :] == 255)[0])
            others = f" ({len(bad):,} rows have such letters)" if len(bad) > 1 else ""
            raise InvalidDesignError(
                f"row {row:,}: {rows[row][position]!r} at position {position + 1} is not in the alphabet "
                f"{self.alphabet}{others}; drop or correct such rows, or pass the alphabet that the sequences use."
            )
        tokens = np.full((len(rows), self.length), len(self.alphabet), dtype=np.uint8)
        tokens[self.spans(lengths)] = codes
        return tokens

    def check_tokens(self, tokens: np.ndarray) -> np.ndarray:
        """Whole-number tokens (n, length) from 0 on, in the order of `symbols`."""
        if not np.issubdtype(tokens.dtype, np.number):
            raise InvalidDesignError(f"tokens must be numbers; got an array of type {tokens.dtype}.")
        wrong = ~np.isin(tokens, np.arange(len(self.symbols)))
        if wrong.any():
            row, position = np.argwhere(wrong)[0]
            raise InvalidDesignError(
                f"row {row:,}: token {tokens[row, position]!r} at position {position + 1} is not a whole number from "
                f"0 to {len(self.symbols) - 1}."
            )
        return self._check_padding(tokens.astype(np.uint8))

    def tokens_of_one_hot(self, X: np.ndarray, kind: str) -> np.ndarray:
        """Tokens of one-hot rows, flat or not."""
        n_letters = len(self.symbols)
        if X.shape[1:] not in ((self.length, n_letters), (self.length * n_letters,)):
            if kind == "one_hot" and X.shape[1:] == (n_letters, self.length):
                raise InvalidDesignError(
                    f"one-hot designs have shape (n, {n_letters}, {self.length}), letters first; pass them as "
                    f"(n, {self.length}, {n_letters}): X.transpose(0, 2, 1)."
                )
            raise InvalidDesignError(
                f"X has rows of shape {X.shape[1:]}, but the space has {self.length} positions of "
                f"{n_letters} letters: pass strings, tokens (n, {self.length}) or flat one-hot "
                f"(n, {self.length * n_letters})."
            )
        one_hot = X.reshape(-1, self.length, n_letters)
        wrong = (np.count_nonzero(one_hot, axis=2) != 1) | (one_hot.max(axis=2, initial=0) != 1)
        if wrong.any():
            row, position = np.argwhere(wrong)[0]
            raise InvalidDesignError(
                f"row {row:,}: position {position + 1} is not one-hot ({one_hot[row, position].tolist()}); exactly "
                "one letter must be 1 and the others 0."
            )
        return self._check_padding(one_hot.argmax(axis=2).astype(np.uint8))

    def _check_padding(self, tokens: np.ndarray) -> np.ndarray:
        """The tokens, if padding is at its side only and no sequence too short."""
        if self.padding is None:
            return tokens
        real = tokens < len(self.alphabet)
        lengths = real.sum(axis=1)
        wrong = (real != self.spans(lengths)).any(axis=1) | (lengths < self.shortest)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InvalidDesignError(
                f"row {row:,} has {lengths[row]} letters, or padding (token {len(self.alphabet)}) between them: pad on "
                f"the {self.padding}, to {self.in_words()} letters."
            )
        return tokens


def likely_alphabet(rows: np.ndarray) -> str:
    """The letters of the named alphabet that most rows are written in; nucleotides where half of the rows are.

    Rows, not letters: N is an amino acid, but one of it does not make DNA a protein.
    """
    share = {
        letters: sum(set(row.upper()) <= set(letters) for row in rows) / len(rows) for letters in ALPHABETS.values()
    }
    nucleotides = max("ACGT", "ACGU", key=lambda letters: share[letters])
    return nucleotides if share[nucleotides] >= 0.5 else max(share, key=lambda letters: share[letters])
