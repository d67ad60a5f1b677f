"""The normal step: Triton against plain torch, plain torch against the policies of the chains."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.diffusion._policies import Gaussian
from braidkit.exceptions import InvalidParameterError
from braidkit.kernels import gaussian_step
from braidkit.kernels.gaussian import gaussian_step_torch

ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def inputs(shape, shared, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    mean, reference, log_std, noise = torch.randn(4, *shape, generator=generator).to(device)
    std = torch.tensor(0.7, device=device) if shared else (0.3 * log_std).exp()
    return [x.to(dtype) for x in (mean, reference, std, noise)]


@pytest.mark.parametrize("shared", [True, False])
def test_twin_is_the_policies_step(shared):
    mean, reference, std, noise = inputs((3, 5, 7), shared)
    x, kl = gaussian_step(mean, reference, std, noise)
    assert torch.equal(x, Gaussian(mean, std).rsample(noise))
    assert torch.equal(kl, Gaussian(mean, std).kl(Gaussian(reference, std)))


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (7,), (3, 5, 7), (4, 1024), (2, 3, 500)])
def test_triton_equals_torch(triton_device, assert_equal_to_torch, shape, shared, dtype):
    tensors = inputs(shape, shared, dtype, triton_device)
    assert_equal_to_torch(gaussian_step, gaussian_step_torch, tensors, n_with_gradient=3, rtol=ROUNDING[dtype])


def test_triton_reads_strided_tensors(triton_device, assert_equal_to_torch):
    mean, reference, std, noise = (x.transpose(1, 2) for x in inputs((3, 5, 7), False, device=triton_device))
    tensors = [mean, reference, std[:, :1].expand_as(mean), noise]
    assert_equal_to_torch(gaussian_step, gaussian_step_torch, tensors, n_with_gradient=3, rtol=1e-5)


def test_mixed_types_are_promoted_alike(triton_device, assert_equal_to_torch):
    mean, reference, std, noise = inputs((3, 50), True, device=triton_device)
    tensors = [mean.bfloat16(), reference.bfloat16(), std, noise]
    assert_equal_to_torch(gaussian_step, gaussian_step_torch, tensors, n_with_gradient=3, rtol=2e-2)


@pytest.mark.parametrize("shared", [True, False])
def test_gaussian_step_gradients_in_plain_torch(shared):
    mean, reference, std, noise = inputs((2, 3, 2), shared, torch.float64)
    leaves = [x.requires_grad_() for x in (mean, reference, std)]
    assert torch.autograd.gradcheck(lambda *x: gaussian_step(*x, noise), leaves)


@settings(max_examples=20)
@given(n=st.integers(0, 5), width=st.integers(1, 40), shift=st.floats(-3, 3), std=st.floats(0.01, 10))
def test_kl_of_a_shift(n, width, shift, std):
    mean = torch.zeros(n, width)
    _, kl = gaussian_step(mean + shift, mean, torch.tensor(std), mean)
    torch.testing.assert_close(kl, torch.full((n,), width * shift**2 / (2 * std**2)), rtol=1e-5, atol=1e-12)


def test_no_rows(triton_device):
    empty = torch.zeros(0, 4, device=triton_device, requires_grad=True)
    x, kl = gaussian_step(empty, empty, torch.tensor(1.0, device=triton_device), empty)
    assert x.shape == (0, 4)
    assert kl.shape == (0,)
    (x.sum() + kl.sum()).backward()


def test_noise_takes_no_gradient(triton_device):
    mean, reference, std, noise = inputs((3, 4), True, device=triton_device)
    for function in (gaussian_step, gaussian_step_torch):
        leaves = mean.clone().requires_grad_(), noise.clone().requires_grad_()
        function(leaves[0], reference, std, leaves[1])[0].sum().backward()
        assert leaves[0].grad is not None
        assert leaves[1].grad is None


def test_shapes_must_fit():
    with pytest.raises(InvalidParameterError, match=r"one shape, or std none; got \(2, 3\), \(2, 3\), \(2, 3\)"):
        gaussian_step(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 1), torch.ones(2, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", ROUNDING)
def test_gaussian_kernel_equals_plain_torch_on_cuda(assert_equal_to_torch, dtype):
    pytest.importorskip("triton")
    tensors = inputs((64, 3, 64, 65), False, dtype, "cuda")
    assert_equal_to_torch(gaussian_step, gaussian_step_torch, tensors, n_with_gradient=3, rtol=ROUNDING[dtype])
