"""What a trajectory is conditioned on, through all that draws, replays, chunks, guides and trains trajectories."""

import copy
import math

import numpy as np
import pytest
import torch

from braidkit import ConservativeDiffusionFinetuner, MaskedDiffusion, SequenceSpace, SimplexDiffusion
from braidkit.baselines import twisted_smc
from braidkit.diffusion import Choice, Conditioned, Fixed, GuidedDiffusion, sample_path, split_context
from braidkit.finetuning import (
    AdjointMatchingSolver,
    DirectSolver,
    PolicyGradientSolver,
    TrajectoryBalanceSolver,
    rollout,
    sample_with_kl,
)
from tests.worlds import moved, normal_chain, problem_on, targeted_chain, untrained

DNA = SequenceSpace("DNA", length=5)


def noise_for(chain, n, seed=0):
    return chain.draw_noise(n, torch.Generator().manual_seed(seed))


def first(x):
    return x[:, 0]


def test_contexts_are_drawn_alike_often_and_kept_to_the_end():
    chain = targeted_chain()
    path = sample_path(chain, noise_for(chain, 3000))
    context = path[-1][:, -1]
    shares = [float((context == value).float().mean()) for value in chain.targets]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)
    assert all(torch.equal(x[:, -1], context) for x in path)
    designs = chain.readout(path[0])
    for value in chain.targets:
        assert designs[context == value].mean(dim=0).tolist() == pytest.approx([value, value], abs=0.15)


def test_designs_and_their_contexts_do_not_depend_on_the_batch():
    chain = targeted_chain()
    whole = chain.sample(10, random_state=0)
    for size in (1, 3):
        np.testing.assert_allclose(chain.sample(10, random_state=0, batch_size=size), whole, atol=1e-5)
    noise = noise_for(chain, 7)
    parts = sample_with_kl(moved(chain), chain, noise, batch_size=2)
    together = sample_with_kl(moved(chain), chain, noise)
    torch.testing.assert_close(parts.point, together.point)
    torch.testing.assert_close(parts.kl, together.kl)


def test_the_kl_is_that_of_the_same_step_without_a_context():
    """The chain is a shifted one of standard normal data, whose KL at the same noise is known."""
    chain, plain = targeted_chain().double(), normal_chain(n_features=2, n_steps=6).double()
    plain.network = copy.deepcopy(chain.network)
    noise = noise_for(chain, 9).double()
    target = sample_path(chain, noise)[0][:, -1:]
    with_context = rollout(moved(chain), chain, noise)
    own = noise[..., :2].clone()
    own[:, 0] -= math.cos(chain._angles[-1]) * target  # both start from the same law around 0
    without = rollout(moved(plain), plain, own)
    torch.testing.assert_close(with_context.kl, without.kl)
    shifted = with_context.point - math.cos(chain._angles[0]) * target
    torch.testing.assert_close(shifted, without.point)


@pytest.mark.parametrize("kind", ["masked", "bridge"])
@pytest.mark.parametrize("columns", [1, 3])
def test_a_conditioned_policy_is_its_inner_one(kind, columns):
    """Draws, log-probabilities, KL, fused steps and tilts, for states and noise of any shape."""
    chain = untrained(MaskedDiffusion(DNA) if kind == "masked" else SimplexDiffusion(DNA, n_steps=4))
    other = untrained(chain.untrained_copy(), seed=1)
    g = torch.Generator().manual_seed(0)
    x = chain.noised(DNA.encode(["ACGTA", "CCCTA", "GATTA"]), 3, g)
    noise, context = torch.randn(3, *chain.noise_shape, generator=g), torch.randn(3, columns, generator=g)
    flat = torch.cat([noise.flatten(1), torch.zeros(3, columns)], dim=1)
    inner, reference = chain.policy(x, 3), other.policy(x, 3)
    policy, twin = (
        Conditioned(law, Fixed(context), chain.state_shape, chain.noise_shape) for law in (inner, reference)
    )
    drawn, kept = split_context(policy.rsample(flat), chain.state_shape)
    assert torch.equal(drawn, inner.rsample(noise)) and torch.equal(kept, context)
    state = torch.cat([drawn.flatten(1), context], dim=1)
    assert torch.equal(policy.log_prob(state), inner.log_prob(drawn))
    assert torch.equal(policy.kl(twin), inner.kl(reference))
    stepped, kl = policy.step(twin, flat)
    expected, expected_kl = inner.step(reference, noise)
    assert torch.equal(stepped[:, :-columns], expected.flatten(1)) and torch.equal(kl, expected_kl)
    gradient = torch.randn(state.shape, generator=g)
    tilted = inner.shifted(split_context(gradient, chain.state_shape)[0])
    assert torch.equal(policy.shifted(gradient).rsample(flat)[:, :-columns], tilted.rsample(noise).flatten(1))
    narrow = policy.mapped(lambda part: part.double())
    assert narrow.rsample(flat.double()).dtype == torch.float64


