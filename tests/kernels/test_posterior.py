"""The posterior variance: Triton against plain torch, plain torch against the reward's posterior."""

import pytest
import torch

from braidkit.exceptions import InvalidParameterError
from braidkit.kernels import posterior_variance
from braidkit.kernels.posterior import posterior_variance_torch
from braidkit.rewards._linear_posterior import LinearPosterior


def inputs(n, d, device="cpu", n_rows=200):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n_rows, d, generator=generator)
    batches = [(rows, torch.zeros(n_rows))]
    posterior = LinearPosterior.from_batches(batches, n_features=d, lam=2.0)
    return posterior, [torch.randn(n, d, generator=generator).to(device), posterior.root.float().to(device)]


def test_twin_is_a_triangular_solve():
    posterior, (phi, root) = inputs(9, 21)
    lower = torch.linalg.cholesky(posterior.gram + 2.0 * torch.eye(21))
    solved = torch.linalg.solve_triangular(lower, phi.T.double(), upper=False)
    torch.testing.assert_close(posterior_variance(phi, root).double(), 2.0 * solved.square().sum(dim=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 5), (32, 64), (45, 70), (33, 129)])
def test_triton_equals_torch(triton_device, assert_equal_to_torch, n, d, dtype):
    _, (phi, root) = inputs(n, d, triton_device)
    # Only the features are narrow: the product is float32, and its gradient is rounded to their type once.
    rtol = 1e-5 if dtype == torch.float32 else 1e-2
    tensors = [phi.to(dtype), root]
    assert_equal_to_torch(posterior_variance, posterior_variance_torch, tensors, n_with_gradient=1, rtol=rtol)


def test_triton_reads_strided_tensors(triton_device, assert_equal_to_torch):
    _, (phi, root) = inputs(40, 40, triton_device)
    tensors = [phi.T, root]
    assert_equal_to_torch(posterior_variance, posterior_variance_torch, tensors, n_with_gradient=1, rtol=1e-5)


def test_float64_keeps_its_digits(triton_device):
    posterior, (phi, _) = inputs(4, 6)
    root = posterior.root.to(triton_device)
    variance = posterior_variance(phi.to(triton_device), root)
    assert variance.dtype == torch.float64
    expected = posterior_variance_torch(phi, posterior.root)
    torch.testing.assert_close(variance.cpu(), expected, rtol=1e-12, atol=0)


def test_posterior_variance_gradients_in_plain_torch():
    posterior, (phi, _) = inputs(3, 5)
    assert torch.autograd.gradcheck(lambda x: posterior_variance(x, posterior.root), phi.double().requires_grad_())


def test_no_rows(triton_device):
    phi = torch.zeros(0, 3, device=triton_device, requires_grad=True)
    variance = posterior_variance(phi, torch.eye(3, device=triton_device))
    assert variance.shape == (0,)
    variance.sum().backward()


def test_shapes_must_fit():
    with pytest.raises(InvalidParameterError, match=r"need a root \(d, d\); got shapes \(2, 3\) and \(2, 2\)"):
        posterior_variance(torch.ones(2, 3), torch.eye(2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_posterior_kernel_equals_plain_torch_on_cuda(assert_equal_to_torch):
    pytest.importorskip("triton")
    _, tensors = inputs(1000, 257, "cuda", n_rows=2000)
    assert_equal_to_torch(posterior_variance, posterior_variance_torch, tensors, n_with_gradient=1, rtol=1e-5)
