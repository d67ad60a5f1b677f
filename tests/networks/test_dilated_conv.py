"""The convolutional blocks against torch's own layers."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from braidkit.networks import DilatedConv1d, DilatedConvNet, ResidualBlock, SequenceNorm


@settings(max_examples=40)
@given(
    length=st.integers(1, 70),
    kernel_size=st.sampled_from([1, 3, 5, 9]),
    dilation=st.sampled_from([1, 2, 4, 16, 64]),
)
def test_skipped_taps_change_neither_output_nor_gradients(length, kernel_size, dilation):
    ours = DilatedConv1d(3, 4, kernel_size, dilation).double()
    full = nn.Conv1d(3, 4, kernel_size, dilation=dilation, padding=dilation * (kernel_size // 2)).double()
    full.load_state_dict(ours.state_dict())
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    expected = full(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ours(x), expected)
    output_gradient = torch.randn_like(expected)
    inputs = [x, ours.weight, ours.bias]
    gradients = torch.autograd.grad(ours(x), inputs, output_gradient)
    expected_gradients = torch.autograd.grad(expected, [x, full.weight, full.bias], output_gradient)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


def test_sequence_norm_is_group_norm_of_one_group():
    ours, theirs = SequenceNorm(6), nn.GroupNorm(1, 6)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(6))
        ours.bias.copy_(torch.randn(6))
    theirs.load_state_dict(ours.state_dict())
    x = 3 + torch.randn(5, 7, 6)
    torch.testing.assert_close(ours(x), theirs(x.transpose(1, 2)).transpose(1, 2))


def test_block_is_its_formula():
    block = ResidualBlock(8, 3, 2, embedding_width=4)
    h, embedding = torch.randn(2, 9, 8), torch.randn(2, 4)
    shifted = h + block.shift(embedding).unsqueeze(1)
    expected = h + nn.functional.silu(block.conv(block.norm(shifted)))
    torch.testing.assert_close(block(h, embedding), expected)


def test_one_time_for_all_rows_equals_a_time_a_row():
    net = DilatedConvNet(4, 3, width=8, kernel_size=5, dilations=(1, 4), time_scale=2.0)
    x = torch.rand(6, 11, 4)
    shared = net(x, torch.tensor([0.7]))
    assert shared.shape == (6, 11, 3)
    torch.testing.assert_close(shared, net(x, torch.full((6,), 0.7)))
    assert not torch.allclose(shared, net(x, torch.tensor([0.9])))


def test_rows_do_not_see_each_other():
    net = DilatedConvNet(4, 4, width=8, kernel_size=3, dilations=(1, 2), time_scale=1.0)
    x, t = torch.rand(3, 10, 4), torch.tensor([0.1, 0.5, 2.0])
    torch.testing.assert_close(net(x, t)[1:2], net(x[1:2], t[1:2]))
