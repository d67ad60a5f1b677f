"""MaskedLMDiffusion: a masked language model as the any-order denoiser of a masked chain."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import safetensors.torch
import torch
from torch import nn
from tqdm.auto import tqdm

from braidkit import persistence
from braidkit.diffusion.masked import MaskedDiffusion
from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError
from braidkit.networks import (
    LetterTokens,
    LowRankAdapter,
    Shared,
    check_one_length,
    fingerprint,
    letter_tokens,
    load_masked_lm,
    with_low_rank,
)
from braidkit.parameters import check_choice, check_number
from braidkit.spaces import Points, SequenceSpace

ADAPTER_CONFIG, ADAPTER_TENSORS = "adapter_config.json", "adapter_model.safetensors"
# Default steps of a chain, each a pass of the language model.
LEAST_STEPS, LETTERS_A_STEP = 5, 4
# Shares of masked letters at which a chain's predictions are compared with uniform letters.
SHARES = (0.15, 0.5, 1.0)


class Backbone:
    """A language model with layers of low rank built in, and what it is found by again.

    Parameters
    ----------
    lm : PreTrainedModel
    tokens : LetterTokens
    source : str or None
        A directory, or ``"hf://owner/name"``.
    lora_rank : int
    lora_alpha : float
    target_modules : list of str or None
    """

    _known: WeakValueDictionary[str, Backbone] = WeakValueDictionary()

    def __init__(
        self,
        lm: Any,
        tokens: LetterTokens,
        source: str | None,
        *,
        lora_rank: int,
        lora_alpha: float,
        target_modules: Sequence[str] | None,
    ) -> None:
        self.source = source
        self.fingerprint = fingerprint(lm)
        self.settings = {
            "dtype": str(lm.dtype).removeprefix("torch."),
            "tokens": {name: list(part) if isinstance(part, list) else part for name, part in tokens._asdict().items()},
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "target_modules": None if target_modules is None else list(target_modules),
        }
        network, self.peft_config = with_low_rank(
            lm, tokens, rank=lora_rank, alpha=lora_alpha, target_modules=target_modules
        )
        self.shared = Shared(network)

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        return self

    @classmethod
    def of(cls, lm: Any, tokens: LetterTokens, source: str | None, **settings: Any) -> Backbone:
        """A new one, or one of the same weights and settings that is in memory already."""
        new = cls(lm, tokens, source, **settings)
        return cls._known.setdefault(new.key, new)

    @classmethod
    def found(cls, record: dict[str, Any], length: int) -> Backbone:
        """The language model of a saved chain: from memory if it is loaded, else from its place.

        Raises
        ------
        CheckpointError
            If it is not there, or has other weights now.
        """
        known = cls._known.get(_key(record))
        if known is not None:
            return known
        source, settings = record["source"], {name: value for name, value in record.items() if name != "source"}
        remedy = (
            "load the language model from where it is now, MaskedDiffusion.from_masked_lm(directory, space, ...) with "
            "the same settings, keep that, and try again."
        )
        if source is None:
            raise CheckpointError(f"the chain's language model was given as a loaded one, and has no place; {remedy}")
        try:
            lm, *_ = load_masked_lm(source, tokenizer=_no_tokenizer, dtype=settings["dtype"], length=length)
        except CheckpointError as error:
            raise CheckpointError(f"the chain's language model is not found: {error} Or {remedy}") from error
        if fingerprint(lm) != settings.pop("fingerprint"):
            raise CheckpointError(
                f"{source} has other weights than the language model that the chain was made from; {remedy}"
            )
        tokens = LetterTokens(**settings.pop("tokens"))
        settings.pop("dtype")
        return cls.of(lm, tokens, source, **settings)

    @property
    def key(self) -> str:
        return _key(self.record())

    def record(self) -> dict[str, Any]:
        """The values, for JSON, that identify it."""
        return {"source": self.source, "fingerprint": self.fingerprint, **self.settings}


def _key(record: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in record.items() if name != "source"}, sort_keys=True)


def _no_tokenizer(*_: Any) -> None:
    """Replaces the tokenizer where the numbers of the tokens are known."""


class MaskedLMDiffusion(MaskedDiffusion):
    """A masked chain whose letters a masked language model predicts; made by `MaskedDiffusion.from_masked_lm`.

    `fit` and fine-tuning train only an adapter of low rank (LoRA) on the attention's projections.
    The language model itself is frozen, and shared by all copies: the reference of a fine-tuned chain is the same
    weights without the adapter.

    Parameters
    ----------
    space : SequenceSpace
    backbone : Backbone or dict
        Or its record, by which it is found.
    n_steps : int, optional
    """

    draws_slowly: ClassVar[bool] = True
    # Seconds of the language model: larger batches are no faster, and progress is seen less often.
    rows_at_once: int = 32

    network: LowRankAdapter | None

    def __init__(
        self, space: SequenceSpace, backbone: Backbone | dict[str, Any], *, n_steps: int | None = None
    ) -> None:
        super().__init__(space, n_steps=n_steps, prior=None)
        self.backbone = Backbone.found(backbone, space.length) if isinstance(backbone, dict) else backbone

    @classmethod
    def load(
        cls,
        source: Any,
        space: SequenceSpace,
        *,
        tokenizer: Any,
        n_steps: int | None,
        lora_rank: int,
        lora_alpha: float | None,
        target_modules: Sequence[str] | None,
        dtype: str,
    ) -> MaskedLMDiffusion:
        """See `MaskedDiffusion.from_masked_lm`."""
        SequenceSpace.require(space, "a language model")
        check_one_length(space)
        check_number("lora_rank", lora_rank, low=1, whole=True)
        alpha = 2.0 * lora_rank if lora_alpha is None else lora_alpha
        check_number("lora_alpha", alpha, low=0, above=True)
        check_choice("dtype", dtype, ("float32", "bfloat16", "float16"))
        if isinstance(target_modules, str) or (target_modules is not None and not list(target_modules)):
            raise InvalidParameterError(
                f'target_modules must be a list of names, such as ["query", "value"], or None; got {target_modules!r}.'
            )
        lm, tokenizer, place = load_masked_lm(source, tokenizer, dtype, length=space.length)
        tokens = letter_tokens(tokenizer, space.alphabet)
        backbone = Backbone.of(
            lm, tokens, place, lora_rank=lora_rank, lora_alpha=float(alpha), target_modules=target_modules
        )
        network: Any = backbone.shared.module
        network.check(space.length)
        if n_steps is None and not space.limited:  # limits are kept letter by letter, one a step
            n_free = space.n_free_positions
            n_steps = min(n_free, max(LEAST_STEPS, math.ceil(n_free / LETTERS_A_STEP)))
        chain = cls(space, backbone, n_steps=n_steps)
        chain.network = LowRankAdapter(backbone.shared)
        chain.kind = "strings"
        chain.expect()
        chain.requires_grad_(False).eval()
        return chain

    @property
    def default_solver(self) -> str:
        """One that passes the language model few times: others take hours."""
        return "path_tempering" if self.space.can_change_a_letter else "trajectory_balance"

    def digest_parts(self) -> list[Any]:
        return [json.dumps(self.to_config() | {"arguments": self._identity()}), *self.state_dict().values()]

    @torch.no_grad()
    def cross_entropy(self, X: Any, share_masked: float, *, random_state: int = 0, batch_size: int = 64) -> float:
        """Nats a letter of designs, in which a share of the letters that are not held is masked at random.

        A model that was trained with 15 % of the letters masked may predict no better than uniform letters,
        ``log(n_letters)`` nats, when nearly all are masked. A chain starts with such shares.

        Parameters
        ----------
        X : designs of the space
        share_masked : float
            Above 0, at most 1; at least one letter is masked.
        random_state : int, default=0
            Which are masked.
        batch_size : int, default=64
        """
        check_number("share_masked", share_masked, low=0, high=1, above=True)
        return self._cross_entropy(self.space.points(X), share_masked, random_state, batch_size)

    def _cross_entropy(self, points: Points, share_masked: float, seed: int, batch_size: int = 64) -> float:
        free = torch.tensor([letter == "_" for letter in self.space.template or "_" * self.space.length])
        n_masked = max(1, round(share_masked * int(free.sum())))
        generator, total = torch.Generator().manual_seed(seed), 0.0
        for x in points.split(batch_size):
            ranks = torch.rand(len(x), len(free), generator=generator).masked_fill(~free, -1)
            chosen = torch.zeros_like(ranks).scatter(1, ranks.topk(n_masked, dim=1).indices, 1.0).to(self.device)
            x = x.to(self.device)
            log_probs = self._logits(x * (1 - chosen)[..., None]).log_softmax(dim=-1)
            total -= float((log_probs * x).sum(dim=-1).mul(chosen).sum())
        return total / (n_masked * len(points))

    def _train(self, x: Points, seed: int, *, validation_fraction: float, verbose: int = 0, **settings: Any) -> None:
        """Train the adapter on the chain's bound, over all shares of masked letters."""
        if verbose:
            tqdm.write(f"before: {self._by_share(x, seed)}")
        self.trainable.requires_grad_(True)
        super()._train(x, seed, validation_fraction=validation_fraction, verbose=verbose, **settings)
        if verbose:
            tqdm.write(f"after: {self._by_share(x, seed)}")

    @torch.no_grad()
    def _by_share(self, x: Points, seed: int) -> str:
        """Nats a letter by the share of letters that are masked, in words."""
        some = x.take(torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:64])
        nats = [f"{self._cross_entropy(some, share, seed):.3g} with {share:.0%} masked" for share in SHARES]
        uniform = torch.tensor(self.space.n_letters).log().item()
        return f"nats a letter of X: {', '.join(nats)}; uniform letters have {uniform:.3g}"

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the adapter and what names the language model to a directory; the latter is not copied.

        Beside our own files the adapter is there in peft's format: ``PeftModel.from_pretrained(lm, directory)`` loads
        it on the language model.
        """
        self.check_trained()
        assert self.network is not None
        persistence.save(directory, config=self.to_config(), tensors=self.state_dict(), beside=self._peft_files())

    def _peft_files(self) -> dict[str, bytes]:
        assert self.network is not None
        with tempfile.TemporaryDirectory() as folder:
            config = self.backbone.peft_config
            config.base_model_name_or_path, config.inference_mode = self.backbone.source, True
            config.save_pretrained(folder)
            text = (Path(folder) / ADAPTER_CONFIG).read_bytes()
        tensors = {name: value.clone() for name, value in self.network.peft_tensors().items()}
        return {ADAPTER_CONFIG: text, ADAPTER_TENSORS: safetensors.torch.save(tensors, metadata={"format": "pt"})}

    def _build_network(self, n_conditions: int = 0) -> nn.Module:
        if n_conditions:
            raise IncompatibleModelError("a language model takes no conditions; guide a MaskedDiffusion of your rows.")
        return LowRankAdapter(self.backbone.shared)

    def _config(self) -> dict[str, Any]:
        return {"n_steps": self.n_steps, "backbone": self.backbone.record()}

    def _identity(self) -> dict[str, Any]:
        """The constructor's arguments without the place of the language model, which changes no result."""
        return {"n_steps": self.n_steps, "backbone": self.backbone.key}
