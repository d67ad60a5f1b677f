"""Tiny masked language models with random weights, and tokenizers of the kinds that published ones have."""

import string

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, EsmConfig, EsmForMaskedLM, PreTrainedTokenizerFast

PROTEIN = "ACDEFGHIKLMNPQRSTVWY"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def tokenizer_of(tokens, *, spaces=True, before=("[CLS]",), after=("[SEP]",), lowercase=False):
    """A tokenizer of whole words between blanks, or of single letters as they come."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *tokens])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if spaces else pre_tokenizers.Split("", "isolated")
    template = " ".join([*before, "$A", *after])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary[token]) for token in {*before, *after}]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMES)


def random_weights(lm, seed=0):
    """Weights large enough that every letter matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    return lm.eval()


def tiny_bert(letters=PROTEIN, **settings):
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(SPECIAL) + len(letters), max_position_embeddings=64, **(size | settings))
    return random_weights(BertForMaskedLM(config)), tokenizer_of(letters)


def tiny_esm(letters=PROTEIN, **settings):
    """ESM-2's kind: rotary positions, and embeddings scaled by the share of masks."""
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = EsmConfig(
        vocab_size=len(SPECIAL) + len(letters),
        mask_token_id=SPECIAL.index("[MASK]"),
        pad_token_id=0,
        position_embedding_type="rotary",
        token_dropout=True,
        **(size | settings),
    )
    return random_weights(EsmForMaskedLM(config)), tokenizer_of(letters, spaces=False)


def kmers(letters="ACGT", k=3):
    """A tokenizer whose words are all k letters, with the single letters as well."""
    words = [""]
    for _ in range(k):
        words = [word + letter for word in words for letter in letters]
    return tokenizer_of([*words, *letters])


MODELS = {"bert": tiny_bert, "esm": tiny_esm}
LOWERCASE = string.ascii_lowercase
