"""A masked language model as a network of letters, and adapters of low rank on it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from braidkit.exceptions import IncompatibleModelError
from braidkit.networks.pretrained_lm import LetterTokens, import_transformers
from braidkit.networks.shared import Adapter, Shared, share

# ESM was trained with 15 % of the letters chosen, 80 % of those masked.
_ESM_MASKED = 0.15 * 0.8


class LetterMaskedLM(nn.Module):
    """Logits of letters, and hidden states, of partly masked sequences; differentiable in relaxed letters.

    Sequences of one length need no padding, so there is no attention mask.

    Parameters
    ----------
    lm : PreTrainedModel
    tokens : LetterTokens
    """

    ids: Tensor

    def __init__(self, lm: nn.Module, tokens: LetterTokens) -> None:
        super().__init__()
        self.lm: Any = lm
        self.tokens = tokens
        self.start = len(tokens.before)
        ids = [*tokens.letters, tokens.mask, *tokens.before, *tokens.after]
        self.register_buffer("ids", torch.tensor(ids), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, length, n_letters), float32, of states (n, length, n_letters): zeros where masked."""
        return self._letters(self.lm(inputs_embeds=self._embedded(x)).logits, x.shape[1])

    def hidden(self, x: Tensor) -> Tensor:
        """The last hidden states (n, length, d) of the letters, float32."""
        states = self.lm.base_model(inputs_embeds=self._embedded(x)).last_hidden_state
        return states[:, self.start : self.start + x.shape[1]].float()

    def _letters(self, logits: Tensor, length: int) -> Tensor:
        return logits[:, self.start : self.start + length, self.ids[: len(self.tokens.letters)]].float()

    def _embedded(self, x: Tensor) -> Tensor:
        """Embeddings (n, tokens, d) of states, as the model makes them of token numbers."""
        table = self.lm.get_input_embeddings()(self.ids)
        tokens = self.tokens
        letters, mask, before, after = table.split([len(tokens.letters), 1, len(tokens.before), len(tokens.after)])
        masked = x.detach().sum(dim=-1) < 0.5
        drops_masks = getattr(self.lm.config, "token_dropout", False)
        # Filled in, so that no gradient passes to what is masked: where ESM has zeros it is too large for numbers.
        embedded = (x.to(table.dtype) @ letters).masked_fill(masked[..., None], 0.0)
        if not drops_masks:
            embedded = embedded + masked[..., None] * mask
        n = len(x)
        embedded = torch.cat([before.expand(n, -1, -1), embedded, after.expand(n, -1, -1)], dim=1)
        if drops_masks:
            # ESM makes masked positions zero and scales the others up by their share, but of token numbers only.
            share_masked = masked.float().sum(dim=1) / embedded.shape[1]
            embedded = (embedded * (1 - _ESM_MASKED) / (1 - share_masked)[:, None, None]).to(table.dtype)
        return embedded

    @torch.no_grad()
    def check(self, length: int) -> None:
        """Raise IncompatibleModelError if sequences are too long, or embeddings are not read as token numbers are."""
        config, n_tokens = self.lm.config, length + len(self.tokens.before) + len(self.tokens.after)
        rotary = getattr(config, "position_embedding_type", "absolute") == "rotary"
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and not rotary and n_tokens > longest:
            raise IncompatibleModelError(
                f"the language model reads at most {longest} tokens, and {length} letters are {n_tokens}; use a space "
                "of shorter sequences, or a model of longer ones."
            )
        device, tokens = self.ids.device, self.tokens
        n_known = len(self.lm.get_input_embeddings().weight)
        if int(self.ids.max()) >= n_known:
            raise IncompatibleModelError(
                f"the tokenizer has a token of number {int(self.ids.max())}, and the language model knows {n_known} "
                "tokens; pass the tokenizer of this model."
            )
        row = list(itertools.islice(itertools.cycle(range(len(tokens.letters))), min(length, 16)))
        x = nn.functional.one_hot(torch.tensor([row] * 3, device=device), len(tokens.letters)).float()
        x[1, ::3] = 0
        x[2] = 0
        masked = x.sum(dim=-1) == 0
        letters = torch.tensor(tokens.letters, device=device)[x.argmax(dim=-1)].masked_fill(masked, tokens.mask)
        before, after = (torch.tensor([part] * 3, device=device).long() for part in (tokens.before, tokens.after))
        expected = self._letters(self.lm(input_ids=torch.cat([before, letters, after], dim=1)).logits, len(row))
        got = self(x)
        tolerance = (1e-3 if self.lm.dtype == torch.float32 else 0.03) * float(expected.abs().max().clamp(min=1))
        if not float((got - expected).abs().max()) <= tolerance:
            raise IncompatibleModelError(
                f"{type(self.lm).__name__} gives other logits for embeddings than for the tokens that they stand for, "
                "so that there are no gradients by its letters; pass another masked language model."
            )


