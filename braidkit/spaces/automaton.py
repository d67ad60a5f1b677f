"""Automaton: the sequences of one length that meet limits, read letter by letter.

A state holds two things of the letters read so far: their longest end that begins a forbidden word (the automaton of
Aho and Corasick), and the number of mutations. One pass backwards over the positions gives, for every state, the number
of ways to a sequence that meets the limits, their probability, or the likeliest of them.

References
----------
Aho and Corasick (1975), "Efficient string matching: an aid to bibliographic search".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from braidkit.spaces.letters import Letters
from braidkit.spaces.limits import Word

# Entries of one table of rows, states and letters.
_ENTRIES = 2**22
# Replaces zero in divisions.
_TINY = 1e-300


class Tables(NamedTuple):
    """The automaton on a device; W states of words, C counts of mutations, K letters, F free positions.

    Attributes
    ----------
    after : LongTensor of shape (F, W + 1, K)
        The state after a letter, and after the held ones that follow it; W where a limit is broken, for good.
    step : Tensor of shape (U, W, K * W), float64
        The same as ones in matrices, of which there are U different ones.
    which : LongTensor of shape (F,)
        The matrix of each free position.
    source : LongTensor of shape (F, W * K)
        Where the value of a letter is found beside the state before it: among W states after it, or W more that are
        those with one more mutation, or in the last place, which is that of no value.
    mutated : Tensor of shape (F, K), bool
        Letters that differ from the parent's.
    accepted : Tensor of shape (C, 1), bool
        Numbers of mutations that a whole sequence may have.
    free, held : LongTensor
        Positions where letters may vary, and others.
    letters : LongTensor
        Letters at the held positions.
    """

    after: Tensor
    step: Tensor
    which: Tensor
    source: Tensor
    mutated: Tensor
    accepted: Tensor
    free: Tensor
    held: Tensor
    letters: Tensor


class Automaton:
    """The set of sequences without forbidden words and with an allowed number of mutations, as an automaton.

    Parameters
    ----------
    allowed : ndarray of shape (L, K), bool
        Letters that may stand at each position: all, or one that is held, which is the parent's where there is one.
    letters : Letters
        Whose symbols are K; padding is at its side only.
    words : sequence of Word
    parent : str, optional
        Of L letters.
    mutations : (int, int), optional
        Least and greatest number of letters that differ from the parent's.
    """

    def __init__(
        self,
        allowed: np.ndarray,
        letters: Letters,
        words: Sequence[Word] = (),
        parent: str | None = None,
        mutations: tuple[int, int] | None = None,
    ) -> None:
        self.length, n_letters = allowed.shape
        mutated, least, most = np.zeros_like(allowed), 0, 0
        if parent is not None and mutations is not None:
            mutated = np.array([[letter != own for letter in letters.symbols] for own in parent])
            least, most = mutations
        self._counts_mutations = mutations is not None
        each, self._start = _transitions(allowed, letters, words)
        n_states = each.shape[1] - 1
        is_free = allowed.sum(axis=1) > 1
        held = allowed.argmax(axis=1)
        # Merge the transitions of held letters into that of the free letter before them: only free letters take a step.
        merged: list[np.ndarray] = []
        for i, table in enumerate(each):
            if is_free[i]:
                merged.append(table)
            elif merged:
                merged[-1] = table[merged[-1], held[i]]
            else:
                self._start = int(table[self._start, held[i]])
        after = np.array(merged, dtype=each.dtype).reshape(-1, n_states + 1, n_letters)
        inner, mutated = after[:, :n_states], mutated[is_free]
        kinds, which = np.unique(inner.reshape(-1, n_states * n_letters), axis=0, return_inverse=True)
        step = np.zeros((len(kinds), n_states, n_letters, n_states + 1))
        np.put_along_axis(step, kinds.reshape(-1, n_states, n_letters)[..., None], 1, axis=3)
        source = np.where(mutated[:, None], inner + n_states, inner)
        last = (1 + self._counts_mutations) * n_states
        parts = (
            after,
            step[..., :n_states].reshape(len(kinds), n_states, n_letters * n_states),
            which.reshape(-1),
            np.where(inner == n_states, last, source).reshape(len(after), n_states * n_letters),
            mutated,
            np.arange(most + 1)[:, None] >= least,
            np.flatnonzero(is_free),
            np.flatnonzero(~is_free),
            held[~is_free],
        )
        self._tables = {torch.device("cpu"): Tables(*(torch.from_numpy(part) for part in parts))}
        # Smaller expected shares are raised to this, so that a product over a word and all mutations does not
        # underflow.
        self.smallest_share = min(1e-4, 10 ** (-125 / (most + max((len(word.text) for word in words), default=0) + 1)))

    def on(self, device: torch.device) -> Tables:
        """The tables on a device."""
        if device not in self._tables:
            self._tables[device] = Tables(*(part.to(device) for part in self._tables[torch.device("cpu")]))
        return self._tables[device]

    @property
    def n_designs(self) -> float:
        """Number of sequences."""
        tables = self.on(torch.device("cpu"))
        if self._start == tables.after.shape[1] - 1:
            return 0.0
        return float(self._counts(tables)[0][0, 0, self._start])

    def meets(self, tokens: Tensor) -> Tensor:
        """Booleans (n,): the sequences (n, L) that meet the limits."""
        tables = self.on(tokens.device)
        walk = _Walk(len(tokens), self._start, tables)
        for i, letter in enumerate(tokens[:, tables.free].long().unbind(dim=1)):
            walk.step(i, letter)
        held = (tokens[:, tables.held] == tables.letters).all(dim=1)
        last = len(tables.accepted) - 1
        within = (walk.count <= last) & tables.accepted[walk.count.clamp(max=last), 0]
        return held & within & (walk.state < tables.after.shape[1] - 1)

    def log_chances(self, x: Tensor, expected: Tensor) -> Tensor:
        """Log-probabilities that limits are met, by the letter at each masked position, all others as expected.

        Letters at other masked positions are independent here. With this added to their logarithms, the letters of a
        law under which they are independent are those of its conditional law.

        Parameters
        ----------
        x : Tensor of shape (n, L, K)
            Letters that are known as one-hot rows, of zeros elsewhere.
        expected : Tensor of shape (L, K)
            Probabilities of the letters at masked positions; none counts for less than `smallest_share`.

        Returns
        -------
        log_chances : Tensor of shape (n, L, K), float64
            The largest of each position is 0, and -inf stands at letters after which the limits cannot be met. Without
            meaning where the letter is known.
        """
        tables = self.on(x.device)
        free = x[:, tables.free].double()
        shares = expected.to(x.device)[tables.free].double().clamp(min=self.smallest_share)
        letters = torch.where(free.sum(dim=2, keepdim=True) < 0.5, shares, free)
        at_once = max(1, _ENTRIES // (tables.source.numel() * len(tables.accepted)))
        chances = torch.cat([self._chances(part, tables) for part in letters.split(at_once)])
        logs = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
        logs[:, tables.free] = (chances / chances.amax(dim=2, keepdim=True).clamp(min=_TINY)).log()
        return logs

    def _chances(self, letters: Tensor, tables: Tables) -> Tensor:
        """Weights (n, F, K) of each letter by all other positions, whose letters have given weights."""
        n, n_free, n_letters = letters.shape
        later = self._accepting(n, 0.0, tables)
        values, alive = [], []  # of each position's letters (n, C * W, K), and which states after them lead on
        for i in range(n_free - 1, -1, -1):
            alive.append(later > 0)
            values.append(self._ahead(later, i, 0.0, tables).reshape(n, -1, n_letters))
            later = torch.bmm(values[-1], letters[:, i, :, None]).reshape(later.shape)
            later = later / later.amax(dim=(1, 2), keepdim=True).clamp(min=_TINY)
        now = torch.zeros_like(later)
        now[:, 0, self._start] = 1
        weights = []
        for i in range(n_free):
            weights.append(torch.bmm(now.reshape(n, 1, -1), values[-1 - i])[:, 0])
            moved = (now @ tables.step[tables.which[i]]).reshape(n, -1, n_letters, now.shape[2])
            same, more = (
                (moved * (letters[:, i] * kind)[:, None, :, None]).sum(dim=2)
                for kind in (~tables.mutated[i], tables.mutated[i])
            )
            now = (same + nn.functional.pad(more[:, :-1], (0, 0, 1, 0))) * alive[-1 - i]
            now = now / now.sum(dim=(1, 2), keepdim=True).clamp(min=_TINY)
        return torch.stack(weights, dim=1)

    def likeliest(self, log_probs: Tensor) -> Tensor:
        """The sequences (n, L) that meet the limits and have the largest sums of log-probabilities (n, L, K)."""
        tables = self.on(log_probs.device)
        scores = log_probs[:, tables.free].double()
        values = [self._accepting(len(scores), -torch.inf, tables)]
        for i in range(scores.shape[1] - 1, -1, -1):
            ahead = self._ahead(values[-1], i, -torch.inf, tables)
            values.append((ahead + scores[:, i, None, None]).amax(dim=3))
        values.reverse()
        walk, letters = _Walk(len(scores), self._start, tables), []
        for i in range(scores.shape[1]):
            letters.append((walk.branches(values[i + 1], i, -torch.inf) + scores[:, i]).argmax(dim=1))
            walk.step(i, letters[-1])
        return self._with_held(letters, tables)

    def design(self, numbers: Tensor) -> Tensor:
        """Sequences (n, L) by number (n,), the last position fastest."""
        tables = self.on(numbers.device)
        counts, walk = self._counts(tables), _Walk(len(numbers), self._start, tables)
        letters, rest = [], numbers.double()
        for i in range(len(tables.free)):
            ways = walk.branches(counts[i + 1], i, 0.0)
            below = ways.cumsum(dim=1)
            letters.append((rest[:, None] >= below).sum(dim=1))
            rest = rest - (below - ways).gather(1, letters[-1][:, None])[:, 0]
            walk.step(i, letters[-1])
        return self._with_held(letters, tables)

    def number(self, tokens: Tensor) -> Tensor:
        """The numbers (n,) of sequences (n, L) that meet the limits."""
        tables = self.on(tokens.device)
        counts, walk = self._counts(tables), _Walk(len(tokens), self._start, tables)
        numbers = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
        for i, letter in enumerate(tokens[:, tables.free].long().unbind(dim=1)):
            ways = walk.branches(counts[i + 1], i, 0.0)
            numbers = numbers + (ways.cumsum(dim=1) - ways).gather(1, letter[:, None])[:, 0]
            walk.step(i, letter)
        return numbers.long()

    def _with_held(self, letters: list[Tensor], tables: Tables) -> Tensor:
        """Sequences (n, L) of the letters at free positions."""
        free = torch.stack(letters, dim=1)
        tokens = free.new_empty(len(free), self.length)
        tokens[:, tables.free], tokens[:, tables.held] = free, tables.letters
        return tokens

    def _counts(self, tables: Tables) -> list[Tensor]:
        """Numbers of ways (1, C, W) from each state on, before each free position and after the last."""
        counts = [self._accepting(1, 0.0, tables)]
        for i in range(len(tables.free) - 1, -1, -1):
            counts.append(self._ahead(counts[-1], i, 0.0, tables).sum(dim=3))
        return counts[::-1]

    def _accepting(self, n: int, nothing: float, tables: Tables) -> Tensor:
        """What whole sequences are worth (n, C, W): one way, probability or sum of logarithms, or none."""
        one = 1.0 if nothing == 0 else 0.0
        value = torch.full(tables.accepted.shape, one, dtype=torch.float64, device=tables.after.device)
        return value.masked_fill(~tables.accepted, nothing).expand(n, -1, tables.after.shape[1] - 1)

    def _ahead(self, later: Tensor, i: int, nothing: float, tables: Tables) -> Tensor:
        """Values (n, C, W, K) of the states before a free position, by its letter, from those (n, C, W) after it."""
        n, n_counts, n_states = later.shape
        parts = [later, later.new_full((n, n_counts, 1), nothing)]
        if self._counts_mutations:
            parts.insert(1, nn.functional.pad(later[:, 1:], (0, 0, 0, 1), value=nothing))
        return torch.cat(parts, dim=2).index_select(2, tables.source[i]).reshape(n, n_counts, n_states, -1)


class _Walk:
    """n sequences that are read from the first position on: the state that each is in, and its mutations."""

    def __init__(self, n: int, start: int, tables: Tables) -> None:
        self.tables = tables
        self.state = torch.full((n,), start, dtype=torch.long, device=tables.after.device)
        self.count = torch.zeros_like(self.state)

    def branches(self, later: Tensor, i: int, nothing: float) -> Tensor:
        """Values (n, K) of each letter at a free position, from those (n or 1, C, W) of the states after it."""
        tables = self.tables
        states = tables.after[i, self.state]
        counts = self.count[:, None] + tables.mutated[i]
        last, dead = len(tables.accepted) - 1, tables.after.shape[1] - 1
        rows = torch.arange(len(self.state), device=states.device)[:, None] if len(later) > 1 else 0
        values = later[rows, counts.clamp(max=last), states.clamp(max=dead - 1)]
        return values.masked_fill((states == dead) | (counts > last), nothing)

    def step(self, i: int, letter: Tensor) -> None:
        """Read the letters (n,) at a free position."""
        self.state = self.tables.after[i, self.state, letter]
        self.count = self.count + self.tables.mutated[i, letter]


def _transitions(allowed: np.ndarray, letters: Letters, words: Sequence[Word]) -> tuple[np.ndarray, int]:
    """States (L, W + 1, K) after each letter at each position, W where a limit is broken, for good; and the first."""
    after, outputs = _word_states([word.text for word in words], letters.symbols)
    start = 0
    if letters.padding is not None:
        # One state more: padding before the first letter, or after the last.
        padding, broken = len(after), -1
        outputs.append(set())
        own = np.full(after.shape[1], broken) if letters.padding == "right" else after[0].copy()
        own[-1] = padding
        after[:, -1] = padding if letters.padding == "right" else broken
        after = np.vstack([after, own])
        start = 0 if letters.padding == "right" else padding
    ends_badly = np.zeros((len(allowed), len(after)), dtype=bool)
    for state, ended in enumerate(outputs):
        for number in ended:
            ends_badly[:, state] |= words[number].ends
    is_broken = ends_badly[:, after] | ~allowed[:, None] | (after < 0)
    each = np.where(is_broken, len(after), after)
    return np.pad(each, ((0, 0), (0, 1), (0, 0)), constant_values=len(after)), start


def _word_states(words: Sequence[str], alphabet: str) -> tuple[np.ndarray, list[set[int]]]:
    """The automaton of Aho and Corasick: states after each letter (W, K), and the words that end in each state."""
    children: list[dict[int, int]] = [{}]
    outputs: list[set[int]] = [set()]
    for number, word in enumerate(words):
        state = 0
        for letter in map(alphabet.index, word):
            if letter not in children[state]:
                children[state][letter] = len(children)
                children.append({})
                outputs.append(set())
            state = children[state][letter]
        outputs[state].add(number)
    after = np.zeros((len(children), len(alphabet)), dtype=np.int64)
    shorter = [0] * len(children)  # the state of the longest proper end that is one
    queue = [0]
    for state in queue:
        outputs[state] |= outputs[shorter[state]]
        for letter in range(len(alphabet)):
            fallback = int(after[shorter[state], letter]) if state else 0
            child = children[state].get(letter)
            after[state, letter] = fallback if child is None else child
            if child is not None:
                shorter[child] = fallback
                queue.append(child)
    return after, outputs
