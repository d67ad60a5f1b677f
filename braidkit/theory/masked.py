"""Exact dynamic programming for any-order masked chains on short sequences.

The chain starts from L masked positions. Each step draws one of the j masked positions, uniformly, and a letter for it
from a table. A state with j masked positions is visited at time j only. So one array over the (K + 1)^L partly masked
sequences holds all laws or values of a chain. The start is a single state, so there is no initial draw to tilt.

States are numbered in base K + 1, the first position most significant; digit K is a mask, so the last number is the
start. Complete sequences are numbered in base K, in the order of ``itertools.product(range(K), repeat=L)``.

References
----------
BRAID (Uehara, Zhao et al., NeurIPS 2024), equations (6) to (8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from braidkit.theory._checks import check_number, check_reward
from braidkit.theory.finite import expectation, kl_of_rows


def masked_states(length: int, n_letters: int, held: Sequence[int] | None = None) -> Tensor:
    """All partly masked sequences.

    A chain some of whose letters are held from the start is one over the L positions that are free, and all of this
    module holds for it: its table holds the letters at the free positions of these states.

    Parameters
    ----------
    length : int
        >= 1.
    n_letters : int
        K, >= 1.
    held : sequence of int, optional
        Of that length: the letter that is held at a position, or -1 where it is free; L of them are. All are free by
        default.

    Returns
    -------
    states : LongTensor of shape ((K + 1) ** L, length)
        Letters 0, ..., K - 1, and K for a mask. Feed them to a network, in this order, to make its table of letters.

    Examples
    --------
    >>> masked_states(2, 1).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> masked_states(2, 1, held=[-1, 0]).tolist()
    [[0, 0], [1, 0]]
    """
    check_number("length", length, whole=True)
    check_number("n_letters", n_letters, whole=True)
    letters = torch.full((length,), -1)
    if held is not None:
        if not isinstance(held, Sequence) or len(held) != length or not all(h in range(-1, n_letters) for h in held):
            raise ValueError(f"held must be {length} letters below {n_letters}, or -1 where free; got {held!r}.")
        letters = torch.tensor([int(h) for h in held])
    free = letters < 0
    n_free = int(free.sum())
    states = letters.repeat((n_letters + 1) ** n_free, 1)
    states[:, free] = torch.arange(len(states))[:, None] // _strides(n_free, n_letters + 1) % (n_letters + 1)
    return states


def sequence_law(letter_log_probs: Tensor) -> Tensor:
    """Law of the complete sequences that a chain makes.

    Parameters
    ----------
    letter_log_probs : Tensor of shape ((K + 1) ** L, L, K)
        Log-probabilities of the letters at every masked position of every state, in the order of `masked_states`.
        Entries of positions that are not masked are not used.

    Returns
    -------
    log_probs : Tensor of shape (K ** L,)
    """
    table = _checked(letter_log_probs)
    return _visits(table)[_complete(*_sizes(table))]


def masked_soft_values(letter_log_probs: Tensor, reward: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Soft values (8) of all states, and log C.

    Parameters
    ----------
    letter_log_probs : Tensor of shape ((K + 1) ** L, L, K)
        The pretrained chain; as in `sequence_law`.
    reward : Tensor of shape (K ** L,)
        r_hat - g_hat of the complete sequences; -inf forbids one.
    alpha : float
        In units of the reward, > 0.

    Returns
    -------
    values : Tensor of shape ((K + 1) ** L,)
        In units of the reward.
    log_c : Tensor of shape ()
        log E[exp(reward / alpha)] under the pretrained chain; alpha times it is the largest value of (6).

    References
    ----------
    BRAID, equation (8).
    """
    table = _checked(letter_log_probs)
    scaled = _scaled_reward(reward, alpha, *_sizes(table))
    for moves in _backwards(table):
        after = scaled[moves.children] + moves.log_letters
        after = after.masked_fill(~moves.masked[:, :, None], -torch.inf)
        scaled[moves.states] = after.flatten(1).logsumexp(dim=1) - moves.masked.sum(dim=1).double().log()
    if scaled[-1] == -torch.inf:
        raise ValueError("the reward is -inf on every sequence that the chain can make; allow at least one.")
    return alpha * scaled, scaled[-1]


