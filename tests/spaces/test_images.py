"""Images: pixels of 8 bits, with gradients."""

import json

import numpy as np
import pytest
import torch

from braidkit import ImageSpace
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.spaces import space_from_config


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


def test_held_pixels_are_written_and_have_no_gradient():
    template = [[0.0, None, 0.25], [None, None, 1.0]]
    space = ImageSpace(2, 3, 1, template=template)
    x = torch.zeros(2, 1, 2, 3, requires_grad=True)
    design = space.discretise(x)
    design.sum().backward()
    assert x.grad[0, 0].tolist() == [[0, 1, 0], [1, 1, 0]]
    assert design[0, 0, 0, 0] == -1 and design[0, 0, 1, 2] == 1
    decoded = space.decode(x, "float")
    assert decoded[0].tolist() == [[0, 0.5, 0.25], [0.5, 0.5, 1]] and space.n_free == 3
    assert (
        space.held == "3 of 6 pixels" and repr(space) == "ImageSpace(height=2, width=3, channels=1, 3 of 6 pixels held)"
    )
    assert space_from_config(json.loads(json.dumps(space.to_config()))) == space != ImageSpace(2, 3, 1)
    assert space.makes_same(ImageSpace(2, 3, 1)) and space.unrestricted() == ImageSpace(2, 3, 1)


def test_pixels_that_never_vary_are_held_by_channel_where_there_are_many_rows():
    images = np.random.default_rng(0).integers(0, 256, size=(1000, 4, 5, 3), dtype=np.uint8)
    images[:, 0, :, 1], images[:, :, 4, 2] = 0, 200
    space = ImageSpace(4, 5)
    held = space.holding_constants(space.points(images))
    assert held.held == "9 of 60 values of pixels, by channel," and held.n_free == 51
    designs = held.decode(torch.randn(20, 3, 4, 5))
    assert (designs[:, 0, :, 1] == 0).all() and (designs[:, :, 4, 2] == 200).all()
    assert len(np.unique(designs[:, 0, 0, 0])) > 1
    assert space.holding_constants(space.points(images[:999])) == space
    given = ImageSpace(4, 5, template=np.full((4, 5, 3), np.nan))
    assert given.holding_constants(given.points(images)) == given


@pytest.mark.parametrize("template", [[[0.5, None]], np.full((2, 2), 1.5), np.zeros((2, 2)), "0", [[None], [0, 1]]])
def test_templates_that_fit_no_image_are_refused(template):
    with pytest.raises(InvalidParameterError, match="template (must have shape|holds every pixel)"):
        ImageSpace(2, 2, 1, template=template)


def test_images_that_are_all_the_same_are_refused():
    space = ImageSpace(2, 2, 1)
    with pytest.raises(InvalidDesignError, match="all 3 rows of X are the same image"):
        space.holding_constants(space.points(np.zeros((3, 2, 2))))
