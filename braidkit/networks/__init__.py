"""Building blocks that score, feature and oracle networks share."""

from braidkit.networks.attention import AttentionBlock, PositionalPool, RelativeAttention, SoftmaxPool
from braidkit.networks.dilated_conv import DilatedConv1d, DilatedConvNet, ResidualBlock, SequenceNorm
from braidkit.networks.features import SequenceFeatures, VectorFeatures
from braidkit.networks.shared import Adapter, Shared, share, shared_parts
from braidkit.networks.time_embedding import TimeEmbedding

__all__ = [
    "Adapter",
    "AttentionBlock",
    "DilatedConv1d",
    "DilatedConvNet",
    "PositionalPool",
    "RelativeAttention",
    "ResidualBlock",
    "SequenceFeatures",
    "SequenceNorm",
    "Shared",
    "SoftmaxPool",
    "TimeEmbedding",
    "VectorFeatures",
    "share",
    "shared_parts",
]
