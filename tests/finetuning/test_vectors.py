"""Tempering of vectors against closed forms, and designs that stay where vectors are possible."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor

from braidkit import ConservativeDiffusionFinetuner, GaussianDiffusion, GPBonusReward, VectorSpace
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
    return ConservativeDiffusionFinetuner(reward=GPBonusReward(max_iter=50), random_state=0).fit(X, y)


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


def test_the_reward_is_asked_about_rounded_designs_of_the_population():
    """Without rounding the best is 2.5, which no design can have; with it, 2 and 3 are alike."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 6, 400), rng.normal(size=400)])
    chain = GaussianDiffusion(VectorSpace.from_data(X)).fit(X, random_state=0)
    asked = []

    def between(x):
        asked.append(x)
        return -(chain.space.loc[0] + chain.space.scale[0] * x[:, 0] - 2.5).square()

    reward = problem_on(chain, between).reward
    solver = TemperingSolver().setup(problem_on(chain, lambda x: reward(chain.space.discretise(x)), alpha=0.3))
    for i in range(6):
        solver.update(i)
    designs, _ = solver.own_designs()
    for x in [designs, *asked]:
        numbers = chain.space.decode(x)[:, 0]
        np.testing.assert_allclose(chain.space.encode(chain.space.decode(x))[:, 0], x[:, 0], atol=1e-5)
        assert set(numbers) <= {0, 1, 2, 3, 4, 5}
    found = np.bincount(chain.space.decode(designs)[:, 0].astype(int), minlength=6) / len(designs)
    assert found[2] + found[3] > 0.95 and min(found[2], found[3]) > 0.2


def test_whole_numbers_move_from_one_to_another():
    """A density with a spike at each number would hold every vector at the number where it began."""
    X = np.column_stack([np.repeat([0.0, 1.0], 200), np.random.default_rng(0).normal(size=400)])
    chain = GaussianDiffusion(VectorSpace.from_data(X)).fit(X, random_state=0)
    target = VectorTarget.of_chain(chain, lambda x: torch.zeros(len(x)))
    population = target.draw(chain, 500, torch.Generator().manual_seed(0))
    first = chain.space.decode(target.points(population.state))[:, 0]
    for seed in range(16):
        population = target.moved(population, 0.0, torch.Generator().manual_seed(seed))
    last = chain.space.decode(target.points(population.state))[:, 0]
    assert 0.4 < last.mean() < 0.6 and (first != last).mean() > 0.05


def test_designs_that_are_not_tilted_yet_are_not_judged(finetuner):
    """They follow the pretrained law, and luck alone would now and then reject them, and all that come after."""
    assert finetuner.history_["iteration"][:2] == [0, 2] and finetuner.history_["kl"][1] > 0
