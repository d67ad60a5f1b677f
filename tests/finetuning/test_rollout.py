"""The path KL against closed form, and what carries gradient."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from braidkit import MaskedDiffusion, SequenceSpace, SimplexDiffusion, kernels
from braidkit.finetuning import rollout
from braidkit.kernels._backend import launch
from tests.worlds import exact_chain, normal_chain, untrained


def shifted(pretrained, shift):
    """A fine-tuned copy whose velocity is off by a constant: its mean moves by a known amount at each step."""
    model = pretrained.trainable_copy()
    with torch.no_grad():
        model.network.shift += shift
    return model


def moved(pretrained):
    """A fine-tuned copy away from the pretrained weights, where the KL has a gradient."""
    model = pretrained.trainable_copy()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.device)
    return model


def step_kl(model, t, shift):
    """|mean difference|^2 / (2 std^2) of one step and one feature, from the chain's formulas."""
    phi, phi_next = float(model.angles[t]), float(model.angles[t - 1])
    ratio = math.cos(phi) / math.cos(phi_next)
    added = math.sin(phi) ** 2 - (ratio * math.sin(phi_next)) ** 2
    moved = math.cos(phi_next) * added / math.sin(phi) * shift
    return moved**2 / (2 * float(model.policy(torch.zeros(1, 1), t).std) ** 2)


@pytest.fixture
def pretrained():
    return exact_chain(n_features=3, n_steps=12)


@pytest.fixture
def noise(pretrained):
    return pretrained.draw_noise(5, torch.Generator().manual_seed(0))


def test_the_summed_kl_is_exact_over_all_steps(pretrained, noise):
    """Equation (6): the KL of a chain with constant shifts is known for every path."""
    path = rollout(shifted(pretrained, 0.3), pretrained, noise)
    expected = 3 * sum(step_kl(pretrained, t, 0.3) for t in range(1, 13))
    assert torch.allclose(path.kl, torch.full((5,), expected), rtol=1e-4)


def test_an_unchanged_model_has_no_kl_and_the_pretrained_designs(pretrained, noise):
    path = rollout(pretrained.trainable_copy(), pretrained, noise)
    assert torch.equal(path.kl, torch.zeros(5))
    assert torch.equal(path.point, pretrained.sample_points(noise))


@pytest.mark.parametrize("n_grad_steps", [1, 4, 11])
def test_the_stand_in_for_the_early_steps_is_unbiased(pretrained, noise, n_grad_steps):
    """Averaged over the one early step that is drawn, the KL and its gradient are those of all steps."""
    model = shifted(pretrained, 0.3)
    early = range(n_grad_steps + 1, 13)
    kls = torch.stack([rollout(model, pretrained, noise, n_grad_steps, prefix_step=step).kl for step in early])
    assert torch.allclose(kls.mean(dim=0), rollout(model, pretrained, noise).kl, rtol=1e-4)
    gradient = torch.autograd.grad(kls.mean(dim=0).mean(), model.network.shift)[0]
    # The KL is quadratic in the shift, and here does not depend on the states.
    assert float(gradient) == pytest.approx(2 * float(kls.detach().mean()) / 0.3, rel=1e-4)


def test_without_a_stand_in_the_kl_counts_the_last_steps_alone(pretrained, noise):
    path = rollout(shifted(pretrained, 0.3), pretrained, noise, n_grad_steps=4)
    assert float(path.kl[0].detach()) == pytest.approx(
        3 * sum(step_kl(pretrained, t, 0.3) for t in range(1, 5)), rel=1e-4
    )


def test_designs_are_the_same_wherever_the_gradient_starts(pretrained, noise):
    model = shifted(pretrained, 0.3)
    full = rollout(model, pretrained, noise).point
    for n_grad_steps in (1, 5):
        assert torch.allclose(rollout(model, pretrained, noise, n_grad_steps, prefix_step=8).point, full, atol=1e-6)


