"""Limits on sequences: mutants of a parent, and words that no design may hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_number
from braidkit.spaces.letters import Letters

STOP_CODONS = ("TAA", "TAG", "TGA")
_COMPLEMENT = str.maketrans("ACGTU", "TGCAA")


class Word(NamedTuple):
    """A word that may not end at some positions, (length,) booleans, and the limit that it belongs to."""

    text: str
    ends: np.ndarray
    limit: str


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits that designs of a `SequenceSpace` must meet.

    Every design of such a space meets its limits. A `MaskedDiffusion` and an `EnumeratedDiffusion` make no others; the
    designs of other chains are moved to the likeliest sequence that meets them.

    Parameters
    ----------
    parent : str, optional
        A sequence of the designs' length, which `mutations` are counted from.
    mutations : int or (int, int), optional
        Most positions that differ from the parent's, or the least and the most, both allowed.
    forbidden : sequence of str
        Words that no design may hold, as written, such as the start codon "ATG".
    sites : sequence of str
        Words that no design of DNA or RNA may hold on either strand, such as sites of restriction enzymes.
    max_homopolymer : int, optional
        Longest run of one letter.
    frame : int or (int, int), optional
        The position, from 1, where a reading frame begins, or its first and last position: no stop codon there. By
        default the frame goes on to the end.

    Examples
    --------
    >>> from braidkit import SequenceSpace
    >>> from braidkit.spaces import Limits
    >>> space = SequenceSpace("DNA", 6, limits=Limits(parent="ACGTAC", mutations=1, forbidden=["GT"]))
    >>> space.n_designs
    6
    >>> space.decode(space.encode(["ACGTAC", "ACGAAA", "ACTTAC"]))
    ['ACATAC', 'ACGAAC', 'ACTTAC']
    """

    parent: str | None = None
    mutations: int | tuple[int, int] | None = None
    forbidden: Sequence[str] = ()
    sites: Sequence[str] = ()
    max_homopolymer: int | None = None
    frame: int | tuple[int, int] | None = None

    def to_config(self) -> dict[str, Any]:
        """The arguments that are not as by default, as JSON holds them."""
        given = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {name: value for name, value in given.items() if value is not None and value != []}

    @property
    def range_of_mutations(self) -> tuple[int, int] | None:
        """Least and most, of checked limits."""
        return self.mutations if isinstance(self.mutations, tuple) else None

    def checked(self, letters: Letters) -> Limits:
        """The same limits in the alphabet's own letters, with pairs for single numbers.

        Raises
        ------
        InvalidParameterError
            Naming the argument and the value that does not suit sequences of these letters and this length.
        """
        alphabet, length = letters.alphabet, letters.length
        nucleotides = alphabet in ("ACGT", "ACGU")
        upper = alphabet.upper() == alphabet
        parent = self.parent
        if parent is not None and letters.padding is not None:
            raise InvalidParameterError(
                f"parent is for designs of one length, and these have {letters.in_words()} letters: keep sequences of "
                "the parent's length only."
            )
        if parent is not None:
            parent = parent.upper() if isinstance(parent, str) and upper else parent
            if not isinstance(parent, str) or len(parent) != length:
                n = f"has {len(parent)} letters" if isinstance(parent, str) else f"is {parent!r}"
                raise InvalidParameterError(f"parent {n}, but designs are sequences of {length} letters.")
            wrong = next((i for i, letter in enumerate(parent) if letter not in alphabet), None)
            if wrong is not None:
                raise InvalidParameterError(
                    f"parent has {parent[wrong]!r} at position {wrong + 1}, which is not in the alphabet {alphabet}."
                )
        if (parent is None) != (self.mutations is None):
            lacks, has = ("mutations", "parent") if parent is not None else ("parent", "mutations")
            raise InvalidParameterError(f"{has} needs {lacks} beside it: give both, or neither.")
        mutations = self._range("mutations", self.mutations, 0, length, 0)
        frame = self._range("frame", self.frame, 1, length, length, first=True)
        if frame is not None and letters.padding == "left":
            raise InvalidParameterError('frame counts from the first letter: pass padding="right".')
        if frame is not None and (not nucleotides or frame[1] - frame[0] < 2):
            why = f"the designs are written in {alphabet}" if not nucleotides else f"{self.frame!r} has no codon"
            raise InvalidParameterError(f"frame is for at least three positions of DNA or RNA; {why}.")
        words = {name: self._words(name, alphabet, upper) for name in ("forbidden", "sites")}
        if words["sites"] and not nucleotides:
            raise InvalidParameterError(f"sites is for DNA and RNA, but the designs are written in {alphabet}.")
        run = self.max_homopolymer
        if run is not None:
            check_number("max_homopolymer", run, low=1, whole=True)
            run = min(int(run), length)
        return Limits(parent, mutations, words["forbidden"], words["sites"], run, frame)

    def words(self, letters: Letters) -> list[Word]:
        """All words of checked limits, with the positions where they may not end."""
        alphabet, length = letters.alphabet, letters.length
        always = np.ones(length, dtype=bool)
        found = [Word(text, always, "forbidden") for text in self.forbidden]
        for text in self.sites:
            found += [Word(strand, always, "sites") for strand in dict.fromkeys([text, _other_strand(text, alphabet)])]
        if self.max_homopolymer is not None:
            found += [Word(letter * (self.max_homopolymer + 1), always, "max_homopolymer") for letter in alphabet]
        if isinstance(self.frame, tuple):
            first, last = self.frame
            in_frame = np.zeros(length, dtype=bool)
            in_frame[first + 1 : last : 3] = True
            codons = [codon.replace("T", alphabet[-1]) for codon in STOP_CODONS]
            found += [Word(codon, in_frame, "frame") for codon in codons]
        return [word for word in found if len(word.text) <= length]

    def _range(
        self, name: str, value: Any, low: int, high: int, other: int, first: bool = False
    ) -> tuple[int, int] | None:
        """A pair of whole numbers; a single one is the last of them, or the first, beside another."""
        if value is None:
            return None
        pair = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        whole = all(isinstance(part, (int, np.integer)) and not isinstance(part, bool) for part in pair)
        if whole and len(pair) == 1:
            pair = [pair[0], other] if first else [other, pair[0]]
        if not whole or len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
            raise InvalidParameterError(
                f"{name} must be a whole number, or two, the smaller one first, from {low} to {high}; got {value!r}."
            )
        return int(pair[0]), int(pair[1])

    def _words(self, name: str, alphabet: str, upper: bool) -> tuple[str, ...]:
        """The words of an argument in the alphabet's letters."""
        words = getattr(self, name)
        if isinstance(words, str) or not isinstance(words, Iterable):
            raise InvalidParameterError(f'{name} must be a list of words, such as ["GAATTC"]; got {words!r}.')
        words = tuple(word.upper() if upper and isinstance(word, str) else word for word in words)
        for word in words:
            if not isinstance(word, str) or not word or set(word) - set(alphabet):
                raise InvalidParameterError(f"{name} has {word!r}, which is not written in {alphabet}.")
        return words


def _other_strand(word: str, alphabet: str) -> str:
    """The reverse complement."""
    other = word.translate(_COMPLEMENT)[::-1]
    return other.replace("T", "U") if alphabet[-1] == "U" else other


def changes(sequence: str, parent: str) -> Iterator[str]:
    """Mutations of a sequence of its parent's length, such as "A23G", by position from 1."""
    return (f"{old}{i + 1}{new}" for i, (old, new) in enumerate(zip(parent, sequence, strict=True)) if old != new)
