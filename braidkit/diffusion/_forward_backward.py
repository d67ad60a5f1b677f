"""Forward-backward over sequences: exact letters given one likelihood a position, under a Markov law.

Transitions have shape (L, K ** order, K): the probability of a letter at a position after the `order` letters before
it, whose numbers are in base K, the oldest letter most significant. Before the first position they are numbers 0.

Messages go over both directions at once, rows last. The forward message is indexed by the last `order` letters, the
oldest first. The backward message has the newest first. So both sum over their first letter, and gain one at the end.
The likelihood of a letter enters where it is summed over. They are in float64 and scaled at each position, so that
likelihoods may differ by hundreds of nats.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# What an impossible transition counts for: it decides only where nothing possible fits the likelihoods.
_IMPOSSIBLE = 1e-290
# Letters whose share is smaller are those that only impossible transitions reach.
_ZERO = 1e-200


def letter_log_posterior(transitions: Tensor, log_likelihoods: Tensor) -> Tensor:
    """Log-probabilities of each position's letters, given likelihoods at all positions.

    Parameters
    ----------
    transitions : Tensor of shape (L, K ** order, K), float64
    log_likelihoods : Tensor of shape (n, L, K)
        Up to a constant a position; -inf forbids a letter, though not all of a position.

    Returns
    -------
    log_q : Tensor of shape (n, L, K)
        In the type of the likelihoods, normalised; -inf for letters of probability zero. Differentiable. Where no
        possible sequence fits, impossible transitions count as rare ones, so that it is finite somewhere still.
    """
    evidence = _evidence(log_likelihoods)
    log_weight, possible = _log_weights(transitions, evidence, evidence)
    lowest = torch.finfo(log_likelihoods.dtype).min / 4
    logits = log_likelihoods.clamp(min=lowest) + log_weight
    return logits.masked_fill(~possible, -torch.inf).log_softmax(dim=-1).to(log_likelihoods.dtype)


def letter_log_prediction(transitions: Tensor, likelihoods: Tensor) -> Tensor:
    """Log-probabilities of each position's letters, given likelihoods at all other positions.

    Parameters
    ----------
    transitions : Tensor of shape (L, K ** order, K), float64
    likelihoods : Tensor of shape (n, L, K)
        At least 0, and the largest of each position not far from 1. The result is differentiable at zeros too.

    Returns
    -------
    log_p : Tensor of shape (n, L, K)
        As from `letter_log_posterior`. Where a position's own likelihoods are all alike, it is the same.
    """
    evidence = likelihoods.double().permute(1, 2, 0)
    log_weight, possible = _log_weights(transitions, evidence, torch.ones_like(evidence))
    return log_weight.masked_fill(~possible, -torch.inf).log_softmax(dim=-1).to(likelihoods.dtype)


def draw_sequences(transitions: Tensor, log_likelihoods: Tensor, noise: Tensor) -> Tensor:
    """Draw whole sequences from the posterior: filtered from the last position to the first, drawn the other way.

    Parameters
    ----------
    transitions : Tensor of shape (L, K ** order, K), float64
    log_likelihoods : Tensor of shape (n, L, K)
        As in `letter_log_posterior`.
    noise : Tensor of shape (n, L)
        Uniform in [0, 1).

    Returns
    -------
    tokens : LongTensor of shape (n, L)
    """
    length, n_states, n_letters = transitions.shape
    evidence = _evidence(log_likelihoods)
    table = transitions + _IMPOSSIBLE
    after = [torch.ones_like(evidence[0, :1]).expand(n_states, -1)]
    state = torch.arange(n_states * n_letters, device=noise.device) % n_states
    for i in range(length - 1, 0, -1):
        # Likelihoods of what follows each context: the sum over its next letter.
        following = after[-1][state].reshape(n_states, n_letters, -1) * evidence[i]
        following = torch.einsum("sk,skn->sn", table[i], following / following.amax(dim=(0, 1)))
        after.append(following)
    after.reverse()
    # Forwards: draw each letter given the letters before it and all likelihoods, by the inverse distribution function.
    context, tokens = torch.zeros(len(noise), dtype=torch.long, device=noise.device), []
    for i in range(length):
        following = after[i][state].reshape(n_states, n_letters, -1)
        chances = table[i][context] * evidence[i].T * following[context, :, torch.arange(len(noise))]
        below = (chances / chances.amax(dim=1, keepdim=True)).cumsum(dim=1)
        token = (noise[:, i, None].to(below) * below[:, -1:] >= below[:, :-1]).sum(dim=1)
        tokens.append(token)
        context = (context * n_letters + token) % n_states
    return torch.stack(tokens, dim=1)


def _evidence(log_likelihoods: Tensor) -> Tensor:
    """Likelihoods (L, K, n) in float64, the largest of each position 1."""
    logs = log_likelihoods.double()
    return (logs - logs.detach().amax(dim=-1, keepdim=True)).exp().permute(1, 2, 0)


def _log_weights(transitions: Tensor, evidence: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Log-weights (n, L, K) of letters by all other positions, and which letters have any with their `own` likelihoods.

    Weights without a meaning have a logarithm of 0.
    """
    weight = _neighbours(transitions, evidence)
    share = (weight * own).detach()
    possible = (share > _ZERO * share.amax(dim=1, keepdim=True)) & (share > 0)
    # If no letter is possible, even with one impossible transition on either side, use the likelihoods alone.
    possible = torch.where(possible.any(dim=1, keepdim=True), possible, own > 0)
    log_weight = torch.where(possible & (weight > 0), weight, 1.0).log()
    return log_weight.permute(2, 0, 1), possible.permute(2, 0, 1)


