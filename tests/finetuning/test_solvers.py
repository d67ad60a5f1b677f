"""Every solver against the optimum of a small world that is known exactly, and what each refuses."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from braidkit import GaussianDiffusion, MaskedDiffusion, SequenceSpace, SimplexDiffusion, TabularDiffusion, VectorSpace
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.finetuning import (
    AdjointMatchingSolver,
    DirectSolver,
    PolicyGradientSolver,
    TrajectoryBalanceSolver,
    sample_with_kl,
)
from braidkit.theory import FiniteChain, gap, masked_gap, masked_states
from tests.worlds import IndependentLetters, normal_chain, problem_on

SOLVERS = [DirectSolver(), AdjointMatchingSolver(), PolicyGradientSolver(), TrajectoryBalanceSolver()]


def name(solver):
    return type(solver).__name__


def run(solver, n_updates, learning_rate=0.01):
    """Updates at a rate that falls to zero, so that the weights settle."""
    for i in range(n_updates):
        for group in solver.optimizer.param_groups:
            group["lr"] = learning_rate * (1 - i / n_updates)
        solver.update(i)


@pytest.fixture(scope="module")
def dinucleotides():
    """A tabular chain on the 16 dinucleotides, its reward by letters, and the exact chain."""
    generator = np.random.default_rng(0)
    X = ["".join(generator.choice(list("ACGT"), 2, p=[0.4, 0.3, 0.2, 0.1])) for _ in range(500)]
    chain = TabularDiffusion(SequenceSpace("DNA", 2), n_steps=4).fit(X)
    table = torch.tensor([[0.0, 0.5, 1.0, 2.0], [0.0, 1.0, 0.0, 1.0]])
    return chain, lambda point: (point * table).sum(dim=(1, 2))


def exact(chain):
    uniform = torch.full(chain.state_shape, -np.log(chain.state_shape[0]), dtype=torch.float64)
    return FiniteChain(uniform, tuple(chain.log_policies()))


@pytest.mark.theorem
@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_the_gaussian_optimum_of_a_linear_reward_is_reached(solver):
    """Equations (5) and (6): for N(0, 1) designs, r = x and alpha = 1 the optimum is N(1, 1), of value 1/2."""
    pretrained = normal_chain(n_steps=5)
    problem = problem_on(pretrained, lambda x: x[:, 0])
    run(solver.setup(problem), 150)
    path = sample_with_kl(problem.model, pretrained, pretrained.draw_noise(8000, torch.Generator().manual_seed(1)))
    # The draws' own deviation, shared with the pretrained chain, is taken out of the average.
    plain = sample_with_kl(pretrained, pretrained, pretrained.draw_noise(8000, torch.Generator().manual_seed(1)))
    value = float((path.point - plain.point).mean() - path.kl.mean())
    assert value == pytest.approx(0.5, abs=0.03)
    assert float(path.kl.mean()) == pytest.approx(0.5, abs=0.06)


@pytest.mark.theorem
@pytest.mark.parametrize(
    ("solver", "learning_rate", "least", "most"),
    [
        (PolicyGradientSolver(), 0.02, 0, 0.1),
        (TrajectoryBalanceSolver(), 0.1, 0, 0.03),
        (DirectSolver(4), 0.02, 0.2, 0.6),  # straight-through: it stops where its biased gradient is zero
    ],
    ids=["policy_gradient", "trajectory_balance", "direct"],
)
def test_the_exact_gap_on_a_finite_world(dinucleotides, solver, learning_rate, least, most):
    """The gap over alpha is the path KL to the optimum (7); back-propagation through letters leaves much of it."""
    chain, reward = dinucleotides
    problem = problem_on(chain, reward, alpha=0.5, batch_size=128)
    rewards = reward(chain.designs)
    assert float(gap(exact(chain), exact(chain), rewards, 0.5)) > 1
    run(solver.setup(problem), 300, learning_rate)
    assert least <= float(gap(exact(problem.model), exact(chain), rewards, 0.5)) < most


@pytest.mark.theorem
@pytest.mark.parametrize(
    ("solver", "least", "most"),
    [(PolicyGradientSolver(), 0, 0.1), (TrajectoryBalanceSolver(), 0, 0.03), (DirectSolver(), 0.1, 0.7)],
    ids=["policy_gradient", "trajectory_balance", "direct"],
)
def test_the_exact_gap_of_a_trained_masked_chain(solver, least, most):
    """Path KL to the optimum by dynamic programming over the 125 partly masked 3-mers."""
    X = ["ACG", "TTT", "CAC", "GCT", "TAA"] * 30
    chain = MaskedDiffusion(SequenceSpace("DNA", 3), n_hidden=32, prior=None)
    chain.fit(X, random_state=0, validation_fraction=0)
    states = one_hot(masked_states(3, 4), 5)[..., :4].float()
    pretrained = chain.letter_log_probs(states)
    rewards = torch.tensor([float(row.count(3)) for row in itertools.product(range(4), repeat=3)])
    problem = problem_on(chain, lambda point: point[:, :, 3].sum(dim=1), alpha=0.7, batch_size=128)
    assert float(masked_gap(pretrained, pretrained, rewards, 0.7)) > 1
    run(solver.setup(problem), 200)
    assert least <= float(masked_gap(problem.model.letter_log_probs(states), pretrained, rewards, 0.7)) < most


@pytest.mark.parametrize("solver", [PolicyGradientSolver(), TrajectoryBalanceSolver()], ids=name)
def test_black_box_solvers_ask_for_no_gradient(solver):
    pretrained = normal_chain(n_steps=3)

    def reward(x):
        assert not x.requires_grad
        return torch.from_numpy(np.sign(x.numpy()[:, 0]))

    solver.setup(problem_on(pretrained, reward)).update(0)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_a_solver_resumes_as_if_it_had_not_stopped(solver):
    pretrained = normal_chain(n_steps=3)

    def fresh():
        problem = problem_on(pretrained, lambda x: x[:, 0], batch_size=8)
        return problem.model, type(solver)(**solver.get_params()).setup(problem)

    whole_model, whole = fresh()
    first_model, first = fresh()
    second_model, second = fresh()
    for i in range(4):
        whole.update(i)
    for i in range(2):
        first.update(i)
    second_model.network.load_state_dict(first_model.network.state_dict())
    second.load_state_tensors({name: value.clone() for name, value in first.state_tensors().items()})
    for i in range(2, 4):
        second.update(i)
    for a, b in zip(whole_model.parameters(), second_model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_the_pretrained_weights_are_not_touched(solver):
    pretrained = normal_chain(n_steps=3)
    before = {name: value.clone() for name, value in pretrained.state_dict().items()}
    problem = problem_on(pretrained, lambda x: x[:, 0], batch_size=8)
    solver.setup(problem).update(0)
    assert all(torch.equal(value, before[name]) for name, value in pretrained.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in problem.model.state_dict().items())


def test_replay_holds_the_newest_trajectories():
    pretrained = normal_chain(n_steps=3)
    solver = TrajectoryBalanceSolver(n_replay=20).setup(problem_on(pretrained, lambda x: x[:, 0], batch_size=8))
    lengths = []
    for i in range(4):
        solver.update(i)
        lengths.append(len(solver.replay.reward))
    assert lengths == [8, 16, 20, 20]
    none = TrajectoryBalanceSolver(n_replay=0).setup(problem_on(pretrained, lambda x: x[:, 0], batch_size=8))
    none.update(0)
    assert none.replay is None


def test_log_z_approaches_that_of_the_world():
    """At the optimum log Z is the log of C of equation (3): 1/2 for N(0, 1), r = x, alpha = 1."""
    problem = problem_on(normal_chain(n_steps=5), lambda x: x[:, 0])
    solver = TrajectoryBalanceSolver().setup(problem)
    run(solver, 150)
    assert float(solver.log_z) == pytest.approx(0.5, abs=0.05)


def test_adjoint_matching_refuses_chains_without_constant_deviations():
    solver = AdjointMatchingSolver()
    solver.check(GaussianDiffusion(VectorSpace(2)))
    solver.check(SimplexDiffusion(SequenceSpace("DNA", 4)))
    for chain in (SimplexDiffusion(SequenceSpace("DNA", 4), scheme="euler"), MaskedDiffusion(SequenceSpace("DNA", 4))):
        with pytest.raises(IncompatibleModelError, match=r'solver="direct", "policy_gradient" or "trajectory_balance"'):
            solver.check(chain)


@pytest.mark.theorem
@pytest.mark.parametrize("solver", [DirectSolver("random"), AdjointMatchingSolver()], ids=name)
def test_on_bridges_solvers_find_the_tilt_of_independent_letters(solver):
    """The optimum of a reward of each letter is Doob's transform: the network of the tilted letters, log p + r / alpha.

    What is open at the last state is left to the readout, which is pretrained, so the tilt comes out a little low.
    """
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])
    chain = SimplexDiffusion(SequenceSpace("DNA", 8), n_steps=15, scheme="bridge")
    chain.network = IndependentLetters(probabilities)
    problem = problem_on(chain.freeze(), lambda point: point[:, :, 2].sum(dim=1), learning_rate=0.05)
    run(solver.setup(problem), 100, 0.06)
    tilt = (problem.model.network.logits - probabilities.log()).detach()
    tilt -= tilt[[0, 1, 3]].mean()
    assert 0.7 < tilt[2] < 1 and (tilt[[0, 1, 3]].abs() < 0.12).all(), tilt


def test_the_policy_gradient_needs_trajectories_to_compare():
    with pytest.raises(InvalidParameterError, match="batch_size must be at least 2; got 1"):
        PolicyGradientSolver().setup(problem_on(normal_chain(n_steps=2), lambda x: x[:, 0], batch_size=1))
