"""Attention against its formula, written position by position."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.networks import AttentionBlock, PositionalPool, RelativeAttention, SoftmaxPool


def randomised(module):
    """The module with every weight drawn afresh, those that start at zero too."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.double()


@settings(max_examples=15)
@given(length=st.integers(1, 6), n_heads=st.sampled_from([1, 2, 3]), key_width=st.integers(1, 3))
def test_relative_attention_is_the_formula(length, n_heads, key_width):
    attention = randomised(RelativeAttention(length, 6, n_heads=n_heads, key_width=key_width))
    h = torch.randn(2, length, 6, dtype=torch.float64)
    queries, keys = attention.query_key(h).chunk(2, dim=-1)
    values, width = attention.value(h), 6 // n_heads
    expected = torch.zeros(2, length, 6, dtype=torch.float64)
    for head in range(n_heads):
        own = slice(head * key_width, (head + 1) * key_width)
        mixed = slice(head * width, (head + 1) * width)
        for n in range(2):
            for i in range(length):
                logits = torch.stack(
                    [
                        queries[n, i, own] @ keys[n, j, own] / math.sqrt(key_width)
                        + attention.bias[head, j - i + length - 1]
                        for j in range(length)
                    ]
                )
                expected[n, i, mixed] = logits.softmax(dim=0) @ values[n, :, mixed]
    torch.testing.assert_close(attention(h), attention.out(expected))


def test_shorter_sequences_see_the_same_offsets():
    attention = randomised(RelativeAttention(5, 4, n_heads=2, key_width=2))
    with torch.no_grad():
        attention.query_key.weight.zero_()  # the offset alone decides
    h = torch.zeros(1, 3, 4, dtype=torch.float64)
    h[:, 1] = 1
    weights = attention.bias[:, 4 - 1 : 4 + 2].softmax(dim=1)[:, 1]  # from the middle: offsets -1, 0, 1
    value = attention.value(h)[0, 1].reshape(2, 2)
    torch.testing.assert_close(attention(h)[0, 1], attention.out((weights[:, None] * value).flatten()))


def test_block_adds_to_what_comes_in_and_drops_only_in_training():
    block = AttentionBlock(7, 8, n_heads=2, key_width=4, dropout=0.5)
    h = torch.randn(3, 7, 8)
    assert not torch.equal(block(h), block(h))
    block.eval()
    torch.testing.assert_close(block(h), block(h), rtol=0, atol=0)
    middle = h + block.attention(h)
    torch.testing.assert_close(block(h), middle + block.dense(middle))


@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_softmax_pool_is_a_weighted_mean_of_neighbours(length):
    pool = randomised(SoftmaxPool(3))
    h = torch.randn(2, length, 3, dtype=torch.float64)
    pooled = pool(h)
    assert pooled.shape == (2, math.ceil(length / 2), 3)
    for i in range(pooled.shape[1]):
        pair = h[:, 2 * i : 2 * i + 2]
        weights = (pair @ pool.logits.weight.T).softmax(dim=1)
        torch.testing.assert_close(pooled[:, i], (weights * pair).sum(dim=1))


def test_softmax_pool_starts_near_the_larger_neighbour():
    h = torch.tensor([[[0.0], [4.0]]])
    assert SoftmaxPool(1)(h).item() > 3.9


def test_positional_pool_can_look_at_a_place_or_at_features():
    pool = PositionalPool(4, 6, n_heads=2)
    h = torch.randn(3, 4, 6)
    with torch.no_grad():
        pool.score.weight.zero_()
        torch.testing.assert_close(pool(h), h.mean(dim=1))
        pool.place[3, 0] = pool.place[1, 1] = 100
        torch.testing.assert_close(pool(h), torch.cat([h[:, 3, :3], h[:, 1, 3:]], dim=1))
        pool.place.zero_()
        pool.score.weight[0, 5] = 1000
    rows = h[..., 5].argmax(dim=1)
    torch.testing.assert_close(pool(h)[:, :3], h[torch.arange(3), rows, :3])
