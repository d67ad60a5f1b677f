"""The chances that the limits of a space are met, letter by letter, as a masked chain weighs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from braidkit.spaces import SequenceSpace

if TYPE_CHECKING:
    from braidkit.diffusion.masked import MaskedDiffusion


class LetterTable(nn.Module):
    """A table of letters (L, K) as a module: a part of what fine-tuning changes."""

    def __init__(self, letters: Tensor) -> None:
        super().__init__()
        self.register_buffer("letters", letters)


@torch.no_grad()
def expected_letters(chain: MaskedDiffusion) -> Tensor:
    """Letters (L, K) that a chain expects at each position next to the parent's, or with all masked.

    All alike before it is trained. Padding goes on, or ends, with an even chance.
    """
    space = chain.space
    parent = None if space.limits is None else space.limits.parent
    if not chain.is_trained:
        letters = torch.full(space.shape, 1 / space.n_letters, device=chain.device)
    elif parent is None:
        states = space.hold(torch.zeros(1, *space.shape, device=chain.device))
        letters = chain._logits(states).softmax(dim=-1)[0].float()
    else:
        states = space.encode([parent]).to(chain.device).repeat(space.length, 1, 1)
        states.diagonal(dim1=0, dim2=1).zero_()
        parts = [chain._logits(part).softmax(dim=-1) for part in states.split(chain.rows_at_once)]
        letters = torch.cat(parts).diagonal(dim1=0, dim2=1).T.float().contiguous()
    if space.letters.padding is not None:
        real = letters[:, :-1] / letters[:, :-1].sum(dim=1, keepdim=True)
        letters = torch.cat([real, torch.ones_like(real[:, :1])], dim=1) / 2
    return letters


def log_chances(space: SequenceSpace, x: Tensor, expected: Tensor) -> Tensor:
    """Log-probabilities (n, L, K) that the limits are met, by each masked position's letter; -inf for none.

    How probable lengths are, a chain's own letters say: the chances are those of limits given the padding.
    """
    if space.letters.padding is None:
        return space.automaton.log_chances(x, expected)
    padding = space.paddings.log_chances(x, expected)
    possible = padding > -torch.inf
    chances = padding if space.limits is None else space.automaton.log_chances(x, expected)
    return torch.where(possible, chances - padding.masked_fill(~possible, 0.0), -torch.inf)