class LowRankAdapter(Adapter):
    """An adapter of low rank (LoRA, by peft) on a shared `LetterMaskedLM`; it does nothing before it is trained."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared, [name for name, _ in shared.module.named_parameters() if ".lora_" in name])

    def forward(self, x: Tensor) -> Tensor:
        """Logits of states; by the language model alone where the adapter does nothing and is not being trained.

        Rows that are alike go through the network once: all are at the start of a chain, and many where few letters
        are free.
        """
        if len(x) > 1 and not x.requires_grad:
            different, of_row = x.unique(dim=0, return_inverse=True)
            if len(different) < len(x):
                return self(different)[of_row]
        trained = torch.is_grad_enabled() and any(value.requires_grad for value in self.own.values())
        if not trained and not any(value.any() for name, value in self.own.items() if "lora_B" in name):
            return self.shared.on(x.device)(x)
        module = self.shared.on(x.device)
        _switch(module, True)
        try:
            return super().forward(x)
        finally:
            _switch(module, False)

    def peft_tensors(self) -> dict[str, Tensor]:
        """The adapter's tensors by peft's names, as `PeftModel.from_pretrained` reads them."""
        names = {name: name.replace("/", ".").removeprefix("lm.").replace(".default.", ".") for name in self.own}
        return {f"base_model.model.{names[name]}": value.detach().cpu() for name, value in self.own.items()}


def with_low_rank(
    lm: nn.Module, tokens: LetterTokens, *, rank: int, alpha: float, target_modules: Sequence[str] | None = None
) -> tuple[LetterMaskedLM, Any]:
    """A network on the weights of a language model, themselves untouched, with layers of low rank; and peft's settings.

    Parameters
    ----------
    lm : PreTrainedModel
        It stays as it is; its tensors are shared.
    tokens : LetterTokens
    rank : int
    alpha : float
        The layers' product is multiplied by ``alpha / rank``.
    target_modules : sequence of str, optional
        Names, or ends of names, of the layers; by default all linear layers in modules whose class is an attention's.
    """
    import_transformers()
    import peft
    from peft.tuners.tuners_utils import BaseTunerLayer

    targets = attention_projections(lm) if target_modules is None else list(target_modules)
    own = share(lm).requires_grad_(False).eval()
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, bias="none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            own = peft.inject_adapter_in_model(config, own)
        except ValueError as error:
            linear = [name for name, part in lm.named_modules() if isinstance(part, nn.Linear)]
            raise IncompatibleModelError(
                f"target_modules {targets} are not in the language model; its linear layers have names such as "
                f"{', '.join(linear[:4])}."
            ) from error
    if any(".lora_embedding_" in name for name, _ in own.named_parameters()):
        raise IncompatibleModelError(f"target_modules {targets} are no linear layers; only those are adapted.")
    for name, parameter in own.named_parameters():
        if ".lora_" in name:  # products of low rank in half precision would lose small updates
            parameter.data = parameter.data.float()
    network = LetterMaskedLM(own, tokens)
    for layer in network.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.enable_adapters(False)
    return network, config


def attention_projections(lm: nn.Module) -> list[str]:
    """Names of the linear layers in modules whose class is an attention's."""
    attentions = [name for name, part in lm.named_modules() if type(part).__name__.endswith("Attention")]
    names = [
        name
        for name, part in lm.named_modules()
        if isinstance(part, nn.Linear) and any(name.startswith(f"{attention}.") for attention in attentions)
    ]
    if not names:
        raise IncompatibleModelError(
            f"no attention with linear layers was found in {type(lm).__name__}; name the layers to adapt as "
            "target_modules."
        )
    return names


def _switch(module: nn.Module, on: bool) -> None:
    """Turn the layers of low rank on or off."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.enable_adapters(on)
