"""Annealed sampling of the tilted law against its enumeration, and the chain that is fitted to it."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, MaskedDiffusion, SequenceSpace, SimplexDiffusion
from braidkit.exceptions import IncompatibleModelError
from braidkit.finetuning import TemperingSolver, rollout, sample_with_kl
from braidkit.finetuning.letter_population import LetterTarget
from braidkit.finetuning.population import next_beta
from braidkit.finetuning.solver_choice import as_solver
from braidkit.spaces import Limits
from tests.worlds import problem_on

LENGTH, LETTERS = 4, "ACGT"
WORDS = torch.tensor(list(itertools.product(range(4), repeat=LENGTH)))


def table_reward(seed=0):
    """A reward of words that no sum over letters is, as a function of relaxed letters with a gradient."""
    weights = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(seed))

    def reward(x):
        return torch.einsum("ni,nj,nk,ijk->n", x[:, 0], x[:, 2], x[:, 3], weights)

    return reward


def measured(n=400, seed=0):
    """Words in which C never follows A."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list(LETTERS), LENGTH, p=[0.4, 0.3, 0.2, 0.1])) for _ in range(4 * n)]
    return [word for word in words if "AC" not in word][:n]


@pytest.fixture(scope="module")
def chain():
    # Without a network the chain's law is the Markov law.
    return MaskedDiffusion(SequenceSpace("DNA", LENGTH), n_hidden=8).fit(
        measured(), max_iter=1, learning_rate=1e-9, random_state=0
    )


def tilted(chain, reward, beta):
    """The exact law of all words."""
    log_prob = chain.prior.log_prob(WORDS) + beta * reward(one_hot(WORDS, 4).float()).double()
    return log_prob.softmax(dim=0)


def frequencies(tokens):
    numbers = (tokens * 4 ** torch.arange(LENGTH - 1, -1, -1)).sum(dim=1)
    return torch.bincount(numbers, minlength=4**LENGTH).double() / len(tokens)


def distance(p, q):
    """Total variation."""
    return float((p - q).abs().sum() / 2)


@pytest.mark.theorem
@pytest.mark.parametrize("has_gradient", [True, False])
def test_moves_keep_the_tilted_law(chain, has_gradient):
    """Equation (7): draws of the exact law follow it still after Metropolis-Hastings moves."""
    reward = table_reward()
    target = LetterTarget(
        chain.prior, reward if has_gradient else lambda x: reward(x).detach(), torch.zeros(LENGTH, 4).double()
    )
    law, generator = tilted(chain, reward, 2.0), torch.Generator().manual_seed(0)
    start = WORDS[torch.multinomial(law, 20_000, replacement=True, generator=generator)]
    population = target.at(start)
    for _ in range(5):
        population = target.moved(population, 2.0, generator)
    assert float((population.state != start).any(dim=1).double().mean()) > 0.2
    assert distance(frequencies(population.state), law) < 2 * distance(frequencies(start), law) + 0.01


@pytest.mark.theorem
def test_tempering_ends_at_the_optimum(chain):
    """Equation (7): the population has the tilted law, and the chain is within a tenth of a nat of the optimum."""
    reward = table_reward()
    solver = TemperingSolver().setup(problem_on(chain, reward, alpha=0.5, batch_size=4000))
    for i in range(12):
        solver.update(i)
    law = tilted(chain, reward, 2.0)
    assert distance(frequencies(solver.population.state), law) < 0.09  # 4,000 exact draws are as far
    model = solver.problem.model
    drawn = model.prior.log_prob(WORDS).exp()
    assert distance(drawn, law) < 0.1
    values = reward(one_hot(WORDS, 4).float()).double()
    gap = float(torch.xlogy(drawn, drawn).sum() - torch.xlogy(drawn, law).sum())
    assert gap < 0.08
    assert float(drawn @ values) > float(chain.prior.log_prob(WORDS).exp() @ values) + 0.5
    # What the pretrained law makes impossible stays so.
    assert not drawn[chain.prior.log_prob(WORDS).isinf()].any()


def test_the_chain_samples_its_tilted_law(chain):
    solver = TemperingSolver().setup(problem_on(chain, table_reward(), alpha=0.5, batch_size=500))
    before = chain.prior.transitions.clone()
    for i in range(6):
        solver.update(i)
    assert torch.equal(chain.prior.transitions, before)
    model = solver.problem.model.freeze()
    drawn = model.sample_points(model.draw_noise(3000, torch.Generator().manual_seed(0)))
    tokens = drawn.argmax(dim=-1)
    assert distance(frequencies(tokens), model.prior.log_prob(WORDS).exp()) < 0.12


def test_alpha_is_raised_until_enough_designs_are_left(chain):
    reward = table_reward()
    problem = problem_on(chain, reward, alpha=0.01, batch_size=2000)
    solver = TemperingSolver(n_effective=40).setup(problem)
    for i in range(20):
        solver.update(i)
    law = tilted(chain, reward, 1 / solver.problem.alpha)
    n_left = math.exp(-float(torch.xlogy(law, law).sum()))
    assert 35 < n_left < 60
    assert solver.problem.alpha > 0.05
    free = TemperingSolver().setup(problem)
    for i in range(20):
        free.update(i)
    assert free.problem.alpha == 0.01


def test_alpha_is_raised_where_designs_would_be_rare():
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(["A", "T"], 40, p=[0.95, 0.05])) for _ in range(300)]
    chain = MaskedDiffusion(SequenceSpace("DNA", 40)).fit(X, max_iter=1, learning_rate=1e-9)
    problem = problem_on(chain, lambda x: x[..., 3].sum(dim=1), alpha=0.05, batch_size=200)
    solver = TemperingSolver(max_rarity=1.5).setup(problem)
    for i in range(15):
        solver.update(i)
    assert solver.problem.alpha > 0.3
    assert 1.0 < float(chain.rarity(one_hot(solver.population.state, 4)).mean()) < 1.7


