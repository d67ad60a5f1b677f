import gpytorch
import numpy as np
import pytest
import torch

from braidkit.rewards._inducing import InducingFeatures, fit_kernel, greedy_cholesky
from braidkit.rewards._linear_posterior import LinearPosterior


def rbf(lengthscale=1.0):
    kernel = gpytorch.kernels.RBFKernel().double()
    kernel.lengthscale = lengthscale
    return kernel.requires_grad_(False)


def points(n, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_greedy_cholesky_factors_the_kernel_of_the_points_it_chose():
    x = points(40)
    chosen, factor = greedy_cholesky(rbf(), x, 15)
    assert len(set(chosen.tolist())) == 15
    torch.testing.assert_close(factor @ factor.T, rbf()(x[chosen]).to_dense(), rtol=1e-10, atol=1e-10)


def test_greedy_cholesky_stops_when_all_is_explained():
    x = points(5).repeat(4, 1)  # five points, each four times
    chosen, factor = greedy_cholesky(rbf(0.3), x, 20)
    assert len(chosen) == 5
    assert sorted((chosen % 5).tolist()) == [0, 1, 2, 3, 4]


def test_each_point_is_the_one_that_was_explained_worst():
    x = points(30)
    chosen, _ = greedy_cholesky(rbf(), x, 8)
    for j in range(1, 8):
        before = x[chosen[:j]]
        cross = rbf()(x, before).to_dense()
        explained = (cross * torch.linalg.solve(rbf()(before).to_dense(), cross.T).T).sum(dim=1)
        assert (1 - explained).argmax() == chosen[j]


@pytest.mark.parametrize("kernel", [rbf(0.7), gpytorch.kernels.MaternKernel(nu=1.5).double().requires_grad_(False)])
def test_with_all_points_inducing_the_posterior_is_exact(exact_gp, kernel):
    x, query = points(30), points(9, seed=1) * 2
    y = x.sum(dim=1).sin()
    features = InducingFeatures(kernel, x, n_inducing=30)
    posterior = LinearPosterior.from_batches([(features(x)[0], y)], n_features=len(features.points), lam=0.05)
    phi, residual = features(query)
    mean, std = exact_gp(kernel, x, y, query, 0.05)
    np.testing.assert_allclose(posterior.mean(phi), mean, atol=1e-6)
    np.testing.assert_allclose((posterior.variance(phi) + residual).sqrt(), std, atol=1e-5)


def test_far_from_the_data_the_variance_is_the_prior_s():
    x = points(200)
    features = InducingFeatures(rbf(), x, n_inducing=10)
    posterior = LinearPosterior.from_batches([(features(x)[0], x[:, 0])], n_features=10, lam=0.1)
    phi, residual = features(torch.full((1, 2), 50.0, dtype=torch.float64))
    assert posterior.variance(phi).item() == pytest.approx(0.0, abs=1e-12)  # what is lost without the residual
    assert (posterior.variance(phi) + residual).item() == pytest.approx(1.0)


def test_residual_and_features_have_gradients():
    features = InducingFeatures(rbf(), points(20), n_inducing=6)
    query = points(4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(features, query)


def test_fitting_raises_the_marginal_likelihood_and_leaves_frozen_parameters():
    x = points(60)
    y = (x[:, 0] * 0.5).sin()
    y = (y - y.mean()) / y.std()
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel()).double()
    kernel.raw_outputscale.requires_grad_(False)
    before = log_marginal_likelihood(kernel, x, y, 0.1)
    scale = kernel.outputscale.item()
    fit_kernel(kernel, x, y, 0.1)
    assert log_marginal_likelihood(kernel, x, y, 0.1) > before + 1.0
    assert kernel.outputscale.item() == scale


def log_marginal_likelihood(kernel, x, y, lam):
    covariance = kernel(x).to_dense().detach() + lam * torch.eye(len(x), dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance)
    return normal.log_prob(y).item()
