"""Tempering of vectors against closed forms, and designs that stay where vectors are possible."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor

from braidkit import ConservativeDiffusionFinetuner, GaussianDiffusion, VectorSpace
from braidkit.diffusion import MixtureLaw
from braidkit.finetuning import TemperingSolver
from braidkit.finetuning.vector_population import VectorTarget
from tests.worlds import problem_on


@pytest.fixture(scope="module")
def chain():
    X = np.random.default_rng(0).normal(size=(2000, 3))
    return GaussianDiffusion(VectorSpace(3)).fit(X, max_iter=1, learning_rate=1e-9, random_state=0)


def tilt(x):
    return x[:, 0] - 0.5 * x[:, 1].square()


@pytest.mark.theorem
def test_moves_of_vectors_keep_the_tilted_law():
    """Equation (7) of N(0, I) and a quadratic reward: N(2, 1) in one column, N(0, 1/3) in the other, by 2 x reward."""
    target, generator = (
        VectorTarget(MixtureLaw(1, 2).widened(3), tilt, VectorSpace(2)),
        torch.Generator().manual_seed(0),
    )
    exact = torch.randn(20_000, 2, generator=generator, dtype=torch.float64)
    start = exact * torch.tensor([1.0, 3**-0.5]) + torch.tensor([2.0, 0.0])
    population = target.at(start)
    for _ in range(10):
        population = target.moved(population, 2.0, generator)
    assert float((population.state != start).any(dim=1).double().mean()) > 0.9
    assert torch.allclose(population.state.mean(dim=0), torch.tensor([2.0, 0.0]).double(), atol=0.04)
    assert torch.allclose(population.state.var(dim=0), torch.tensor([1.0, 1 / 3]).double(), atol=0.04)


@pytest.mark.theorem
def test_tempering_of_vectors_ends_at_the_optimum_with_its_kl(chain):
    """Equation (7) of about N(0, I): mean 2 and variance 1, variance 1/3, nothing; KL 2 + (1/3 - 1 + log 3) / 2."""
    solver = TemperingSolver().setup(problem_on(chain, tilt, alpha=0.5, batch_size=4000))
    for i in range(12):
        solver.update(i)
    designs, kl = solver.own_designs()
    drawn = solver.problem.model.sample_points(solver.problem.model.draw_noise(4000, torch.Generator().manual_seed(0)))
    for x in (designs, drawn):
        assert torch.allclose(x.mean(dim=0), torch.tensor([2.0, 0.0, 0.0]), atol=0.2)
        assert torch.allclose(x.var(dim=0), torch.tensor([1.0, 1 / 3, 1.0]), atol=0.2)
    assert kl == pytest.approx(2 + (1 / 3 - 1 + np.log(3)) / 2, abs=0.2)


def on_a_simplex(n, seed=0):
    """Shares of five ingredients, below the best, and their quality."""
    rng = np.random.default_rng(seed)
    X = rng.dirichlet(np.ones(5), 3 * n)
    y = 12 * X[:, 0] * X[:, 1] + 2 * X[:, 2] - 3 * X[:, 3] * X[:, 4] - X[:, 0] ** 2
    low = np.flatnonzero(y <= np.quantile(y, 0.6))[:n]
    return X[low], y[low]


@pytest.fixture(scope="module")
def finetuner():
    X, y = on_a_simplex(300)
    return ConservativeDiffusionFinetuner(random_state=0).fit(X, y)


def test_designs_of_mixtures_keep_their_sum_and_their_range(finetuner):
    """A gradient in the columns alone leads off the simplex, and to negative shares."""
    X, _ = on_a_simplex(300)
    designs = finetuner.sample(200, random_state=0)
    assert np.abs(designs.sum(axis=1) - 1).mean() < 0.02
    assert (designs >= X.min(axis=0)).all() and (designs <= X.max(axis=0)).all()


def test_designs_of_vectors_are_better_than_the_rows(finetuner):
    _, y = on_a_simplex(300)
    X = finetuner.sample(200, random_state=0)
    truth = 12 * X[:, 0] * X[:, 1] + 2 * X[:, 2] - 3 * X[:, 3] * X[:, 4] - X[:, 0] ** 2
    assert truth.mean() > y.mean() + y.std()


def test_a_forest_without_gradient_is_tempered_as_any_reward():
    X, y = on_a_simplex(120)
    forest = RandomForestRegressor(20, random_state=0)
    finetuner = ConservativeDiffusionFinetuner(reward=forest, random_state=0, max_iter=10).fit(X, y)
    designs = finetuner.sample(100, random_state=0)
    assert finetuner.reward_.predict(designs).mean() > y.mean()


def test_bounds_of_the_users_replace_those_of_the_data():
    X, y = on_a_simplex(120)
    loose = VectorSpace.from_data(X)
    space = VectorSpace(5, loose.loc, loose.scale, bounds=([0.1, None, 0, 0, 0], [0.4, 1, 1, 1, None]))
    designs = ConservativeDiffusionFinetuner(space=space, random_state=0, max_iter=10).fit(X, y).sample(50, 0)
    assert designs[:, 0].min() >= 0.1 and designs[:, 0].max() <= 0.4
