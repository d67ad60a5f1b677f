"""Updates in bfloat16: the direction of their gradients, what stays exact, and what "auto" comes to."""

import copy

import pytest
import torch

from braidkit import ConservativeDiffusionFinetuner, GaussianDiffusion, SequenceSpace, SimplexDiffusion, VectorSpace
from braidkit.diffusion import precision
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning import (
    AdjointMatchingSolver,
    DirectSolver,
    PolicyGradientSolver,
    TrajectoryBalanceSolver,
)
from braidkit.networks import Adapter, DilatedConvNet, Shared
from tests.worlds import normal_chain, problem_on, untrained

SOLVERS = [DirectSolver(), AdjointMatchingSolver(), PolicyGradientSolver(), TrajectoryBalanceSolver()]


def simplex(n_steps=6, head="letters"):
    return untrained(SimplexDiffusion(SequenceSpace("DNA", 8), n_steps=n_steps, head=head))


def share_of_g(point):
    return point[:, :, 2].mean(dim=1)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("head", ["letters", "score"])
def test_gradients_point_where_those_of_float32_do(head, checkpointing):
    pretrained, gradients = simplex(head=head), {}
    for kind in ("float32", "bfloat16"):
        problem = problem_on(pretrained, share_of_g, alpha=0.01, precision=kind, max_grad_norm=1e9)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():  # away from the pretrained weights, where the KL has no gradient
            for parameter in problem.model.network.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        solver = DirectSolver(6, checkpointing=checkpointing).setup(problem)
        solver.update(0)
        gradients[kind] = torch.cat([parameter.grad.flatten() for parameter in solver.parameters])
    assert not torch.equal(*gradients.values())
    assert float(torch.cosine_similarity(*gradients.values(), dim=0)) > 0.98


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_only_the_networks_of_policies_leave_float32(solver):
    """Every solver: the networks' outputs, and what the reward, the optimiser and a policy's readers see."""
    pretrained, seen = normal_chain(n_features=2, n_steps=3), set()

    def reward(point):
        assert point.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return point.sum(dim=1)

    problem = problem_on(pretrained, reward, precision="bfloat16")
    for network in (problem.model.network, pretrained.network):
        network.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    solver = type(solver)().setup(problem)
    figures = solver.update(0)
    assert seen == {torch.bfloat16}
    assert all(torch.isfinite(torch.tensor(value)) for value in figures.values())
    assert all(value.dtype == torch.float32 for value in solver.state_tensors().values())
    policy = solver.model.policy(torch.zeros(1, 2), 1)
    assert policy.mean.dtype == torch.float32
    seen.clear()
    problem.model.sample(2, random_state=0)
    assert seen == {torch.float32}


def test_the_readout_is_exact():
    pretrained = simplex()
    noise = pretrained.draw_noise(4, torch.Generator().manual_seed(0))
    other_copy = precision.at_precision(pretrained, "bfloat16")
    assert torch.equal(other_copy.readout(noise[:, 0]), pretrained.readout(noise[:, 0]))
    assert torch.equal(copy.deepcopy(other_copy).readout(noise[:, 0]), pretrained.readout(noise[:, 0]))
    assert precision.at_precision(pretrained, "float32") is pretrained


def test_reports_and_designs_are_of_the_exact_networks():
    """Before the first update both precisions report the same; designs are those of an exact chain of these weights."""
    X = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).numpy()
    histories, chain = [], GaussianDiffusion(VectorSpace.from_data(X), n_steps=5).fit(X, random_state=0)
    for kind in ("float32", "bfloat16"):
        finetuner = ConservativeDiffusionFinetuner(chain, precision=kind, max_iter=3, random_state=0)
        finetuner.fit(X, X.sum(axis=1))
        assert finetuner.precision_ == kind
        histories.append([column[0] for column in finetuner.history_.values()])
    assert histories[0] == histories[1] and histories[1][4] == 0
    seen = set()
    finetuner.model_.network.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    finetuner.sample(3, random_state=0)
    assert seen == {torch.float32}


@pytest.mark.parametrize("head", ["letters", "score"])
def test_sampling_in_bfloat16_gives_nearly_the_same_designs(head):
    chain, seen = simplex(head=head), []
    generator = torch.Generator().manual_seed(0)
    for parameter in chain.network.parameters():  # away from a last layer of zeros
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    chain.network.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    exact, fast = (
        chain.sample(1000, random_state=0, precision=kind, batch_size=250) for kind in ("float32", "bfloat16")
    )
    # All steps of one chain, then those of the other, whose readout is exact.
    assert seen == 4 * 7 * [torch.float32] + 4 * (6 * [torch.bfloat16] + [torch.float32])
    same = sum(a == b for pair in zip(exact, fast, strict=True) for a, b in zip(*pair, strict=True))
    assert 0.97 < same / (1000 * 8) < 1
    with pytest.raises(InvalidParameterError, match="precision must be .* got 'auto'"):
        chain.sample(2, precision="auto")


@pytest.mark.parametrize(
    ("capabilities", "width", "expected"),
    [
        ({"avx512_bf16": True}, 256, "bfloat16"),
        ({"amx_bf16": True, "avx512_bf16": False}, 64, "bfloat16"),
        ({"avx512_bf16": True}, 32, "float32"),
        ({}, 256, "float32"),
    ],
)
def test_auto_asks_the_processor_and_the_width(monkeypatch, capabilities, width, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    network = DilatedConvNet(4, 4, width=width, kernel_size=3, dilations=(1,), time_scale=1.0)
    cpu = torch.device("cpu")
    assert precision.resolve_precision("auto", network, cpu) == expected
    assert precision.resolve_precision("auto", network, torch.device("cuda")) == "float32"
    assert precision.resolve_precision("auto", torch.nn.Linear(256, 256), cpu) == "float32"
    assert precision.resolve_precision("bfloat16", network, cpu) == "bfloat16"
    adapter = Adapter(Shared(torch.nn.Linear(width, 4)), ["bias"])
    wide = bool(capabilities) and width == 256
    assert precision.resolve_precision("auto", adapter, cpu) == ("bfloat16" if wide else "float32")


def test_an_unknown_precision_is_refused_before_any_work():
    finetuner = ConservativeDiffusionFinetuner(precision="half")
    with pytest.raises(InvalidParameterError, match=r"precision must be .* got 'half'"):
        finetuner.fit([[0.0, 1.0], [1.0, 0.0]], [0.0, 1.0])
