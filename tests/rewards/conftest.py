"""Small data that the tests of rewards share."""

from collections.abc import Callable

import gpytorch
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from braidkit.rewards import BootstrapReward, GPBonusReward


@pytest.fixture(scope="session")
def sequences() -> tuple[list[str], np.ndarray]:
    """300 DNA sequences of 12 letters; y counts G, and A at the first position, with a little noise."""
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), size=(300, 12))]
    y = np.array([row.count("G") + 2.0 * (row[0] == "A") for row in X]) + 0.1 * rng.normal(size=300)
    return X, y


@pytest.fixture(scope="session")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    """200 vectors of 3 entries, of different scales; y is not linear in them."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 3)) * [1.0, 10.0, 0.1] + [0.0, 5.0, 0.0]
    y = X[:, 0] + np.sin(X[:, 1] / 5) + 0.1 * rng.normal(size=200)
    return X, y


@pytest.fixture(params=[GPBonusReward, BootstrapReward], ids=lambda kind: kind.__name__)
def reward(request: pytest.FixtureRequest) -> BaseEstimator:
    """Each reward, of few updates."""
    return request.param(max_iter=60, random_state=0)


@pytest.fixture(scope="session", params=[GPBonusReward, BootstrapReward], ids=lambda kind: kind.__name__)
def fitted(request: pytest.FixtureRequest, sequences: tuple[list[str], np.ndarray]) -> BaseEstimator:
    """Each reward, fitted on the sequences; tests leave it as it is."""
    return request.param(max_iter=60, random_state=0).fit(*sequences)


@pytest.fixture
def exact_gp() -> Callable:
    """Posterior mean and deviation of the noiseless function at points, by gpytorch's ExactGP in float64."""

    def posterior(kernel, x, y, query, lam):
        likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.Positive())
        model = _ExactGP(kernel, x, y, likelihood).double().eval()
        likelihood.noise = lam
        with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
            at_query = model(query)
            return at_query.mean.numpy(), at_query.variance.sqrt().numpy()

    return posterior


class _ExactGP(gpytorch.models.ExactGP):
    def __init__(self, kernel, x, y, likelihood):
        super().__init__(x, y, likelihood)
        self.mean_module, self.kernel = gpytorch.means.ZeroMean(), kernel

    def forward(self, x):
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.kernel(x))