def _neighbours(transitions: Tensor, evidence: Tensor) -> Tensor:
    """Weights (L, K, n) of each position's letters by the likelihoods of all other positions."""
    length, n_states, n_letters = transitions.shape
    n, order = evidence.shape[2], _order(n_states, n_letters)
    n_others = n_states // n_letters
    # One axis a letter of the context, the oldest first, and the next letter last.
    table = (transitions + _IMPOSSIBLE).reshape(length, *[n_letters] * (order + 1))
    forward = table.permute(0, *range(2, order + 2), 1).reshape(length, n_others, n_letters, n_letters)
    backward = table.permute(0, *range(order, 0, -1), order + 1).reshape(length, n_others, n_letters, n_letters)
    # Step s goes to position s, and the other way from position L - s.
    tables = torch.stack([forward[1:], backward[1:].flip(0)], dim=1)
    padded = nn.functional.pad(evidence, (0, 0, 0, 0, order - 1, 0), value=1.0)
    likelihoods = torch.stack([padded[: length - 1], evidence[1:].flip(0)], dim=1)[:, :, :, None]
    first = table.reshape(length, n_states, n_letters)[0, 0]
    # Before the first position all letters are number 0 by convention. The backward message starts as ones.
    start = nn.functional.pad(first, (0, n_states - n_letters))[:, None].expand(-1, n)
    message = torch.stack([start, torch.ones_like(start)]).reshape(2, n_letters, n_others, n)
    messages = [message]
    for step, likelihood in zip(tables.unbind(0), likelihoods.unbind(0), strict=True):
        seen = message * likelihood
        # Scaled before the step and not after it, so that no sum is below _IMPOSSIBLE.
        seen = seen / seen.sum(dim=(1, 2), keepdim=True)
        message = torch.matmul(step, seen.transpose(1, 2)).reshape(2, n_letters, n_others, n)
        messages.append(message)
    both = torch.stack(messages).reshape(length, 2, *[n_letters] * order, n)
    weight = both[:, 0] * both[:, 1].flip(0).permute(0, *range(order, 0, -1), order + 1)
    for older in range(order - 1):
        shape = (length, n_letters, *[1] * (order - 1 - older), n)
        weight = (weight * padded[older : older + length].reshape(shape)).sum(dim=1)
    return weight


def _order(n_states: int, n_letters: int) -> int:
    """How many letters a context has."""
    order = 1
    while n_letters**order < n_states:
        order += 1
    return order
