"""Images: pixels of 8 bits, with gradients."""

import numpy as np
import torch

from braidkit import ImageSpace


def test_designs_are_rounded_to_8_bits_with_a_gradient():
    space = ImageSpace(4, 4, 1)
    x = (3 * torch.randn(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
    design = space.discretise(x)
    assert float(design.detach().abs().max()) <= 1
    assert np.array_equal(space.encode(space.decode(design)).numpy(), design.detach().numpy())
    assert torch.equal(space.discretise(design), design)
    (gradient,) = torch.autograd.grad(design.sum(), x)
    assert torch.equal(gradient, (x.abs() <= 1).float())
    assert float((design - x.clamp(-1, 1)).detach().abs().max()) <= 1 / 255 + 1e-6
