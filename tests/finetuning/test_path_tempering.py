"""Annealed sampling of a masked chain's paths, against the enumeration of all paths, and the chain that learns."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import one_hot

from braidkit import ConservativeDiffusionFinetuner, MaskedDiffusion, SequenceSpace
from braidkit.exceptions import IncompatibleModelError
from braidkit.finetuning import PathTemperingSolver
from braidkit.finetuning.path_population import PathTarget
from braidkit.finetuning.solver_choice import as_solver
from tests.language_models import tiny_bert
from tests.worlds import problem_on

LENGTH, N_LETTERS = 4, 3
WORDS = torch.tensor(list(itertools.product(range(N_LETTERS), repeat=LENGTH)))
# Which step, from x_t to x_{t-1}, reveals each position: two positions a step.
ORDERS = torch.tensor(sorted(set(itertools.permutations([1, 1, 2, 2]))))
BETA = 2.0


def reward(x):
    """No sum over letters, with a gradient in relaxed ones."""
    weights = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(1))
    return torch.einsum("ni,nj,nk,ijk->n", x[:, 0], x[:, 2], x[:, 3], weights)


@pytest.fixture(scope="module")
def chain():
    """A network of random weights, whose conditional laws belong to no common law."""
    space = SequenceSpace(alphabet="ACG", length=LENGTH)
    words = ["".join("ACG"[i] for i in word) for word in WORDS.tolist()]
    chain = MaskedDiffusion(space, n_steps=2, n_hidden=64, prior=None).fit(words, max_iter=1, random_state=0)
    generator = torch.Generator().manual_seed(0)
    for value in chain.trainable.parameters():
        value.data = torch.randn(value.shape, generator=generator) * 0.2
    return chain


@pytest.fixture(scope="module")
def paths(chain):
    """All paths (n, 2, length), their log-probabilities and their rewards, in float64."""
    states = torch.stack([WORDS.repeat(len(ORDERS), 1), ORDERS.repeat_interleave(len(WORDS), dim=0)], dim=1)
    log_prob = torch.full((len(states),), -math.log(len(ORDERS)), dtype=torch.float64)
    letters = one_hot(states[:, 0], N_LETTERS).float()
    for t in (1, 2):
        logs = chain.letter_log_probs(letters * (states[:, 1] > t)[..., None])
        log_prob += ((logs * letters).sum(dim=-1) * (states[:, 1] == t)).sum(dim=1).double()
    return states, log_prob, reward(letters).double()


def numbers(states):
    """The row numbers of paths in the enumeration."""
    letters = (states[:, 0] * N_LETTERS ** torch.arange(LENGTH - 1, -1, -1)).sum(dim=1)
    orders = (states[:, 1][:, None] == ORDERS).all(dim=-1).int().argmax(dim=1)
    return orders * len(WORDS) + letters


def distance(states, law):
    """Total variation between paths that were drawn and a law."""
    drawn = torch.bincount(numbers(states), minlength=len(law)).double() / len(states)
    return float((drawn - law).abs().sum() / 2)


@pytest.mark.theorem
@pytest.mark.parametrize("has_gradient", [True, False])
def test_moves_keep_the_tilted_law_of_paths(chain, paths, has_gradient):
    """Theorem 1: draws of the exact law follow it still after changes of the order and of the letters."""
    states, log_prob, rewards = paths
    law, generator = (log_prob + BETA * rewards).softmax(dim=0), torch.Generator().manual_seed(0)
    target = PathTarget(chain, reward if has_gradient else lambda x: reward(x).detach(), math.log(len(WORDS)))
    start = states[torch.multinomial(law, 20_000, replacement=True, generator=generator)]
    population = target.at(start)
    for _ in range(4):
        population = target.moved(population, BETA, generator)
    assert float((population.state != start).any(dim=2).double().mean()) > 0.3
    assert distance(population.state, law) < 1.3 * distance(start, law)
    again = target.at(population.state)
    torch.testing.assert_close(population.log_prob, again.log_prob, atol=1e-5, rtol=0)
    torch.testing.assert_close(population.reward, again.reward)


@pytest.mark.theorem
def test_the_population_ends_at_the_optimum_and_the_chain_near_it(chain, paths):
    """Theorem 1, by enumeration: the law of paths, its KL, and the KL of the chain that learned from it."""
    states, log_prob, rewards = paths
    unnormalised = log_prob + BETA * rewards
    law = unnormalised.softmax(dim=0)
    problem = problem_on(chain, reward, alpha=1 / BETA, batch_size=4000, learning_rate=1e-3)
    solver = PathTemperingSolver().setup(problem)
    for i in range(40):
        solver.update(i)
    exact = torch.multinomial(law, 4000, replacement=True, generator=torch.Generator().manual_seed(0))
    assert distance(solver.population.state, law) < 1.4 * distance(states[exact], law)
    _, kl = solver.own_designs()
    assert kl == pytest.approx(float(law @ (law.log() - log_prob)), rel=0.05)

    def log_prob_by(model):
        letters, total = one_hot(states[:, 0], N_LETTERS).float(), -math.log(len(ORDERS))
        for t in (1, 2):
            logs = model.letter_log_probs(letters * (states[:, 1] > t)[..., None])
            total = total + ((logs * letters).sum(dim=-1) * (states[:, 1] == t)).sum(dim=1).double()
        return total

    before = float(law @ (law.log() - log_prob))
    gap = float(law @ (law.log() - log_prob_by(solver.problem.model.freeze())))
    assert 0 < gap < 0.2 * before


def test_a_resumed_run_goes_on_as_it_would_have(chain):
    problem = problem_on(chain, reward, alpha=0.3, batch_size=100)
    solver = PathTemperingSolver().setup(problem)
    for i in range(3):
        solver.update(i)
    other = PathTemperingSolver().setup(problem_on(chain, reward, alpha=0.3, batch_size=100))
    other.problem.model.trainable.load_state_dict(solver.problem.model.trainable.state_dict())
    other.load_state_tensors({name: value.clone() for name, value in solver.state_tensors().items()})
    assert solver.update(3) == other.update(3)
    for a, b in zip(solver.parameters, other.parameters, strict=True):
        assert torch.equal(a, b)


def test_paths_of_an_earlier_reward_are_weighted_for_the_next(chain, paths):
    states, log_prob, rewards = paths
    earlier = PathTemperingSolver().setup(problem_on(chain, reward, alpha=1 / BETA, batch_size=4000))
    for i in range(6):
        earlier.update(i)
    problem = problem_on(chain, lambda x: 0.9 * reward(x) + 0.1 * x[:, 1, 0], alpha=1 / BETA, batch_size=4000)
    solver = PathTemperingSolver().setup(problem)
    solver.follow(earlier)
    assert solver.beta > 0.8 * BETA
    for i in range(4):
        solver.update(i)
    law = (log_prob + BETA * (0.9 * rewards + 0.1 * (states[:, 0, 1] == 0))).softmax(dim=0)
    assert solver.beta == BETA
    assert distance(solver.population.state, law) < 0.12
    assert abs(solver.own_designs()[1] - float(law @ (law.log() - log_prob))) < 0.1


def test_the_chain_learns_from_an_earlier_run_s_paths_where_the_first_tilt_is_too_far(chain):
    earlier = PathTemperingSolver().setup(problem_on(chain, reward, alpha=2 / BETA, batch_size=64))
    for i in range(6):
        earlier.update(i)
    solver = PathTemperingSolver(n_effective=10_000).setup(problem_on(chain, reward, alpha=1 / BETA, batch_size=64))
    solver.follow(earlier)
    reached, before = solver.beta, [value.clone() for value in solver.problem.model.trainable.parameters()]
    solver.update(0)
    assert solver.beta == reached > 0
    after = solver.problem.model.trainable.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_language_model_is_tempered_by_the_estimator(tmp_path):
    """Held letters stay, the backbone too, and a run that was stopped goes on from its checkpoint."""
    lm, tokenizer = tiny_bert()
    space = SequenceSpace("protein", template="CA__GG_")
    chain = MaskedDiffusion.from_masked_lm(lm, space, tokenizer=tokenizer, n_steps=2)
    before = [value.clone() for value in lm.parameters()]
    letters = torch.randint(20, (60, 3), generator=torch.Generator().manual_seed(0)).tolist()
    names = [["ACDEFGHIKLMNPQRSTVWY"[i] for i in row] for row in letters]
    X = [f"CA{a}{b}GG{c}" for a, b, c in names]
    y = [row.count("W") + row.count("Y") + 0.01 * i for i, row in enumerate(X)]
    assert isinstance(as_solver("auto", chain), PathTemperingSolver)
    settings = {"max_iter": 4, "batch_size": 32, "random_state": 0}
    whole = ConservativeDiffusionFinetuner(chain, checkpoint_dir=tmp_path, **settings).fit(X, y)
    assert all(torch.equal(a, b) for a, b in zip(before, lm.parameters(), strict=True))
    assert whole.history_["kl"][-1] > 0 and whole.history_["lower"][-1] > whole.history_["lower"][0]
    designs = whole.sample(20, random_state=0)
    assert all(design[:2] == "CA" and design[4:6] == "GG" for design in designs)
    again = ConservativeDiffusionFinetuner(chain, checkpoint_dir=tmp_path, **settings).fit(X, y)
    assert again.history_ == whole.history_ and again.sample(20, random_state=0) == designs


def test_chains_over_a_law_are_refused():
    chain = MaskedDiffusion(SequenceSpace("DNA", 4)).fit(["ACGT", "AACC"] * 20, max_iter=1, random_state=0)
    with pytest.raises(IncompatibleModelError, match='needs solver="tempering"'):
        PathTemperingSolver().check(chain)
