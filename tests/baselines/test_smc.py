"""Sequential Monte Carlo against exact tilted laws."""

import math

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline

from braidkit import GPBonusReward, SequenceEncoder, SequenceSpace, TabularDiffusion
from braidkit.baselines import SMCSampler, twisted_smc
from braidkit.baselines.smc import effective_share, systematic
from braidkit.exceptions import InvalidParameterError
from braidkit.theory import tilted
from tests.worlds import normal_chain

ALPHA = 0.4


@pytest.fixture(scope="module")
def world():
    """A tabular chain on dinucleotides, its reward, and its exact law of x_0."""
    generator = np.random.default_rng(0)
    X = ["".join(generator.choice(list("ACGT"), 2, p=[0.4, 0.3, 0.2, 0.1])) for _ in range(300)]
    chain = TabularDiffusion(SequenceSpace("DNA", 2), n_steps=5).fit(X)
    table = torch.tensor([[0.0, 0.5, 1.0, 2.0], [0.0, 1.0, 0.0, 1.0]])
    law = torch.full((16,), 1 / 16, dtype=torch.float64)
    for log_policy in reversed(chain.log_policies()):
        law = law @ log_policy.exp()
    return chain, lambda point: (point * table).sum(dim=(1, 2)), law.log()


@pytest.mark.theorem
@pytest.mark.parametrize("twist", [True, False])
def test_the_weighted_designs_follow_the_tilted_law(world, twist):
    """Equation (5), and log C of its normalisation."""
    chain, reward, log_law = world
    rewards = reward(chain.designs).double()
    expected = tilted(log_law, rewards, ALPHA).exp()
    particles = twisted_smc(chain, reward, ALPHA, 20_000, torch.Generator().manual_seed(0), twist=twist)
    number = (particles.points.argmax(dim=2) * torch.tensor([4, 1])).sum(dim=1)
    law = torch.zeros(16, dtype=torch.float64).index_add(0, number, particles.log_weights.exp())
    assert float((law - expected).abs().sum() / 2) < 0.06
    assert particles.log_z == pytest.approx(float((log_law + rewards / ALPHA).logsumexp(dim=0)), abs=0.12)


def test_the_twist_keeps_more_particles_alive(world):
    chain, reward, _ = world
    shares = [
        twisted_smc(chain, reward, 0.2, 2000, torch.Generator().manual_seed(0), twist=twist).ess[0]
        for twist in (True, False)
    ]
    assert shares[0] > 2 * shares[1]


@pytest.mark.theorem
def test_the_estimate_of_c_is_unbiased():
    """Many small populations on N(0, 1) designs with r = x: C = exp(1 / (2 alpha^2))."""
    chain, generator = normal_chain(n_steps=4), torch.Generator().manual_seed(0)
    estimates = [math.exp(twisted_smc(chain, lambda x: x[:, 0], 1.0, 16, generator).log_z) for _ in range(600)]
    error = np.std(estimates) / len(estimates) ** 0.5
    assert np.mean(estimates) == pytest.approx(math.exp(0.5), abs=4 * error) and error < 0.03


def test_systematic_rows_follow_the_weights():
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2])
    rows = systematic(weights.log(), 10, torch.Generator().manual_seed(0))
    assert torch.bincount(rows, minlength=4).tolist() == [5, 0, 3, 2]
    assert effective_share(torch.zeros(7)) == pytest.approx(1.0)
    assert effective_share(torch.tensor([0.0, -1e9, -1e9, -1e9])) == pytest.approx(0.25)


def test_the_sampler_gives_better_designs_than_the_data_from_any_regressor():
    generator = np.random.default_rng(0)
    X = ["".join(row) for row in generator.choice(list("ACGT"), (300, 6))]
    y = np.array([row.count("G") for row in X], dtype=float)
    reward = make_pipeline(SequenceEncoder(), RandomForestRegressor(20, random_state=0))
    sampler = SMCSampler(alpha=0.3, reward=reward, n_particles=200, random_state=0).fit(X, y)
    designs = sampler.sample(50, random_state=1)
    assert designs == sampler.sample(50, random_state=1) and len(designs) == 50
    assert np.mean([row.count("G") for row in designs]) > y.mean() + 1
    assert sampler.ess_.shape == (sampler.pretrained_.n_steps + 1,) and sampler.log_z_ > 0
    assert sampler.score(X[:55], y[:55]) > y.mean() + 0.5


def test_bad_parameters_are_told_before_any_work():
    with pytest.raises(InvalidParameterError, match="n_particles must be a whole number of at least 2"):
        SMCSampler(n_particles=1).fit([[0.0], [1.0]], [0.0, 1.0])
    sampler = SMCSampler(n_particles=8, random_state=0).fit(np.eye(3), [0.0, 1.0, 2.0])
    with pytest.raises(InvalidParameterError, match="n_samples must be a whole number of at least 1"):
        sampler.sample(0)


@pytest.mark.theorem
def test_alpha_auto_is_the_smallest_that_keeps_half_of_the_particles(world):
    """The weighted designs follow the tilted law of the alpha that was found."""
    chain, reward, log_law = world
    particles = twisted_smc(chain, reward, "auto", 20_000, torch.Generator().manual_seed(0))
    assert particles.alpha > 0.02 and particles.ess.min() > 0.45
    expected = tilted(log_law, reward(chain.designs).double(), particles.alpha).exp()
    number = (particles.points.argmax(dim=2) * torch.tensor([4, 1])).sum(dim=1)
    law = torch.zeros(16, dtype=torch.float64).index_add(0, number, particles.log_weights.exp())
    assert float((law - expected).abs().sum() / 2) < 0.06
    lower = twisted_smc(chain, reward, particles.alpha / 2, 20_000, torch.Generator().manual_seed(0))
    assert lower.ess.min() < 0.4


def test_alpha_auto_is_the_least_one_where_the_reward_says_nothing(world):
    chain, *_ = world
    particles = twisted_smc(chain, lambda point: point.sum(dim=(1, 2)), "auto", 50, torch.Generator().manual_seed(0))
    assert particles.alpha == pytest.approx(0.02) and particles.ess.min() == pytest.approx(1.0)


def test_few_particles_stay_different_with_alpha_auto():
    rng = np.random.default_rng(0)
    X = ["".join(row) for row in rng.choice(list("ACGT"), (200, 8))]
    y = np.array([float(row.count("G")) for row in X])
    different, alphas = {}, {}
    for alpha in (0.02, "auto"):
        reward = GPBonusReward(torch.nn.Flatten())
        sampler = SMCSampler(alpha=alpha, reward=reward, n_particles=64, random_state=0).fit(X, y)
        different[alpha], alphas[alpha] = len(set(sampler.sample(64, random_state=0))), sampler.alpha_
    assert different["auto"] > 1.5 * different[0.02]
    assert alphas[0.02] == 0.02 < alphas["auto"]