def test_the_pathwise_gradient_is_that_of_finite_differences(pretrained, noise):
    pretrained, noise = pretrained.double(), noise.double()
    model = shifted(pretrained, 0.3)

    def objective(shift):
        with torch.no_grad():
            model.network.shift.fill_(shift)
        path = rollout(model, pretrained, noise)
        return (path.point.square().sum(dim=1) - 0.5 * path.kl).mean()

    gradient = torch.autograd.grad(objective(0.3), model.network.shift)[0]
    numeric = (objective(0.301) - objective(0.299)) / 0.002
    assert float(gradient) == pytest.approx(float(numeric.detach()), rel=1e-3)


@pytest.mark.parametrize("scheme", ["euler", "bridge"])
def test_the_gradient_of_the_simplex_kl_is_that_of_finite_differences(scheme):
    """Through the weights, the sticks and their lineage counts."""
    pretrained = untrained(SimplexDiffusion(SequenceSpace("DNA", 4), n_steps=4, scheme=scheme)).double()
    model = moved(pretrained)
    noise = model.draw_noise(8, torch.Generator().manual_seed(0)).double()
    weights = list(model.network.parameters())
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in weights]

    def kl(distance):
        with torch.no_grad():
            for part, along in zip(weights, direction, strict=True):
                part.add_(distance * along)
        return rollout(model, pretrained, noise).kl.mean()

    gradient = torch.autograd.grad(kl(0.0), weights, allow_unused=True)
    slope = sum(
        (part * along).sum().item() for part, along in zip(gradient, direction, strict=True) if part is not None
    )
    before, after = kl(-1e-6), kl(2e-6)
    assert slope == pytest.approx((after - before).item() / 2e-6, rel=1e-4)


@pytest.mark.parametrize(
    ("kernel", "chain"), [(kernels.gaussian, "gaussian"), (kernels.bridge, "bridge"), (kernels.simplex, "euler")]
)
def test_the_fused_step_is_the_same_chain(kernel, chain, triton_device, monkeypatch):
    """States, KL and gradients of the weights, with the kernel that runs on a GPU."""
    pretrained, launches = CHAINS[chain](), []
    n_steps = pretrained.n_steps
    model, pretrained = moved(pretrained).to(triton_device), pretrained.to(triton_device)
    noise = model.draw_noise(4, torch.Generator().manual_seed(0)).to(triton_device)

    def counted(*arguments, **constants):
        launches.append(arguments)
        launch(*arguments, **constants)

    def outcome(**truncation):
        path = rollout(model, pretrained, noise, **truncation)
        loss = path.point.square().sum() - path.point.flatten(1)[:, 0].sum() + path.kl.sum()
        return path.point, path.kl, *torch.autograd.grad(loss, list(model.network.parameters()), allow_unused=True)

    monkeypatch.setattr(kernel, "launch", counted)
    runs = {}, {"n_grad_steps": 2, "prefix_step": 3}
    found = [outcome(**truncation) for truncation in runs]
    # Forwards and backwards; sticks also draw by the kernel where there is no gradient.
    n_launches = 2 * n_steps + 2 * 3 + (n_steps - 3 if chain != "gaussian" else 0)
    assert len(launches) == n_launches
    monkeypatch.setattr(kernel, "runs_triton", lambda *tensors: False)
    for ours, truncation in zip(found, runs, strict=True):
        for part, expected in zip(ours, outcome(**truncation), strict=True):
            if expected is not None:
                scale = float(expected.detach().abs().max())
                torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5 * scale)
    assert len(launches) == n_launches