def test_held_letters_stay(chain):
    held = chain.in_space(chain.space.with_template("G__T"))
    solver = TemperingSolver().setup(problem_on(held, table_reward(), alpha=0.2, batch_size=64))
    for i in range(4):
        solver.update(i)
    assert {(int(row[0]), int(row[3])) for row in solver.population.state} == {(2, 3)}


def test_a_resumed_solver_goes_on_as_it_would_have(chain):
    problem = problem_on(chain, table_reward(), alpha=0.1, batch_size=32)
    solver = TemperingSolver(n_effective=20).setup(problem)
    for i in range(3):
        solver.update(i)
    state = {name: tensor.clone() for name, tensor in solver.state_tensors().items()}
    expected = [solver.update(i) for i in range(3, 8)]
    again = TemperingSolver(n_effective=20).setup(problem_on(chain, table_reward(), alpha=0.1, batch_size=32))
    again.load_state_tensors(state)
    assert [again.update(i) for i in range(3, 8)] == expected


def test_the_next_tilt_leaves_half_of_the_weights_effective():
    reward = torch.linspace(0, 1, 1000).double()
    beta = next_beta(reward, 1.0, 100.0)
    weights = ((beta - 1.0) * reward).softmax(dim=0)
    assert float(1 / weights.square().sum()) / 1000 == pytest.approx(0.5, abs=0.01)
    assert next_beta(reward, 1.0, 1.1) == 1.1


def test_it_is_the_default_of_sequences(chain):
    X = measured(200)
    assert isinstance(as_solver("auto", chain), TemperingSolver)
    longer = [x + y for x, y in zip(X, X[1:] + X[:1], strict=True) if x + y][:150]
    longer = [x + "ACGT"[i % 4] * 2 for i, x in enumerate(longer)]  # 10 letters: too many designs to list
    y = np.array([x.count("G") for x in longer], dtype=float)
    settings = {"reward": GPBonusReward(torch.nn.Flatten()), "max_iter": 3, "batch_size": 32, "random_state": 0}
    finetuner = ConservativeDiffusionFinetuner(**settings).fit(longer, y)
    assert isinstance(finetuner.pretrained_, MaskedDiffusion)
    assert np.mean([x.count("G") for x in finetuner.sample(100, random_state=0)]) > y.mean()
    assert finetuner.alpha_ >= 0.02


def test_other_chains_are_refused():
    with pytest.raises(IncompatibleModelError, match='SimplexDiffusion without one needs solver="direct"'):
        TemperingSolver().check(SimplexDiffusion(SequenceSpace("DNA", 4)))
    with pytest.raises(IncompatibleModelError, match="trajectory_balance"):
        TemperingSolver().check(MaskedDiffusion(SequenceSpace("DNA", 4), prior=None))


@pytest.mark.theorem
def test_limits_are_kept_and_the_law_within_them_is_tilted():
    """Equation (7) among the sequences within two mutations of a parent that have no TT."""
    space = SequenceSpace("DNA", LENGTH, limits=Limits(parent="GATA", mutations=2, forbidden=["TT"]))
    chain = MaskedDiffusion(space, n_hidden=8).fit(measured(), max_iter=1, learning_rate=1e-9, random_state=0)
    reward = table_reward()
    solver = TemperingSolver().setup(problem_on(chain, reward, alpha=0.5, batch_size=3000))
    for i in range(12):
        solver.update(i)
    meets = space.automaton.meets(WORDS)
    assert chain.prior.log_prob(WORDS[meets]).isfinite().sum() > 20
    logits = chain.prior.log_prob(WORDS) + 2.0 * reward(one_hot(WORDS, 4).float()).double()
    law = logits.masked_fill(~meets, -torch.inf).softmax(dim=0)
    assert distance(frequencies(solver.population.state), law) < 0.1
    model = solver.problem.model.freeze()
    drawn = model.sample_points(model.draw_noise(500, torch.Generator().manual_seed(0))).argmax(dim=-1)
    assert space.automaton.meets(drawn).all()
    assert TemperingSolver().setup(problem_on(chain, reward)).problem.model.default_solver == "tempering"
    fixed = MaskedDiffusion(SequenceSpace("DNA", LENGTH, limits=Limits(parent="GATA", mutations=(2, 2))))
    assert fixed.default_solver == "trajectory_balance"


@pytest.mark.theorem
@pytest.mark.parametrize("template", [None, "G__T"])
def test_the_path_kl_of_markov_laws_is_that_of_their_probabilities(chain, template):
    """Equation (6): positions come in one and the same random order, so path KL and KL of designs are one."""
    pretrained = chain.in_space(chain.space.with_template(template))
    solver = TemperingSolver().setup(problem_on(pretrained, table_reward(), alpha=0.5, batch_size=500))
    for i in range(5):
        solver.update(i)
    model = solver.problem.model
    assert model.knows_law
    noise = model.draw_noise(6000, torch.Generator().manual_seed(0))
    direct, path = sample_with_kl(model, pretrained, noise), rollout(model, pretrained, noise)
    assert distance(frequencies(direct.point.argmax(dim=-1)), frequencies(path.point.argmax(dim=-1))) < 0.12
    assert float(direct.kl.mean()) == pytest.approx(float(path.kl.detach().mean()), abs=0.1)
    everything = one_hot(WORDS, 4).float()
    held = torch.ones(len(WORDS), dtype=bool) if template is None else (WORDS[:, 0] == 2) & (WORDS[:, 3] == 3)
    assert float(model.log_prob(everything[held]).exp().sum()) == pytest.approx(1.0)
