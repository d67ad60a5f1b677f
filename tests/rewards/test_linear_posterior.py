import gpytorch
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.exceptions import InvalidParameterError
from braidkit.rewards._linear_posterior import LinearPosterior


def draw(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    phi = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.randn(n, generator=generator, dtype=torch.float64)
    return phi, y, torch.randn(7, d, generator=generator, dtype=torch.float64)


def solved(phi, y, lam):
    return LinearPosterior.from_batches([(phi, y)], n_features=phi.shape[1], lam=lam)


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 12), st.floats(1e-3, 1e2), st.integers(0, 1000))
def test_equals_the_n_by_n_form_of_example_1(n, d, lam, seed):
    phi, y, query = draw(n, d, seed)
    posterior = solved(phi, y, lam)
    gram = phi @ phi.T + lam * torch.eye(n, dtype=torch.float64)
    cross = phi @ query.T  # k(x) of Example 1, (n, 7)
    mean = y @ torch.linalg.solve(gram, cross)
    variance = query.square().sum(dim=1) - (cross * torch.linalg.solve(gram, cross)).sum(dim=0)
    torch.testing.assert_close(posterior.mean(query), mean, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(posterior.variance(query), variance, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("lam", [1e-3, 0.1, 10.0])
def test_equals_gpytorch_exact_gp_with_a_linear_kernel(exact_gp, lam):
    phi, y, query = draw(60, 5)
    kernel = gpytorch.kernels.LinearKernel()
    kernel.variance = 1.0
    mean, std = exact_gp(kernel, phi, y, query, lam)
    posterior = solved(phi, y, lam)
    np.testing.assert_allclose(posterior.mean(query), mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(posterior.variance(query).sqrt(), std, rtol=0, atol=1e-6)


def test_batches_of_any_size_and_type_give_the_same_posterior():
    phi, y, query = draw(50, 4)
    phi = phi.float().double()  # so that float32 batches hold the same numbers
    whole = solved(phi, y, 0.1)
    parts = ((phi[i : i + 7].float(), y[i : i + 7]) for i in range(0, 50, 7))
    streamed = LinearPosterior.from_batches(parts, n_features=4, lam=0.1)
    torch.testing.assert_close(streamed.mean(query), whole.mean(query), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(streamed.variance(query), whole.variance(query), rtol=1e-12, atol=1e-12)


def test_without_data_it_is_the_prior():
    posterior = LinearPosterior.from_batches([], n_features=3, lam=0.5)
    query = torch.tensor([[1.0, 2.0, 2.0]])
    assert posterior.mean(query).item() == 0.0
    assert posterior.variance(query).item() == pytest.approx(9.0)


def test_gradients_match_finite_differences():
    phi, y, query = draw(20, 3)
    posterior = solved(phi, y, 0.3)
    query.requires_grad_()
    assert torch.autograd.gradcheck(posterior.mean, query)
    assert torch.autograd.gradcheck(posterior.variance, query)


def test_a_lam_lost_in_rounding_is_refused():
    phi = torch.ones(3, 2, dtype=torch.float64) * 1e8
    with pytest.raises(InvalidParameterError, match=r"lam = 1e-12 is lost .* pass a larger lam"):
        solved(phi, torch.zeros(3), 1e-12)


def test_state_survives_pickling_and_moving_as_a_state_dict():
    phi, y, query = draw(10, 3)
    posterior = solved(phi, y, 0.3)
    other = LinearPosterior(3, 0.3)
    other.load_state_dict(posterior.state_dict())
    assert torch.equal(other.mean(query), posterior.mean(query))
    assert torch.equal(other.variance(query), posterior.variance(query))
