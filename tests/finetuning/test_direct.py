"""Direct back-propagation against the optimum that is known, and against finite differences."""

import pytest
import torch

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning import DirectSolver, direct, rollout, sample_with_kl
from braidkit.finetuning.rollout import graph_bytes, reward_bytes, saved_bytes
from tests.worlds import exact_chain, moved, normal_chain, problem_on, untrained


def solver_for(pretrained, reward, **changes):
    problem = problem_on(pretrained, reward)
    return problem.model, DirectSolver(**changes).setup(problem)


@pytest.mark.theorem
@pytest.mark.parametrize(("truncation", "tolerance"), [(10, 0.01), ("random", 0.01)])
def test_a_linear_reward_reaches_the_value_of_the_optimum(truncation, tolerance):
    """Equations (5) and (6): for N(0, 1) designs, r = x and alpha = 1 the optimum is N(1, 1), of value 1/2."""
    pretrained = normal_chain(n_steps=10)
    model, solver = solver_for(pretrained, lambda x: x[:, 0], truncation=truncation, rows_at_once=64)
    for i in range(250):
        solver.update(i)
    path = sample_with_kl(model, pretrained, model.draw_noise(20_000, torch.Generator().manual_seed(1)))
    gap = 0.5 - float((path.point[:, 0] - path.kl).mean())
    assert -0.03 < gap < tolerance + 0.03  # three standard errors of the average are 0.03
    assert float(path.kl.mean()) == pytest.approx(0.5, abs=0.06)
    assert float(path.point.mean()) == pytest.approx(1.0, abs=0.06)


@pytest.mark.theorem
def test_a_fixed_truncation_is_biased():
    """The first steps see no reward, so the chain stays away from the optimum, by a tenth of its value and more."""
    pretrained = normal_chain(n_steps=10)
    model, solver = solver_for(pretrained, lambda x: x[:, 0], truncation=3, rows_at_once=64)
    for i in range(250):
        solver.update(i)
    path = sample_with_kl(model, pretrained, model.draw_noise(20_000, torch.Generator().manual_seed(1)))
    assert float((path.point[:, 0] - path.kl).mean()) < 0.45


def test_the_gradient_of_random_truncation_is_on_average_that_of_the_full_chain():
    pretrained = normal_chain(n_features=2, n_steps=6)
    model, solver = solver_for(pretrained, lambda x: -(x - 1).square().sum(dim=1), truncation="random")
    for i in range(5):
        solver.update(i)  # away from the pretrained weights, where the KL has no gradient
    noise = model.draw_noise(8, torch.Generator().manual_seed(0))

    def gradient(**truncation):
        path = rollout(model, pretrained, noise, **truncation)
        return torch.autograd.grad((solver.problem.reward(path.point) - path.kl).mean(), solver.parameters)

    full = gradient()
    weight = solver._draw_truncation(torch.Generator())["weight"]
    parts = [gradient(n_grad_steps=steps, weight=weight) for steps in range(1, 7)]
    for whole, *each in zip(full, *parts, strict=True):
        assert torch.allclose(torch.stack(each).mean(dim=0), whole, rtol=1e-3, atol=1e-5 * float(whole.abs().max()))


def test_the_kl_of_one_drawn_step_has_on_average_the_gradient_of_all():
    """For each number of steps with gradient, and so for random ones."""
    pretrained = normal_chain(n_features=2, n_steps=6)
    model = moved(pretrained)
    noise = model.draw_noise(8, torch.Generator().manual_seed(0))

    def gradient(steps, **kl):
        path = rollout(model, pretrained, noise, steps, weight=lambda t: 6 / (7 - t), **kl)
        return torch.autograd.grad((path.point.sum(dim=1) - path.kl).mean(), list(model.trainable.parameters()))

    for steps in (1, 4, 6):
        parts = [gradient(steps, kl_step=step) for step in range(1, steps + 1)]
        for whole, *each in zip(gradient(steps), *parts, strict=True):
            torch.testing.assert_close(torch.stack(each).mean(dim=0), whole, rtol=1e-3, atol=1e-5)
    with pytest.raises(InvalidParameterError, match='kl_steps must be "all" or "one"'):
        solver_for(pretrained, lambda x: x[:, 0], kl_steps="two")
    _, solver = solver_for(pretrained, lambda x: x[:, 0], kl_steps="one")
    drawn = [solver._draw_steps(torch.Generator().manual_seed(i)) for i in range(200)]
    assert all(1 <= steps["kl_step"] <= steps["n_grad_steps"] for steps in drawn)
    assert {steps["kl_step"] for steps in drawn} == {1, 2, 3, 4, 5, 6}