def masked_objective(letter_log_probs: Tensor, pretrained_log_probs: Tensor, reward: Tensor, alpha: float) -> Tensor:
    """Objective (6) of a chain with uniform positions: mean reward less alpha times the path KL.

    Parameters
    ----------
    letter_log_probs, pretrained_log_probs : Tensor of shape ((K + 1) ** L, L, K)
        As in `sequence_law`.
    reward : Tensor of shape (K ** L,)
    alpha : float
        In units of the reward, > 0.

    Returns
    -------
    value : Tensor of shape ()
        In units of the reward; -inf where the chain leaves the support of the pretrained one.

    References
    ----------
    BRAID, equation (6).
    """
    table, pretrained = _checked(letter_log_probs), _checked(pretrained_log_probs)
    scaled = _scaled_reward(reward, alpha, *_sizes(table))
    if table.shape != pretrained.shape:
        raise ValueError(f"both chains need one shape; got {tuple(table.shape)} and {tuple(pretrained.shape)}.")
    log_visits = _visits(table)
    complete = _complete(*_sizes(table))
    total = expectation(log_visits[complete], scaled[complete])
    for moves in _backwards(table):
        kl = kl_of_rows(moves.log_letters, pretrained[moves.states])  # (n_states, L)
        kl = torch.where(moves.masked, kl, 0.0).sum(dim=1) / moves.masked.sum(dim=1)
        total = total - expectation(log_visits[moves.states], kl)
    return alpha * total


def masked_gap(letter_log_probs: Tensor, pretrained_log_probs: Tensor, reward: Tensor, alpha: float) -> Tensor:
    """Distance to the optimum in nats: path KL to it, ``log C - objective / alpha``.

    The optimum is free to tilt the drawn position as well as the letter. `position_floor` is the part of the gap that
    no choice of letters removes.

    Parameters
    ----------
    letter_log_probs, pretrained_log_probs, reward, alpha
        As in `masked_objective`.

    Returns
    -------
    gap : Tensor of shape ()
        Nats, >= 0 up to rounding.
    """
    _, log_c = masked_soft_values(pretrained_log_probs, reward, alpha)
    return log_c - masked_objective(letter_log_probs, pretrained_log_probs, reward, alpha) / alpha


