"""The sequences that a template and limits leave, and contradictions between limits."""

from __future__ import annotations

import itertools

import numpy as np

from braidkit.exceptions import InvalidParameterError
from braidkit.spaces.automaton import Automaton
from braidkit.spaces.letters import Letters
from braidkit.spaces.limits import Limits, Word

FREE = "_"  # marks the free positions of a template


def allowed_letters(letters: Letters, template: str | None) -> np.ndarray:
    """Symbols (length, n_symbols) that may stand at each position, bool; padding, where no sequence is too short."""
    held = np.array(list(template or FREE * letters.length))[:, None]
    allowed = (held == FREE) | (held == np.array(list(letters.symbols)))
    if letters.padding is not None:
        must = letters.spans(np.array([letters.shortest]))[0]
        allowed[must, -1] = False
    return allowed


def automaton_of(letters: Letters, template: str | None, limits: Limits | None) -> Automaton:
    """The sequences that have the template's letters and meet checked limits."""
    allowed = allowed_letters(letters, template)
    if limits is None:
        return Automaton(allowed, letters)
    return Automaton(allowed, letters, limits.words(letters), limits.parent, limits.range_of_mutations)


def automata_by_limit(letters: Letters, limits: Limits | None) -> dict[str, Automaton]:
    """The sequences that meet each of checked limits alone, by its name; "padding" is one of them."""
    allowed = allowed_letters(letters, None)
    parts = {} if letters.padding is None else {"padding": Automaton(allowed, letters)}
    if limits is None:
        return parts
    words = limits.words(letters)
    if limits.parent is not None:
        parts["mutations"] = Automaton(allowed, letters, (), limits.parent, limits.range_of_mutations)
    for name in dict.fromkeys(word.limit for word in words):
        parts[name] = Automaton(allowed, letters, [word for word in words if word.limit == name])
    return parts


def check_restrictions(letters: Letters, template: str | None, limits: Limits) -> None:
    """Raise InvalidParameterError if no sequence meets a template and checked limits, naming what contradicts what."""
    held = template or FREE * letters.length
    differs = [i for i in range(letters.length) if limits.parent and held[i] not in (FREE, limits.parent[i])]
    if limits.parent and differs:
        i = differs[0]
        raise InvalidParameterError(
            f"parent has {limits.parent[i]!r} at position {i + 1}, where the template, or every row, has {held[i]!r}: "
            "change one of them, or leave the position free by a template."
        )
    if automaton_of(letters, template, limits).n_designs:
        return
    free, with_held = (allowed_letters(letters, some) for some in (None, template))
    words = limits.words(letters)
    parts = [("the held letters", template)] if template else []
    parts += [("mutations", "")] if limits.parent else []
    parts += [*dict.fromkeys(map(_part, words))]
    for some in itertools.chain(itertools.combinations(parts, 1), itertools.combinations(parts, 2)):
        mutants = any(name == "mutations" for name, _ in some)
        left = Automaton(
            with_held if any(name == "the held letters" for name, _ in some) else free,
            letters,
            [word for word in words if _part(word) in some],
            limits.parent if mutants else None,
            limits.range_of_mutations if mutants else None,
        )
        if not left.n_designs:
            named = " and ".join(_named(name, text, limits) for name, text in some)
            one = "cannot be met by any sequence" if len(some) == 1 else "contradict each other: no sequence meets both"
            raise InvalidParameterError(f"{named} {one}; loosen one of the limits, or hold fewer letters.")
    named = ", ".join(dict.fromkeys(_named(name, text, limits) for name, text in parts))
    raise InvalidParameterError(
        f"no sequence of {letters.in_words()} letters meets all of {named}: loosen one of them."
    )


def _part(word: Word) -> tuple[str, str]:
    """The limit that a word belongs to, and the word itself where each is given by itself."""
    return word.limit, word.text if word.limit == "forbidden" else ""


def _named(name: str, text: str, limits: Limits) -> str:
    """A part in words, with its value."""
    if name == "the held letters":
        return f"{name} of the template ({text})"
    if name == "mutations":
        least, most = limits.range_of_mutations or (0, 0)
        return f"mutations={least}-{most} of the parent"
    value = repr(text) if text else getattr(limits, name)
    return f"{name}={value}"