def test_a_choice_reaches_every_value_and_no_other():
    law = Choice(torch.arange(5.0)[:, None])
    edges = torch.tensor([-40.0, -0.1, 0.1, 40.0])[:, None]
    assert law.rsample(edges)[:, 0].tolist() == [0.0, 2.0, 2.0, 4.0]
    assert law.log_prob(edges).exp().tolist() == pytest.approx([0.2] * 4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_pathwise_gradient_is_that_of_finite_differences(checkpointing):
    """Of a reward in which each context's trajectories have a slope of their own."""
    pretrained = targeted_chain().double()
    model, noise = moved(pretrained).double(), noise_for(pretrained, 6).double()
    weight = model.trainable.last.bias

    def objective():
        path = rollout(model, pretrained, noise, checkpointing=checkpointing)
        return (path.point.square().sum(dim=1) - 0.5 * path.kl).mean()

    (gradient,) = torch.autograd.grad(objective(), weight)
    values = []
    for change in (1e-5, -2e-5):
        with torch.no_grad():
            weight[0] += change
        values.append(float(objective().detach()))
    assert float(gradient[0]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


@pytest.mark.parametrize("solver", [DirectSolver, AdjointMatchingSolver, PolicyGradientSolver, TrajectoryBalanceSolver])
def test_every_solver_improves_designs_around_every_context_target(solver):
    pretrained = targeted_chain()
    problem = problem_on(pretrained, first, alpha=0.5, batch_size=64)
    running = solver().setup(problem)
    for i in range(40):
        running.update(i)
    noise = noise_for(pretrained, 200, seed=1)
    gain = first(problem.model.sample_points(noise)) - first(pretrained.sample_points(noise))
    context = sample_path(pretrained, noise)[0][:, -1]
    for value in pretrained.targets:
        assert gain[context == value].mean() > 0.3


def test_trajectory_balance_replays_trajectories_with_their_contexts():
    """Resumed from its saved state it goes on as it would have."""
    runs = []
    for interrupted in (False, True):
        problem = problem_on(targeted_chain(), first, batch_size=8)
        solver = TrajectoryBalanceSolver(n_replay=16).setup(problem)
        for i in range(6):
            if interrupted and i == 3:
                saved = solver.state_tensors()
                solver = TrajectoryBalanceSolver(n_replay=16).setup(problem)
                solver.load_state_tensors(saved)
            solver.update(i)
        runs.append(solver)
    states = runs[0].replay.states
    assert torch.equal(states[:, 1:, -1], states[:, :-1, -1]) and len(states[:, 0, -1].unique()) == 3
    for a, b in zip(runs[0].parameters, runs[1].parameters, strict=True):
        assert torch.equal(a, b)


def test_a_run_resumes_with_the_same_contexts(tmp_path):
    pretrained = targeted_chain()
    X = np.asarray(pretrained.sample(76, random_state=0))

    def fitted(max_iter, directory):
        settings = {"batch_size": 16, "n_iter_no_change": 100, "random_state": 0, "max_iter": max_iter}
        return ConservativeDiffusionFinetuner(pretrained, 0.5, checkpoint_dir=directory, **settings).fit(X, X[:, 0])

    whole = fitted(8, tmp_path / "whole")
    fitted(4, tmp_path / "parts")
    assert np.array_equal(fitted(8, tmp_path / "parts").sample(20, random_state=0), whole.sample(20, random_state=0))


def test_guided_trajectories_keep_their_contexts():
    chain = targeted_chain()
    guided = GuidedDiffusion(chain, lambda x, time: x.sum(dim=1), strength=2.0)
    noise = noise_for(chain, 30)
    plain, pushed = sample_path(chain, noise)[0], sample_path(guided, noise)[0]
    assert torch.equal(plain[:, -1], pushed[:, -1])
    shift = (pushed - plain)[:, :2]
    assert (shift > 0.5).all()
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=1e-3, atol=1e-3)


def test_particles_carry_their_contexts():
    """The reward picks the trajectories of one target, and none that lies between targets."""
    particles = twisted_smc(
        targeted_chain(), lambda x: -(x[:, 0] - 4).square(), 1.0, 400, torch.Generator().manual_seed(0)
    )
    designs = particles.resample(200, torch.Generator().manual_seed(0))
    assert designs.mean(dim=0).tolist() == pytest.approx([4.0, 4.0], abs=0.4)
