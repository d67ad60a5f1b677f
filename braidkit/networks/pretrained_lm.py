"""Masked language models of other people: loading them, and how their tokenizers write letters."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidParameterError, MissingExtraError

HUB = "hf://"
# Parts of models that logits and hidden states of letters do not pass through.
_UNUSED = {"contact_head", "pooler", "position_ids"}
# What configurations of language models hold that changes no result.
_FREE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"}
# Without any of these transformers makes up an empty tokenizer.
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model")
NUCLEOTIDES, RESIDUES = set("ACGTUN"), "ACDEFGHIKLMNPQRSTVWY"
# Up to this length attention as plain products is faster on a CPU, with gradients by a fifth, than the fused kernel,
# whose memory does not grow with the square of the length.
MAX_PLAIN_LENGTH = 256
FITTING = "ESM-2, AntiBERTy or ProtBERT for proteins"


class LetterTokens(NamedTuple):
    """Numbers of tokens: one a letter of the alphabet, the mask, and what goes before and after a sequence."""

    letters: list[int]
    mask: int
    before: list[int]
    after: list[int]


def load_masked_lm(
    source: Any, tokenizer: Any = None, dtype: str = "float32", *, length: int | None = None
) -> tuple[nn.Module, Any, str | None]:
    """A masked language model, its tokenizer, and the place that it can be loaded from again.

    Parameters
    ----------
    source : path-like, str or PreTrainedModel
        A directory that transformers wrote, ``"hf://owner/name"`` for a model of the hub, or a loaded model. Only for
        the second may transformers use the network, and none runs code that comes with a model.
    tokenizer : PreTrainedTokenizer, path-like or str, optional
        By default that of the directory.
    dtype : str, default="float32"
        Type that weights are loaded as; a loaded model keeps its own.
    length : int, optional
        That of the sequences, which decides how a model that is loaded here computes its attention.

    Raises
    ------
    MissingExtraError
        Without transformers.
    CheckpointError
        If there is no such directory, or no masked language model in it.
    IncompatibleModelError
        If a part of the model has no weights there, or a loaded model is of another kind or has no tokenizer.
    """
    transformers = import_transformers()
    if isinstance(source, nn.Module):
        if not isinstance(source, transformers.PreTrainedModel) or source.get_output_embeddings() is None:
            raise IncompatibleModelError(
                f"a {type(source).__name__} is no masked language model of transformers; load it with "
                "AutoModelForMaskedLM."
            )
        path = getattr(source, "name_or_path", "")
        if tokenizer is None:
            raise IncompatibleModelError("a loaded model needs its tokenizer as well: tokenizer=AutoTokenizer...")
        place = str(Path(path).resolve()) if path and Path(path).is_dir() else None
        return source, _load_tokenizer(transformers, tokenizer), place
    name, options = _place(source)
    if length is not None and length <= MAX_PLAIN_LENGTH:
        options |= {"attn_implementation": "eager"}
    with _quiet(transformers), _reworded(source):
        lm, loading = transformers.AutoModelForMaskedLM.from_pretrained(
            name, dtype=dtype, output_loading_info=True, **options
        )
    missing = sorted(name for name in loading["missing_keys"] if not set(name.split(".")) & _UNUSED)
    if missing:
        raise IncompatibleModelError(
            f"{source} has no weights for {missing[0]} ({len(missing)} missing), so it is no whole masked language "
            "model; pass one that was saved with its head, as AutoModelForMaskedLM saves it."
        )
    if tokenizer is None:
        tokenizer = source
    return lm.eval(), _load_tokenizer(transformers, tokenizer), name if options["local_files_only"] else str(source)


def is_masked_lm_directory(path: Path) -> bool:
    """Whether a directory looks like a model of transformers, by its ``config.json``."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "model_type" in config