def best_letters(letter_log_probs: Tensor, reward: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The chain of largest objective (6) among those whose positions stay uniform.

    Its values u solve ``u = (1/j) sum_i alpha log sum_k exp(u(child) / alpha) p(k | state, i)``, j the number of
    masked positions i: the soft Bellman equation (8), with a mean over what may not be tilted.

    Parameters
    ----------
    letter_log_probs, reward, alpha
        As in `masked_soft_values`.

    Returns
    -------
    best_log_probs : Tensor of shape ((K + 1) ** L, L, K)
        Entries of positions that are not masked are those given.
    best_value : Tensor of shape ()
        Its objective (6), divided by alpha.
    """
    table = _checked(letter_log_probs)
    scaled = _scaled_reward(reward, alpha, *_sizes(table))
    best = table.clone()
    for moves in _backwards(table):
        after = scaled[moves.children] + moves.log_letters  # (n_states, L, K)
        norm = after.logsumexp(dim=2)
        scaled[moves.states] = torch.where(moves.masked, norm, 0.0).sum(dim=1) / moves.masked.sum(dim=1)
        usable = (moves.masked & (norm > -torch.inf))[:, :, None]
        best[moves.states] = torch.where(usable, after - norm[:, :, None], moves.log_letters)
    return best, scaled[-1]


def position_floor(letter_log_probs: Tensor, reward: Tensor, alpha: float) -> Tensor:
    """The gap that remains when only letters are tilted and the positions stay uniform.

    Parameters
    ----------
    letter_log_probs, reward, alpha
        As in `masked_soft_values`.

    Returns
    -------
    floor : Tensor of shape ()
        Nats, >= 0 up to rounding: the gap of `best_letters`. It is 0 if the pretrained conditionals are those of one
        law of sequences, the same in every order; a trained network's are not quite.
    """
    _, log_c = masked_soft_values(letter_log_probs, reward, alpha)
    return log_c - best_letters(letter_log_probs, reward, alpha)[1]


class _Moves(NamedTuple):
    """All states with one number of masks, and where their moves lead."""

    states: Tensor  # (n_states,)
    masked: Tensor  # (n_states, L)
    children: Tensor  # (n_states, L, K), of masked positions; the state itself elsewhere
    log_letters: Tensor  # (n_states, L, K)


def _backwards(table: Tensor) -> Iterator[_Moves]:
    """Moves of the states with 1, ..., L masks."""
    length, n_letters = _sizes(table)
    masked = masked_states(length, n_letters) == n_letters
    n_masked = masked.sum(dim=1)
    # Letter k instead of the mask lowers the number of a state by K - k times the position's stride.
    drop = _strides(length, n_letters + 1)[:, None] * torch.arange(n_letters, 0, -1)  # (L, K)
    for j in range(1, length + 1):
        states = (n_masked == j).nonzero()[:, 0]
        here = masked[states]
        yield _Moves(states, here, states[:, None, None] - drop * here[:, :, None], table[states])


def _visits(table: Tensor) -> Tensor:
    """Log-probabilities ((K + 1) ** L,) that the chain visits each state."""
    length, n_letters = _sizes(table)
    states = masked_states(length, n_letters)
    n_masked = (states == n_letters).sum(dim=1)
    position, stride = torch.arange(length), _strides(length, n_letters + 1)
    visits = table.new_full((len(states),), -torch.inf)
    visits[-1] = 0.0
    for j in range(length - 1, -1, -1):
        here = (n_masked == j).nonzero()[:, 0]
        digits = states[here]  # (n_states, L)
        parents = here[:, None] + (n_letters - digits) * stride
        letters = table[parents, position, digits.clamp(max=n_letters - 1)]
        paths = (visits[parents] + letters).masked_fill(digits == n_letters, -torch.inf)
        visits[here] = paths.logsumexp(dim=1) - torch.tensor(j + 1.0).double().log()
    return visits


def _complete(length: int, n_letters: int) -> Tensor:
    """Numbers (K ** L,) of the states without a mask, in the order of complete sequences."""
    sequences = torch.arange(n_letters**length)[:, None] // _strides(length, n_letters) % n_letters
    return (sequences * _strides(length, n_letters + 1)).sum(dim=1)


def _strides(length: int, base: int) -> Tensor:
    """Place values (length,) of the digits, the first most significant."""
    return base ** torch.arange(length - 1, -1, -1)


def _sizes(table: Tensor) -> tuple[int, int]:
    """Length L and number of letters K of a table."""
    if not isinstance(table, Tensor):
        raise ValueError(f"a table of letters must be a tensor; got {table!r:.60}.")
    if table.ndim != 3 or len(table) != (table.shape[2] + 1) ** table.shape[1]:
        raise ValueError(f"a table of letters must have shape ((K + 1) ** L, L, K); got {tuple(table.shape)}.")
    return table.shape[1], table.shape[2]


def _checked(table: Tensor) -> Tensor:
    """The table in float64; raises if the letters of a masked position do not sum to 1 within rounding of float32."""
    length, n_letters = _sizes(table)
    table = table.double()
    masked = masked_states(length, n_letters) == n_letters
    error = (table.exp().sum(dim=2) - 1).abs()[masked].max()
    if not error <= 1e-5:
        raise ValueError(f"letters must have log-probabilities that sum to 1; off by {error:.3g}. Normalise them.")
    return table


def _scaled_reward(reward: Tensor, alpha: float, length: int, n_letters: int) -> Tensor:
    """Reward / alpha at the complete states of an array ((K + 1) ** L,), -inf elsewhere."""
    reward = check_reward(reward, n_letters**length, alpha, "a complete sequence")
    scaled = torch.full(((n_letters + 1) ** length,), -torch.inf, dtype=torch.float64)
    scaled[_complete(length, n_letters)] = reward / alpha
    return scaled
