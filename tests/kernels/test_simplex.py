"""The steps of sticks and of their angles: Triton against plain torch, plain torch against the chain's policies."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.diffusion._jacobi import StickLaw
from braidkit.diffusion._policies import Bridge, Sticks
from braidkit.diffusion.simplex import EPS, SimplexDiffusion
from braidkit.exceptions import InvalidParameterError
from braidkit.kernels import bridge_step, simplex_step
from braidkit.kernels.bridge import bridge_step_torch
from braidkit.kernels.simplex import simplex_step_torch, sum_after
from braidkit.spaces import SequenceSpace

START, END = 1.0, 0.7


class Step(NamedTuple):
    """A public function, the same in plain torch, and the numbers that both take after their tensors."""

    run: Callable
    plain: Callable
    numbers: tuple[float, ...]

    def inputs(self, n, length, k, device="cpu", outside=True):
        """States, logits of two models, the true lineage counts, noise; some states beyond the edges if asked."""
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(n, length, k - 1, generator=generator)
        x = 1.2 * x - 0.1 if outside else 0.1 + 0.8 * x
        if self is BRIDGE:
            x = 0.5 * torch.pi * x
            x[1:, 0, 0] *= 1 - outside
        v = x.sin().square() if self is BRIDGE else x
        evidence = StickLaw(k, [END, START]).evidence(v.clamp(EPS, 1 - EPS), 1)
        network, other = torch.randn(2, n, length, k, generator=generator)
        logits = evidence.log_likelihoods() + network
        noise = torch.randn(x.shape, generator=generator)
        counts = evidence.lineages_zero, evidence.lineages_one
        return [part.to(device) for part in (x, logits, logits + 0.3 * other, *counts, noise)]


EULER = Step(simplex_step, simplex_step_torch, (START - END, EPS))
BRIDGE = Step(bridge_step, bridge_step_torch, (START, END))


@pytest.fixture(params=[EULER, BRIDGE], ids=["euler", "bridge"])
def step(request):
    return request.param


def check(step, logits, reference, mean, std, *rest):
    """The step against means (of logits) and deviations written out."""
    x, kl = step.run(rest[0], logits, reference, *rest[1:], *step.numbers)
    torch.testing.assert_close(x, mean(logits) + std * rest[-1])
    expected = ((mean(logits) - mean(reference)).double() / std).square().flatten(1).sum(dim=1) / 2
    torch.testing.assert_close(kl.double(), expected, rtol=1e-4, atol=1e-6)


def after(q):
    """What comes after each letter but the last."""
    return torch.stack([q[..., i + 1 :].sum(dim=-1) for i in range(q.shape[-1] - 1)], dim=-1)


@pytest.mark.parametrize("k", [2, 4, 20])
def test_twin_is_the_euler_step_of_the_letters(k):
    x_t, logits, reference, zero, one, noise = EULER.inputs(3, 10, k)
    v, b = x_t.clamp(EPS, 1 - EPS), torch.arange(k - 1, 0, -1)
    length = (START - END) * 2 / (1 + b)

    def mean(logits):
        q = logits.softmax(dim=-1)
        return v + length * (0.5 * (1 - (1 + b) * v) + (1 - v) * q[..., :-1] * one - v * after(q) * zero)

    check(EULER, logits, reference, mean, (length * v * (1 - v)).sqrt(), x_t, zero, one, noise)


@pytest.mark.parametrize("k", [2, 4, 20])
def test_twin_is_the_bridge_to_the_letters(k):
    """With the counts' integral over the step by quadrature."""
    x_t, logits, reference, zero, one, noise = BRIDGE.inputs(3, 10, k)
    v, b = x_t.sin().square().clamp(EPS, 1 - EPS), torch.arange(k - 1, 0, -1)
    speed, length = 2 / (1 + b), START - END
    grid = torch.linspace(END, START, 10_001, dtype=torch.float64)
    weight = float(torch.trapezoid(torch.tensor(START).sinh() / grid.sinh(), grid))

    def mean(logits):
        q = logits.softmax(dim=-1)
        up = speed * (length / 4 + weight * q[..., :-1] * one)
        down = speed * (length * (b / 2 - 1 / 4) + weight * after(q) * zero)
        end = up / (up + down) + (v - up / (up + down)) * (-up - down).exp()
        return end.clamp(EPS, 1 - EPS).sqrt().asin()

    check(BRIDGE, logits, reference, mean, (speed * length * END / START / 4).sqrt(), x_t, zero, one, noise)


def test_sum_after():
    torch.testing.assert_close(sum_after(torch.tensor([1.0, 2.0, 3.0, 4.0])), torch.tensor([9.0, 7.0, 4.0]))


@pytest.fixture(scope="module", params=["euler", "bridge"])
def models(request):
    """A chain and another of the same law with other weights."""
    space = SequenceSpace("DNA", length=6)
    designs = ["ACGTAC", "TTGACA"] * 8
    chains = (SimplexDiffusion(space, n_steps=5, scheme=request.param) for _ in range(2))
    return [chain.fit(designs, max_iter=2, random_state=seed) for seed, chain in enumerate(chains)]


