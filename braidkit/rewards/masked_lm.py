"""Features of a masked language model for rewards: its hidden states, frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.networks import (
    LetterMaskedLM,
    Shared,
    check_one_length,
    fingerprint,
    letter_tokens,
    load_masked_lm,
    share,
)
from braidkit.parameters import check_choice, check_number
from braidkit.spaces import SequenceSpace

ROWS_AT_ONCE = 64


class _Cache(dict[bytes, Tensor]):
    """Features by row, the same for all copies of a module: they all have the same frozen weights."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Cache:
        return self


class MaskedLMFeatures(nn.Module):
    """Hidden states of a masked language model as the `features` of a reward.

    The language model is frozen and never copied. Designs are computed once and kept; relaxed letters, which carry
    gradients, are computed each time. Each feature is standardised over the rows that the reward is trained on.

    Parameters
    ----------
    model : MaskedLMDiffusion, path-like, str or PreTrainedModel
        A chain of `MaskedDiffusion.from_masked_lm`, whose language model is then shared; or what that takes.
    space : SequenceSpace, optional
        Needed where `model` is no chain.
    pooling : {"mean", "positions"}, default="mean"
        The mean over the letters, d features; or the states of the positions side by side, d features each.
    positions : sequence of int, optional
        Positions, from 0, to pool; by default those that the space does not hold.
    tokenizer : PreTrainedTokenizer, path-like or str, optional
        Needed for a loaded model.

    Examples
    --------
    ``GPBonusReward(features=MaskedLMFeatures(chain, pooling="positions"))``
    """

    def __init__(
        self,
        model: Any,
        space: SequenceSpace | None = None,
        *,
        pooling: str = "mean",
        positions: Sequence[int] | None = None,
        tokenizer: Any = None,
    ) -> None:
        super().__init__()
        chain = hasattr(model, "backbone") and hasattr(model, "space")
        space = model.space if space is None and chain else space
        space = SequenceSpace.require(space, "MaskedLMFeatures")
        check_one_length(space)
        check_choice("pooling", pooling, ("mean", "positions"))
        if chain:
            self.shared, self.fingerprint = model.backbone.shared, model.backbone.fingerprint
        else:
            lm, tokenizer, _ = load_masked_lm(model, tokenizer)
            network = LetterMaskedLM(share(lm), letter_tokens(tokenizer, space.alphabet))
            self.shared, self.fingerprint = Shared(network), fingerprint(lm)
            network.check(space.length)
        if positions is not None and not isinstance(positions, Iterable):
            raise InvalidParameterError(f"positions must be a list of numbers, such as [0, 5]; got {positions!r:.60}.")
        for position in [] if positions is None else positions:
            check_number("positions", position, low=0, high=space.length - 1, whole=True)
        free = [i for i, letter in enumerate(space.template or "_" * space.length) if letter == "_"]
        self.positions = free if positions is None else [int(position) for position in positions]
        if not self.positions:
            raise InvalidParameterError("positions must be at least one; got none.")
        self.pooling, self.shape = pooling, tuple(space.shape)
        width = self.shared.module.lm.config.hidden_size
        self.norm = nn.BatchNorm1d(
            width * (1 if pooling == "mean" else len(self.positions)), affine=False, momentum=None
        )
        self._cache = _Cache()

    def digest_parts(self) -> list[Any]:
        """The contents of the features, without the class."""
        return [self.fingerprint, self.pooling, self.positions, *self.norm.state_dict().values()]

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, d) of points (n, length, n_letters)."""
        if tuple(x.shape[1:]) != self.shape:
            raise IncompatibleModelError(
                f"MaskedLMFeatures were made for a space of shape {self.shape}, and these points have "
                f"{tuple(x.shape[1:])}"
            )
        if torch.is_grad_enabled() and x.requires_grad:
            return self.norm(self._pooled(x))
        return self.norm(self._kept(x))

    def _pooled(self, x: Tensor) -> Tensor:
        network: Any = self.shared.on(x.device)
        states = network.hidden(x)[:, self.positions]
        return states.mean(dim=1) if self.pooling == "mean" else states.flatten(1)

    @torch.no_grad()
    def _kept(self, x: Tensor) -> Tensor:
        """Features of points without gradient, of which those of designs are kept."""
        if not bool((x * x == x).all()):  # relaxed letters
            return torch.cat([self._pooled(chunk) for chunk in x.split(ROWS_AT_ONCE)])
        keys = [row.tobytes() for row in x.detach().bool().cpu().numpy()]
        new = {key: i for i, key in enumerate(keys) if key not in self._cache}
        for start in range(0, len(new), ROWS_AT_ONCE):
            rows = list(new.values())[start : start + ROWS_AT_ONCE]
            for i, row in zip(rows, self._pooled(x[rows]).cpu(), strict=True):
                self._cache[keys[i]] = row
        return torch.stack([self._cache[key] for key in keys]).to(x.device)
