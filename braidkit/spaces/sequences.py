"""SequenceSpace: DNA, RNA, proteins, or sequences over any alphabet."""

from __future__ import annotations

import functools
import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from braidkit.exceptions import IncompatibleModelError, InvalidDesignError, InvalidParameterError
from braidkit.spaces._base import Space, ranges
from braidkit.spaces.automaton import Automaton
from braidkit.spaces.letters import ALPHABETS, Letters, likely_alphabet
from braidkit.spaces.limits import Limits
from braidkit.spaces.points import Points
from braidkit.spaces.reading import is_strings, read_designs
from braidkit.spaces.restrictions import FREE, automata_by_limit, automaton_of, check_restrictions


class SequenceSpace(Space):
    """Sequences over one alphabet, of one length or of several.

    Points have shape (n, length, n_letters): each position is a point of the simplex over the letters, a one-hot row
    where it is a design. With several lengths there is one more letter, the last: padding. It fills up shorter
    sequences at one side. Strings do not show it, and rewards do not see it.

    Parameters
    ----------
    alphabet : str, default="DNA"
        "DNA", "RNA", "protein", or the letters themselves, such as "ACGT". Letters are upper-cased on reading unless
        the alphabet has lower-case letters of its own.
    length : int or (int, int)
        Number of letters, or the least and the greatest.
    template : str, optional
        A letter for each position, the same in all designs, or "_" where it is free, such as "AC__GT". Without a
        template, estimators hold the positions that are the same in all rows of their data; a template of "_" alone
        holds none. Not for alphabets that have "_" as a letter.
    limits : Limits, optional
        What designs must be besides: mutants of a parent, without forbidden words. Where a point is not, `decode` and
        `discretise` give the likeliest sequence that is.

    padding : {"right", "left"}, default="right"
        Where shorter sequences are padded: on the left, letters at the end are aligned.

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
    >>> space = SequenceSpace("RNA", length=(2, 3))
    >>> space.shape, space.decode(space.encode(["ACU", "GG"]))
    ((3, 5), ['ACU', 'GG'])
    """

    alphabet: str
    designs = "sequences"
    default_features = "sequence"

    def __init__(
        self,
        alphabet: str = "DNA",
        length: int | tuple[int, int] | None = None,
        template: str | None = None,
        limits: Limits | None = None,
        padding: str = "right",
    ) -> None:
        if length is None and isinstance(template, str):
            length = len(template)
        self.letters = Letters(alphabet, length, padding)
        self.alphabet = self.letters.alphabet
        self.length = self.letters.length
        self.shape = (self.length, len(self.letters.symbols))
        self.nucleotides = self.name in ("DNA", "RNA")
        self.template = None if template is None else self._check_template(template)
        self.limits = None if limits is None else self._check_limits(limits)

    @property
    def n_letters(self) -> int:
        return len(self.letters.symbols)

    @property
    def visible_shape(self) -> tuple[int, ...]:
        return (self.length, len(self.alphabet))

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
    def n_designs(self) -> float:
        if not self.limited:
            return self.n_letters**self.n_free_positions
        n = self.automaton.n_designs
        return int(n) if n < math.inf else n

    @property
    def default_chain(self) -> str:
        """The chain to train by default; with limits, one that makes only designs that meet them."""
        return "masked" if self.limited else "simplex"

    @property
    def can_change_a_letter(self) -> bool:
        """Whether one design may become another by one letter: not where the number of mutations is fixed."""
        mutations = None if self.limits is None else self.limits.range_of_mutations
        return mutations is None or mutations[0] < mutations[1]

    @functools.cached_property
    def limited(self) -> bool:
        """Whether there are limits, or padding, that a sequence with the held letters could break."""
        if self.letters.padding is not None:
            return True
        if self.limits is None:
            return False
        least, most = self.limits.range_of_mutations or (0, self.length)
        return bool(self.limits.words(self.letters)) or least > 0 or most < self.n_free_positions

    @functools.cached_property
    def automaton(self) -> Automaton:
        """The designs, letter by letter."""
        return automaton_of(self.letters, self.template, self.limits)

    @functools.cached_property
    def paddings(self) -> Automaton:
        """The designs without limits: padding and held letters only."""
        return automaton_of(self.letters, self.template, None)

    @property
    def n_varying(self) -> int:
        """In how many positions two designs can differ at most."""
        mutations = None if self.limits is None else self.limits.range_of_mutations
        return self.n_free_positions if mutations is None else min(self.n_free_positions, 2 * mutations[1])

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
            tokens = self.letters.tokens_of_strings(X) if kind == "strings" else self.letters.check_tokens(X)
        else:
            tokens = self.letters.tokens_of_one_hot(X, kind)
        return Points(tokens, self._one_hot, self.shape)

    def _one_hot(self, tokens: Tensor) -> Tensor:
        """Points (n, length, n_letters) of tokens (n, length)."""
        return torch.nn.functional.one_hot(tokens.long(), self.n_letters).float()

    def strings(self, X: Any) -> list[str]:
        """Designs of any kind as strings, as they are: what the template holds is not written."""
        return self.letters.write(self.points(X).rows)

    def decode(self, x: Tensor, kind: str | None = "strings") -> Any:
        """Turn points into sequences by the likeliest letter of each position."""
        self._check_decoding(x, kind, ("strings", "tokens", "one_hot", "flat"))
        tokens = self._likeliest(x.detach())
        if kind in (None, "strings"):
            return self.letters.write(tokens.cpu().numpy())
        if kind == "tokens":
            return tokens.cpu().numpy()
        one_hot = self._one_hot(tokens).cpu().numpy()
        return one_hot if kind == "one_hot" else one_hot.reshape(len(one_hot), -1)

    def discretise(self, x: Tensor) -> Tensor:
        """One-hot of the likeliest design; the gradient passes straight through where no letter is held."""
        hard = torch.nn.functional.one_hot(self._likeliest(x.detach()), self.n_letters).to(x.dtype)
        return self.hold(hard + x - x.detach() if x.requires_grad else hard)

    def _likeliest(self, x: Tensor) -> Tensor:
        """Letters (n, length) of the likeliest design of each point."""
        # Without limits the likeliest design has the likeliest letter at each position. Where that breaks a limit, the
        # automaton finds the likeliest design that meets all of them.
        tokens = self.hold(x).argmax(dim=-1)
        if self.limited:
            broken = ~self.automaton.meets(tokens)
            if broken.any():
                tokens[broken] = self.automaton.likeliest(x[broken].clamp(min=1e-30).log())
        return tokens

    def n_moved(self, x: Tensor) -> dict[str, int]:
        """Number of points whose likeliest letters break each limit, by its name; "any" counts those that break one."""
        if not self.limited:
            return {}
        tokens = self.hold(x.detach()).argmax(dim=-1)
        by_limit = automata_by_limit(self.letters, self.limits)
        broken = {name: ~part.meets(tokens) for name, part in by_limit.items()}
        some = torch.stack([*broken.values()]).any(dim=0)
        return {name: int(which.sum()) for name, which in broken.items()} | {"any": int(some.sum())}

    def check_same_designs(self, X: np.ndarray) -> None:
        """Raise IncompatibleModelError if strings plainly have another length or alphabet."""
        if X.ndim != 1 or len(X) == 0 or not isinstance(X[0], str):
            return
        own, seen = self.letters, likely_alphabet(X)
        lengths = [len(row) for row in X]
        shortest, longest = min(lengths), max(lengths)
        fits = own.shortest <= shortest and longest <= own.length
        if fits and seen == self.alphabet:
            return
        other = SequenceSpace(seen, (max(1, shortest), max(1, longest)))
        other_letters = not set().union(*X) <= set(self.alphabet + self.alphabet.lower())
        # A few rows of other lengths are named by row.
        if not own.shortest <= len(X[0]) <= own.length or (
            other_letters and other.nucleotides and seen != self.alphabet
        ):
            raise IncompatibleModelError(
                f"pretrained makes {own.in_words()}-letter {self.name}, but X is {other.letters.in_words()}-letter "
                f"{other.name}; pass a model trained on such sequences, or pretrained=None."
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
        constant = (tokens == tokens[0]).all(axis=0) & (tokens[0] < len(self.alphabet))
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

    def _check_limits(self, limits: Any) -> Limits:
        """Limits in the alphabet's own letters, which some design meets."""
        if isinstance(limits, dict) and limits.keys() <= vars(Limits()).keys():  # as a config holds them
            limits = Limits(**limits)
        if not isinstance(limits, Limits):
            raise InvalidParameterError(f'limits must be Limits, such as Limits(forbidden=["ATG"]); got {limits!r}.')
        limits = limits.checked(self.letters)
        check_restrictions(self.letters, self.template, limits)
        return limits

    def with_template(self, template: str | None) -> SequenceSpace:
        """The same space with another template, which the limits must not contradict."""
        if self.limits is not None:
            check_restrictions(self.letters, template, self.limits)
        return cast(SequenceSpace, super().with_template(template))

    def unrestricted(self) -> SequenceSpace:
        return SequenceSpace(self.alphabet, self.lengths, padding=self.letters.padding or "right")

    @property
    def lengths(self) -> int | tuple[int, int]:
        """The argument `length`."""
        return self.length if self.letters.padding is None else (self.letters.shortest, self.length)

    def restricted_as(self, other: Space) -> SequenceSpace:
        assert isinstance(other, SequenceSpace)
        template = self.template if other.template is None else other.template
        limits = self.limits if other.limits is None else other.limits
        return SequenceSpace(self.alphabet, self.lengths, template, limits, self.letters.padding or "right")

    def to_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"space": "SequenceSpace", "alphabet": self.alphabet, "length": self.lengths}
        if self.letters.padding is not None:
            config |= {"length": list(config["length"]), "padding": self.letters.padding}
        if self.template is not None:
            config["template"] = self.template
        if self.limits is not None:
            config["limits"] = self.limits.to_config()
        return config