class HostWaits(TorchDispatchMode):
    """Counts the operations for which a host waits for a GPU: values read back, and numbers copied there."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "lift_fresh",
        "_unique2",
        "repeat_interleave",
    )

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        by_mask = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if name in self.WAITING or by_mask or (name == "_to_copy" and (kwargs or {}).get("device") is not None):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def test_host_sync_detector_sees_known_syncs():
    x = torch.ones(3)
    waits = [lambda: float(x[0]), lambda: x[x > 0], lambda: x.new_tensor(1.0), lambda: torch.equal(x, x), x.nonzero]
    for wait in waits:
        with HostWaits() as seen:
            wait()
        assert seen.names


CHAINS = {
    "gaussian": lambda: normal_chain(n_features=2, n_steps=5),
    "bridge": lambda: untrained(SimplexDiffusion(SequenceSpace("DNA", 6), n_steps=5)),
    "euler": lambda: untrained(SimplexDiffusion(SequenceSpace("DNA", 6), n_steps=5, scheme="euler")),
    "score": lambda: untrained(SimplexDiffusion(SequenceSpace("DNA", 6), n_steps=5, head="score")),
    "masked": lambda: untrained(MaskedDiffusion(SequenceSpace("DNA", 6), n_steps=5)),
}


@pytest.mark.parametrize("truncation", [{}, {"n_grad_steps": 2, "prefix_step": 4}], ids=["full", "prefix"])
@pytest.mark.parametrize("chain", CHAINS)
def test_the_host_never_waits_in_a_rollout(chain, truncation):
    pretrained = CHAINS[chain]()
    model = moved(pretrained)
    noise = model.draw_noise(4, torch.Generator().manual_seed(0))
    with HostWaits() as seen:
        path = rollout(model, pretrained, noise, **truncation)
        (path.point.square().sum() + path.kl.sum()).backward()
    assert seen.names == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("chain", CHAINS)
def test_a_gpu_is_never_waited_for_in_a_rollout(chain):
    pretrained = CHAINS[chain]().to("cuda")
    model = moved(pretrained)
    noise = model.draw_noise(4, torch.Generator().manual_seed(0)).to("cuda")

    def update():
        path = rollout(model, pretrained, noise)
        (path.point.square().sum() + path.kl.sum()).backward()

    update()  # kernels are compiled at their first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "truncation",
    [{}, {"n_grad_steps": 3, "weight": lambda t: 5 / (6 - t)}, {"n_grad_steps": 2, "prefix_step": 4}],
    ids=["full", "weighted", "prefix"],
)
@pytest.mark.parametrize("chain", CHAINS)
def test_checkpointing_changes_no_gradient(chain, truncation):
    pretrained = CHAINS[chain]()
    model = moved(pretrained)
    noise = model.draw_noise(4, torch.Generator().manual_seed(0))
    parameters = list(model.network.parameters())
    outcomes = []
    for checkpointing in (False, True):
        path = rollout(model, pretrained, noise, checkpointing=checkpointing, **truncation)
        objective = path.point.square().sum() - path.point.flatten(1)[:, 0].sum() - path.kl.sum()
        outcomes.append((path, torch.autograd.grad(objective, parameters, allow_unused=True)))
    (plain, gradient), (checkpointed, again) = outcomes
    assert torch.equal(plain.point, checkpointed.point) and torch.equal(plain.kl, checkpointed.kl)
    assert any(part is not None and part.any() for part in gradient)
    for part, same in zip(gradient, again, strict=True):
        assert (part is None and same is None) or torch.allclose(
            part, same, rtol=1e-6, atol=1e-6 * float(part.abs().max())
        )


@pytest.mark.parametrize("truncation", [{}, {"n_grad_steps": 5, "prefix_step": 8}], ids=["full", "prefix"])
def test_checkpointing_keeps_no_graph_of_more_than_a_step(truncation):
    """Tensors saved for the way back: those of the steps themselves when plain, a few a step when checkpointed."""
    pretrained = normal_chain(n_features=2, n_steps=10)
    model = pretrained.trainable_copy()
    noise = model.draw_noise(64, torch.Generator().manual_seed(0))

    def saved_numbers(checkpointing):
        numbers = []

        def pack(tensor):
            numbers.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            rollout(model, pretrained, noise, checkpointing=checkpointing, **truncation)
        return sum(numbers)

    assert saved_numbers(True) < 0.01 * saved_numbers(False)