@pytest.mark.parametrize("t", [5, 3, 1])
def test_twin_is_the_models_step_with_gradients(models, t):
    """Values, and the gradient in the state through the network and the tables."""
    model, reference = models
    generator = torch.Generator().manual_seed(t)
    state = 1.1 * torch.rand(4, 6, 3, generator=generator) - 0.05
    noise = torch.randn(state.shape, generator=generator)

    def by_policies(x_t):
        policy = model.policy(x_t, t)
        return policy.rsample(noise), policy.kl(reference.policy(x_t, t))

    def by_kernel(x_t):
        return model.policy(x_t, t).step(reference.policy(x_t, t), noise)

    results = []
    for run in (by_policies, by_kernel):
        x_t = state.clone().requires_grad_()
        x, kl = run(x_t)
        assert x.requires_grad
        (x.square().sum() + kl.sum()).backward()
        results.append((x, kl, x_t.grad))
    for ours, expected in zip(results[1], results[0], strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize(("n", "length", "k"), [(1, 1, 2), (3, 50, 4), (5, 31, 20), (2, 64, 4), (7, 61, 3)])
def test_triton_equals_torch(triton_device, assert_equal_to_torch, step, n, length, k):
    tensors = step.inputs(n, length, k, triton_device)
    assert_equal_to_torch(step.run, step.plain, tensors, step.numbers, n_with_gradient=5, rtol=2e-5)


@pytest.mark.parametrize("k", [4, 20])
def test_triton_equals_twin_with_narrow_logits(triton_device, assert_equal_to_torch, step, k):
    x, logits, reference, *rest = step.inputs(3, 50, k, triton_device)
    tensors = [x, logits.bfloat16(), reference.bfloat16(), *rest]
    assert_equal_to_torch(step.run, step.plain, tensors, step.numbers, n_with_gradient=5, rtol=1e-2)


def test_policies_draw_by_the_kernel(triton_device, step, monkeypatch):
    x, logits, _, zero, one, noise = step.inputs(3, 50, 4, triton_device)
    policy = Bridge(x, logits, zero, one, START, END) if step is BRIDGE else Sticks(x, logits, zero, one, START - END)
    expected = policy.normal.rsample(noise)
    kernel = "_BridgeStep" if step is BRIDGE else "_SimplexStep"
    function = getattr(sys.modules[step.run.__module__], kernel)
    with monkeypatch.context() as patch:
        calls = []
        apply = function.apply
        patch.setattr(function, "apply", lambda *arguments: calls.append(1) or apply(*arguments))
        drawn = policy.rsample(noise)
    assert calls == [1]
    torch.testing.assert_close(drawn, expected, rtol=2e-5, atol=1e-5)


def test_triton_reads_strided_tensors(triton_device, assert_equal_to_torch, step):
    tensors = [part.transpose(0, 1) for part in step.inputs(3, 50, 4, triton_device)]
    assert_equal_to_torch(step.run, step.plain, tensors, step.numbers, n_with_gradient=5, rtol=2e-5)


def test_large_logits_do_not_overflow(triton_device, step):
    x, logits, reference, *rest = step.inputs(2, 5, 4, triton_device)
    expected = step.plain(x, 1000 * logits, reference, *rest, *step.numbers)
    found = step.run(x, 1000 * logits, reference, *rest, *step.numbers)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [4, 20])
def test_simplex_step_gradients_in_plain_torch(step, k):
    tensors = [part.double() for part in step.inputs(2, 2, k, outside=False)]
    leaves = [part.requires_grad_() for part in tensors[:5]]
    assert torch.autograd.gradcheck(lambda *parts: step.run(*parts, tensors[5], *step.numbers), leaves)


def test_clamped_sticks_take_no_gradient(triton_device, step):
    x, *rest = step.inputs(4, 50, 4, triton_device)
    x.requires_grad_()
    drawn, kl = step.run(x, *rest, *step.numbers)
    (drawn.sum() + kl.sum()).backward()
    v = x.sin().square() if step is BRIDGE else x
    outside = (v < EPS) | (v > 1 - EPS)
    assert outside.any()
    assert not x.grad[outside].any()
    assert x.grad[~outside].all()


@pytest.mark.parametrize("edge", [0, 1])
def test_bridges_to_an_edge_take_no_gradient(triton_device, edge):
    """Counts that pull a stick beyond the clamp: its mean is at the edge, whatever the letters are."""
    x, logits, reference, zero, one, noise = BRIDGE.inputs(2, 5, 4, triton_device, outside=False)
    counts = [1e7 * (1 - edge) * (1 + zero), 1e7 * edge * (1 + one)]
    logits = (0.1 * logits).requires_grad_()
    drawn, kl = bridge_step(x, logits, reference, *counts, 0 * noise, START, END)
    (drawn.sum() + kl.sum()).backward()
    assert (((drawn.sin().square() - edge).abs() - EPS).abs() < 1e-6).all()
    assert not logits.grad.any()


@settings(max_examples=20)
@given(shift=st.floats(-5, 5), k=st.integers(2, 6), length=st.floats(0.001, 1), of=st.sampled_from([EULER, BRIDGE]))
def test_logits_matter_up_to_a_constant(shift, k, length, of):
    x, logits, _, *rest = of.inputs(2, 3, k)
    numbers = (0.1 + length, 0.1) if of is BRIDGE else (length,)
    drawn, kl = of.run(x, logits, logits + shift, *rest, *numbers)
    assert drawn.isfinite().all()
    torch.testing.assert_close(kl, torch.zeros(2), rtol=0, atol=1e-4)


def test_shapes_must_fit(step):
    x, logits, _, *rest = step.inputs(2, 3, 4)
    with pytest.raises(InvalidParameterError, match=r"logits \(n, length, K\); got .* and \(2, 3, 3\)"):
        step.run(x, logits, logits[..., 1:], *rest, *step.numbers)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("k", [4, 20])
def test_simplex_kernel_equals_plain_torch_on_cuda(assert_equal_to_torch, step, k):
    pytest.importorskip("triton")
    tensors = step.inputs(128, 50, k, "cuda")
    assert_equal_to_torch(step.run, step.plain, tensors, step.numbers, n_with_gradient=5, rtol=2e-5)
