"""Building blocks that score, feature and oracle networks share."""

from braidkit.networks.attention import AttentionBlock, PositionalPool, RelativeAttention, SoftmaxPool
from braidkit.networks.dilated_conv import DilatedConv1d, DilatedConvNet, ResidualBlock, SequenceNorm
from braidkit.networks.features import LatentFeatures, SequenceFeatures, VectorFeatures, shrunk
from braidkit.networks.masked_lm import LetterMaskedLM, LowRankAdapter, with_low_rank
from braidkit.networks.pretrained_lm import (
    LetterTokens,
    check_one_length,
    fingerprint,
    is_masked_lm_directory,
    letter_tokens,
    load_masked_lm,
)
from braidkit.networks.shared import Adapter, Shared, share, shared_parts
from braidkit.networks.time_embedding import TimeEmbedding

__all__ = [
    "Adapter",
    "AttentionBlock",
    "DilatedConv1d",
    "DilatedConvNet",
    "LatentFeatures",
    "LetterMaskedLM",
    "LetterTokens",
    "LowRankAdapter",
    "PositionalPool",
    "RelativeAttention",
    "ResidualBlock",
    "SequenceFeatures",
    "SequenceNorm",
    "Shared",
    "SoftmaxPool",
    "TimeEmbedding",
    "VectorFeatures",
    "check_one_length",
    "fingerprint",
    "is_masked_lm_directory",
    "letter_tokens",
    "load_masked_lm",
    "share",
    "shared_parts",
    "shrunk",
    "with_low_rank",
]