def fingerprint(lm: Any) -> str:
    """Digest of a language model's weights and configuration, wherever it was loaded from."""
    config = {name: value for name, value in lm.config.to_dict().items() if name not in _FREE}
    digest = hashlib.sha256(json.dumps([type(lm).__name__, config], sort_keys=True, default=str).encode())
    for name, tensor in sorted(lm.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def check_one_length(space: Any) -> None:
    """Raise IncompatibleModelError unless all sequences of a space have one length: padding would need a token."""
    if space.letters.padding is not None:
        raise IncompatibleModelError(
            f"a language model needs sequences of one length, and those of the space have {space.letters.in_words()} "
            f"letters; keep those of one length, such as length={space.length}, or --length {space.length}."
        )


def letter_tokens(tokenizer: Any, alphabet: str) -> LetterTokens:
    """Find the tokens of letters. Each letter must be one token, whatever letters are beside it.

    Warns where letters of nucleotides would be read as residues of proteins.

    Raises
    ------
    IncompatibleModelError
        Naming the letters that have no token, or what several letters become together.
    """
    mask = tokenizer.mask_token_id
    if mask is None:
        raise IncompatibleModelError(
            "the tokenizer has no mask token, so it belongs to no masked language model; pass that of the model."
        )
    special = set(tokenizer.all_special_tokens)
    joined = [
        token
        for token in tokenizer.get_vocab()
        if token not in special and len(bare := token.strip("#▁Ġ").upper()) > 1 and set(bare) <= set(alphabet.upper())
    ]
    if len(joined) > len(alphabet):
        raise IncompatibleModelError(
            f"the tokenizer has tokens of several letters, such as {min(joined)!r}: the k-mer tokenizers of DNABERT "
            "and the Nucleotide Transformer, and those of words, are refused, as designs are made letter by letter. "
            f"Models with one token a letter fit: {FITTING}."
        )
    # Each letter beside different others, so that a token that depends on its neighbours shows.
    text = alphabet + alphabet[::-1] + alphabet
    for separator in ("", " "):
        ids = tokenizer(separator.join(text), add_special_tokens=False)["input_ids"]
        found = dict(zip(text, ids, strict=False))
        consistent = len(ids) == len(text) and [found[letter] for letter in text] == list(ids)
        letters = [found.get(letter, -1) for letter in alphabet]
        if consistent and len(set(letters)) == len(letters) and tokenizer.unk_token_id not in letters:
            whole = list(tokenizer(separator.join(text))["input_ids"])
            start = next(i for i in range(len(whole)) if whole[i : i + len(ids)] == list(ids))
            residues = tokenizer.convert_tokens_to_ids(list(RESIDUES))
            if set(alphabet) <= NUCLEOTIDES and not {None, tokenizer.unk_token_id} & set(residues):
                warnings.warn(
                    f"the letters {alphabet} are those of nucleotides, and the language model's tokenizer has all "
                    "residues of proteins: it may read them as residues; pass a model of nucleotides.",
                    stacklevel=2,
                )
            return LetterTokens(letters, mask, whole[:start], whole[start + len(ids) :])
    unknown = (None, tokenizer.unk_token_id)
    without = [letter for letter in alphabet if tokenizer.convert_tokens_to_ids(letter) in unknown] or list(alphabet)
    raise IncompatibleModelError(
        f"the tokenizer has no token of its own for {', '.join(map(repr, without))}; pass a model of this alphabet, "
        f"{alphabet}, with one token a letter, such as {FITTING}; k-mer tokenizers are refused."
    )


def import_transformers() -> Any:
    """The library transformers, where peft is there as well."""
    try:
        import peft  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            "language models need transformers and peft; install them with: pip install 'braidkit[lm]'"
        ) from error
    return transformers


def _place(source: Any) -> tuple[str, dict[str, Any]]:
    """The place of a model, and the options with which transformers loads it."""
    text = str(source)
    if text.startswith(HUB):
        name = text.removeprefix(HUB)
        if name.count("/") != 1 or not all(name.split("/")):
            raise InvalidParameterError(f"a model of the hub is named as hf://owner/name; got {text!r}.")
        return name, {"local_files_only": False, "trust_remote_code": False}
    folder = Path(text)
    if not folder.is_dir():
        raise CheckpointError(
            f"{text} is not a directory; pass one that holds a model of transformers, or name a model of the Hugging "
            "Face hub as hf://owner/name."
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{text} has no config.json; pass a directory that transformers' save_pretrained wrote.")
    return str(folder.resolve()), {"local_files_only": True, "trust_remote_code": False}


def _load_tokenizer(transformers: Any, tokenizer: Any) -> Any:
    if callable(tokenizer):
        return tokenizer
    name, options = _place(tokenizer)
    if options["local_files_only"] and not any(any(Path(name).glob(pattern)) for pattern in _TOKENIZER_FILES):
        raise CheckpointError(f"{tokenizer} has no tokenizer; pass the directory of the model's own as tokenizer.")
    with _reworded(tokenizer):
        return transformers.AutoTokenizer.from_pretrained(name, **options)


@contextlib.contextmanager
def _reworded(source: Any) -> Iterator[None]:
    """Errors of loading as one of ours, with the place and a remedy."""
    try:
        yield
    except Exception as error:  # transformers raises many kinds, by what it meets
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{source} could not be loaded as a masked language model with its tokenizer: {reason[0][:300]} Pass a "
            "directory of transformers with config.json, the weights and the tokenizer; models that bring their own "
            "code are not run."
        ) from error


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars of transformers, and no report of weights: those that matter are an error here."""
    logging = transformers.utils.logging
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
