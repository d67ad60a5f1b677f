"""The mixture of normal laws against Bayes' rule, and the chain of vectors over it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braidkit import GaussianDiffusion, VectorSpace
from braidkit.diffusion import DiffusionModel, MixtureLaw
from braidkit.exceptions import InvalidDesignError


def two_clusters(n=400, seed=0):
    """Points on two lines in the plane."""
    rng = np.random.default_rng(seed)
    along = rng.normal(size=(n, 1))
    line = np.where(rng.random((n, 1)) < 0.3, 1, -1)
    return np.hstack([along + 3 * line, line * along]) + 0.05 * rng.normal(size=(n, 2))


@pytest.fixture(scope="module")
def law():
    return MixtureLaw.fit(two_clusters())[0]


@pytest.fixture(scope="module")
def chain():
    X = two_clusters()
    return GaussianDiffusion(VectorSpace.from_data(X)).fit(X, random_state=0)


@pytest.mark.theorem
@pytest.mark.parametrize("angle", [0.1, 0.8, 1.5])
def test_prediction_is_the_expected_vector_by_bayes_rule(law, angle):
    """E[x | cos x + sin noise], by weighting many draws of the law with the density of the noise."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(400_000, generator=generator, dtype=torch.float64)
    x = law.sample(uniform, torch.randn(400_000, 2, generator=generator, dtype=torch.float64))
    x_t = math.cos(angle) * x[:20] + math.sin(angle) * torch.randn(20, 2, generator=generator, dtype=torch.float64)
    distance = (x_t[:, None] - math.cos(angle) * x).square().sum(dim=2)
    weights = (-0.5 * distance / math.sin(angle) ** 2).softmax(dim=1)
    assert torch.allclose(law.prediction(x_t, math.cos(angle), math.sin(angle)), weights @ x, atol=0.06)


def test_density_integrates_to_one_and_draws_follow_it(law):
    grid = torch.cartesian_prod(*[torch.linspace(-9, 9, 1201, dtype=torch.float64)] * 2)
    density = law.log_prob(grid).exp()
    assert float(density.sum() * (18 / 1200) ** 2) == pytest.approx(1.0, abs=0.01)
    mean, deviation = law.log_prob_moments()
    entropy = -float((density * density.clamp(min=1e-300).log()).sum() * (18 / 1200) ** 2)
    assert mean == pytest.approx(-entropy, abs=0.1) and deviation > 0


def test_held_out_rows_choose_two_correlated_components(law):
    """A cross of two lines: one normal law is far worse, and so are columns that are not correlated."""
    _, by_number = MixtureLaw.fit(two_clusters())
    assert by_number[2] < by_number[1] - 1
    assert len(law.weights) in (2, 4) and len(law.axes)


@given(st.integers(1, 20))
def test_a_widened_law_is_the_same_law(n_components):
    law = MixtureLaw.fit(two_clusters(60))[0]
    wide, x = law.widened(n_components), torch.randn(10, 2, dtype=torch.float64)
    assert len(wide.weights) >= n_components
    assert torch.allclose(wide.log_prob(x), law.log_prob(x))


def test_components_that_are_alike_part_where_the_data_have_two_clusters():
    law = MixtureLaw(1, 2).widened(2)
    law.fitted_again(torch.from_numpy(two_clusters(1000)))
    fresh = torch.from_numpy(two_clusters(500, seed=1))
    assert float(law.log_prob(fresh).mean()) > float(MixtureLaw(1, 2).log_prob(fresh).mean()) + 1
    assert float((law.means[0] - law.means[1]).norm()) > 1


@pytest.mark.parametrize("rows", [np.ones((1, 3)), np.ones((5, 3)), np.random.default_rng(0).normal(size=(3, 200))])
def test_few_rows_or_equal_ones_make_a_law(rows):
    law, _ = MixtureLaw.fit(rows)
    assert torch.isfinite(law.log_prob(torch.from_numpy(rows))).all()


@pytest.mark.parametrize("rows", [np.zeros((0, 2)), np.zeros(3), np.array([[1.0, np.nan]])])
def test_a_mixture_of_no_rows_or_of_missing_numbers_is_refused(rows):
    with pytest.raises(InvalidDesignError, match="finite numbers of shape"):
        MixtureLaw.fit(rows)


@pytest.mark.theorem
def test_the_chain_walks_to_the_law_that_it_draws_from(chain):
    """Step by step from noise, and at once from the mixture, the designs are alike."""
    noise = chain.draw_noise(2000, torch.Generator().manual_seed(0))
    at_once, by_steps = chain.sample_points(noise), super(GaussianDiffusion, chain).sample_points(noise)
    assert chain.knows_law
    assert torch.allclose(at_once.mean(dim=0), by_steps.mean(dim=0), atol=0.1)
    assert torch.allclose(torch.cov(at_once.T), torch.cov(by_steps.T), atol=0.1)


def test_draws_lie_on_the_lines_of_the_data(chain):
    """A network of few rows blurs them."""
    X = chain.sample(1000, random_state=0)
    assert np.minimum(abs(X[:, 0] - 3 - X[:, 1]), abs(X[:, 0] + 3 + X[:, 1])).mean() < 0.15


def test_a_network_stays_zero_where_it_does_not_help_and_learns_what_the_law_misses():
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, size=4000)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    space = VectorSpace.from_data(ring)
    assert GaussianDiffusion(space).fit(ring[:80], max_iter=50, random_state=0).knows_law
    normal = np.random.default_rng(0).normal(size=(1000, 2))
    assert GaussianDiffusion(VectorSpace.from_data(normal)).fit(normal, random_state=0).knows_law


def test_rarity_is_larger_off_the_lines(chain):
    on = torch.from_numpy((two_clusters(200, seed=1) - chain.space.loc) / chain.space.scale).float()
    assert abs(float(chain.rarity(on).mean())) < 0.5
    assert float(chain.rarity(torch.tensor([[0.0, 3.0]]))) > 3


def test_a_saved_chain_of_vectors_comes_back_with_its_law(chain, tmp_path):
    chain.save_pretrained(tmp_path / "chain")
    loaded = DiffusionModel.from_pretrained(tmp_path / "chain")
    assert np.array_equal(loaded.sample(5, random_state=0), chain.sample(5, random_state=0))
    assert loaded.knows_law and loaded.default_solver == "tempering"


def test_without_a_law_the_network_is_the_chain():
    X = two_clusters(100)
    chain = GaussianDiffusion(VectorSpace.from_data(X), prior=None).fit(X, max_iter=5, random_state=0)
    assert chain.default_solver == "direct" and not chain.knows_law


def test_draws_within_bounds_keep_the_sum_of_the_data():
    """Draws outside of the measured range are drawn again: a clipped share would break the sum of all shares."""
    X = np.random.default_rng(0).dirichlet([3.0, 2.0, 2.0, 1.0, 1.0], size=300)
    chain = GaussianDiffusion(VectorSpace.from_data(X)).fit(X, random_state=0)
    assert chain.knows_law
    raw = chain.prior.sample(torch.rand(1000, dtype=torch.float64), torch.randn(1000, 5, dtype=torch.float64))
    assert (chain.space.squared_excess(raw) > 0).double().mean() > 0.1
    designs = chain.sample(1000, random_state=0)
    assert (designs >= X.min(axis=0) - 1e-6).all() and (designs <= X.max(axis=0) + 1e-6).all()
    assert (np.abs(designs.sum(axis=1) - 1) < 0.02).mean() > 0.99
