"""The time embedding against its formula."""

import math

import torch

from braidkit.networks import TimeEmbedding


def test_embedding_is_its_formula():
    embedding = TimeEmbedding(6, scale=3.0)
    t = torch.tensor([0.2, 1.7])
    angle = 2 * math.pi * torch.outer(t, embedding.frequencies)
    features = torch.hstack([angle.sin(), angle.cos()])
    expected = torch.nn.functional.silu(features @ embedding.linear.weight.T + embedding.linear.bias)
    torch.testing.assert_close(embedding(t), expected)


def test_frequencies_are_kept_and_not_trained():
    embedding = TimeEmbedding(512, scale=30.0)
    assert "frequencies" in embedding.state_dict()
    assert not any(parameter is embedding.frequencies for parameter in embedding.parameters())
    assert 20 < embedding.frequencies.std() < 40