def test_readout_and_reward_count_in_memory(monkeypatch):
    pretrained, sizes = exact_chain(n_features=2, n_steps=8), []

    def reward(x):
        sizes.append(len(x))
        return x.double().repeat(1, 500).square().sum(dim=1)  # keeps 8,000 bytes a row

    model, solver = solver_for(pretrained, reward)
    assert reward_bytes(model, reward) == pytest.approx(8000, rel=0.1)
    monkeypatch.setattr(direct, "GRAPH_BYTES", 20_000)
    sizes.clear()
    solver.update(0)
    assert max(sizes) == 2


@pytest.mark.parametrize("changes", [{"rows_at_once": 5}, {"checkpointing": True}], ids=["rows", "checkpointing"])
def test_chunks_and_checkpointing_do_not_change_an_update(changes):
    pretrained = exact_chain(n_features=2, n_steps=8)
    gradients = []
    for options in ({}, changes):
        model, solver = solver_for(pretrained, lambda x: -x.square().sum(dim=1), **options)
        solver.update(3)
        gradients.append(float(model.network.shift.grad))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4)


def test_a_graph_grows_with_trajectories_and_steps_as_foreseen():
    """What autograd keeps of a rollout is `graph_bytes` for each trajectory and step, weights apart."""
    pretrained = untrained(SimplexDiffusion(SequenceSpace("DNA", 12), n_steps=6))
    model = pretrained.trainable_copy()

    def kept(n, n_grad_steps):
        def run():
            path = rollout(model, pretrained, model.draw_noise(n, torch.Generator()), n_grad_steps)
            assert path.kl.requires_grad
            return path

        return saved_bytes(run)

    # The first step's states carry no gradient, so that the pretrained network keeps nothing there.
    more = (kept(20, 5) - kept(4, 5)) - (kept(20, 1) - kept(4, 1))
    assert more == pytest.approx(16 * 4 * graph_bytes(model, pretrained), rel=0.02)


@pytest.mark.parametrize(("checkpointing", "n_steps"), [(False, 3), (True, 1)])
def test_as_many_trajectories_are_in_memory_as_keep_within_the_budget(monkeypatch, checkpointing, n_steps):
    pretrained, sizes = normal_chain(n_features=2, n_steps=6), []

    def reward(x):
        sizes.append(len(x))
        return x[:, 0]

    model, solver = solver_for(pretrained, reward, truncation=3, checkpointing=checkpointing)
    each = n_steps * graph_bytes(model, pretrained)
    for rows, expected in ((0.5, [1] * 64), (32, [32, 32]), (40, [32, 32]), (1000, [64])):
        monkeypatch.setattr(direct, "CHECKPOINTED_BYTES" if checkpointing else "GRAPH_BYTES", int(rows * each))
        sizes.clear()
        solver.update(0)
        assert sizes == expected


def test_out_of_memory_halves_the_rows_at_once_and_not_the_batch():
    pretrained, tried = exact_chain(n_features=2, n_steps=8), []

    def reward(x, most=1000):
        tried.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return -x.square().sum(dim=1)

    model, solver = solver_for(pretrained, reward)
    solver.update(3)
    expected = float(model.network.shift.grad)
    batch_size = solver.problem.batch_size
    model, solver = solver_for(pretrained, lambda x: reward(x, most=batch_size // 4))
    tried.clear()
    with pytest.warns(UserWarning, match=f"out of memory: {batch_size // 4} trajectories at once"):
        figures = solver.update(3)
    assert float(model.network.shift.grad) == pytest.approx(expected, rel=1e-4)
    assert tried == [batch_size, batch_size // 2] + [batch_size // 4] * 4
    assert figures["lower"] == pytest.approx(solver_for(pretrained, reward)[1].update(3)["lower"])
    tried.clear()
    solver.update(4)
    assert set(tried) == {batch_size // 4}
    _, solver = solver_for(pretrained, lambda x: reward(x, most=0), rows_at_once=2)
    with pytest.warns(UserWarning, match="1 trajectories"), pytest.raises(torch.OutOfMemoryError):
        solver.update(3)


def test_truncation_is_drawn_once_an_update_and_covers_every_length():
    pretrained = exact_chain(n_steps=6)
    _, solver = solver_for(pretrained, lambda x: x[:, 0], truncation="random")
    draws = [solver._draw_truncation(torch.Generator().manual_seed(seed)) for seed in range(300)]
    assert {draw["n_grad_steps"] for draw in draws} == set(range(1, 7))
    _, solver = solver_for(pretrained, lambda x: x[:, 0], truncation=2)
    draws = [solver._draw_truncation(torch.Generator().manual_seed(seed)) for seed in range(300)]
    assert {draw["n_grad_steps"] for draw in draws} == {2}
    assert {draw["prefix_step"] for draw in draws} == {3, 4, 5, 6}
