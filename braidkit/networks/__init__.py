"""Building blocks that score, feature and oracle networks share."""

from braidkit.networks.dilated_conv import DilatedConv1d, DilatedConvNet, ResidualBlock, SequenceNorm
from braidkit.networks.time_embedding import TimeEmbedding

__all__ = ["DilatedConv1d", "DilatedConvNet", "ResidualBlock", "SequenceNorm", "TimeEmbedding"]
