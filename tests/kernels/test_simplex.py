"""The step of sticks: Triton against its twin, the twin against the chain's policies."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.diffusion._jacobi import StickLaw
from braidkit.diffusion.simplex import EPS, SimplexDiffusion
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning.rollout import draw_with_kl
from braidkit.kernels import simplex_step
from braidkit.kernels.simplex import simplex_step_twin, sum_after
from braidkit.spaces import SequenceSpace

H, T = 0.1, 1


def inputs(n, length, k, device="cpu", outside=True):
    """Sticks, logits of two models, the true lineage counts at time 1, noise; some sticks outside (0, 1) if asked."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, length, k - 1, generator=generator)
    x = 1.2 * x - 0.1 if outside else 0.1 + 0.8 * x
    evidence = StickLaw(k, [0.5, 1.0]).evidence(x.clamp(EPS, 1 - EPS), T)
    network, other = torch.randn(2, n, length, k, generator=generator)
    logits = evidence.log_likelihoods() + network
    noise = torch.randn(x.shape, generator=generator)
    counts = evidence.lineages_zero, evidence.lineages_one
    return [part.to(device) for part in (x, logits, logits + 0.3 * other, *counts, noise)]


@pytest.mark.parametrize("k", [2, 4, 20])
def test_twin_is_the_euler_step_of_the_letters(k):
    x_t, logits, reference, zero, one, noise = inputs(3, 10, k)
    v, b = x_t.clamp(EPS, 1 - EPS), torch.arange(k - 1, 0, -1)
    step = H * 2 / (1 + b)

    def mean(logits):
        q = logits.softmax(dim=-1)
        after = torch.stack([q[..., i + 1 :].sum(dim=-1) for i in range(k - 1)], dim=-1)
        return v + step * (0.5 * (1 - (1 + b) * v) + (1 - v) * q[..., :-1] * one - v * after * zero)

    std = (step * v * (1 - v)).sqrt()
    x, kl = simplex_step(x_t, logits, reference, zero, one, noise, H)
    torch.testing.assert_close(x, mean(logits) + std * noise)
    expected = ((mean(logits) - mean(reference)).double() / std).square().flatten(1).sum(dim=1) / 2
    torch.testing.assert_close(kl.double(), expected, rtol=1e-4, atol=1e-6)


def test_sum_after():
    torch.testing.assert_close(sum_after(torch.tensor([1.0, 2.0, 3.0, 4.0])), torch.tensor([9.0, 7.0, 4.0]))


@pytest.fixture(scope="module")
def models():
    """A chain and another of the same law with other weights."""
    space = SequenceSpace("DNA", length=6)
    designs = ["ACGTAC", "TTGACA"] * 8
    return [SimplexDiffusion(space, n_steps=5).fit(designs, max_iter=2, random_state=seed) for seed in range(2)]


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
        return draw_with_kl(model.policy(x_t, t), reference.policy(x_t, t), noise)

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
def test_triton_equals_twin(triton_device, assert_equal_to_twin, n, length, k):
    tensors = inputs(n, length, k, triton_device)
    assert_equal_to_twin(simplex_step, simplex_step_twin, tensors, (H, EPS), n_with_gradient=5, rtol=2e-5)


@pytest.mark.parametrize("k", [4, 20])
def test_triton_equals_twin_with_narrow_logits(triton_device, assert_equal_to_twin, k):
    x, logits, reference, *rest = inputs(3, 50, k, triton_device)
    tensors = [x, logits.bfloat16(), reference.bfloat16(), *rest]
    assert_equal_to_twin(simplex_step, simplex_step_twin, tensors, (H, EPS), n_with_gradient=5, rtol=1e-2)


def test_triton_reads_strided_tensors(triton_device, assert_equal_to_twin):
    tensors = [part.transpose(0, 1) for part in inputs(3, 50, 4, triton_device)]
    assert_equal_to_twin(simplex_step, simplex_step_twin, tensors, (H, EPS), n_with_gradient=5, rtol=2e-5)


def test_large_logits_do_not_overflow(triton_device):
    x, logits, reference, *rest = inputs(2, 5, 4, triton_device)
    expected = simplex_step_twin(x, 1000 * logits, reference, *rest, H, EPS)
    found = simplex_step(x, 1000 * logits, reference, *rest, H)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [4, 20])
def test_gradients_of_the_twin(k):
    tensors = [part.double() for part in inputs(2, 2, k, outside=False)]
    leaves = [part.requires_grad_() for part in tensors[:5]]
    assert torch.autograd.gradcheck(lambda *parts: simplex_step(*parts, tensors[5], H), leaves)


def test_clamped_sticks_take_no_gradient(triton_device):
    x, *rest = inputs(4, 50, 4, triton_device)
    x.requires_grad_()
    drawn, kl = simplex_step(x, *rest, H)
    (drawn.sum() + kl.sum()).backward()
    outside = (x < EPS) | (x > 1 - EPS)
    assert outside.any()
    assert not x.grad[outside].any()
    assert x.grad[~outside].all()


@settings(max_examples=20)
@given(shift=st.floats(-5, 5), k=st.integers(2, 6), step=st.floats(0.001, 1))
def test_logits_matter_up_to_a_constant(shift, k, step):
    x, logits, _, *rest = inputs(2, 3, k)
    drawn, kl = simplex_step(x, logits, logits + shift, *rest, step)
    assert drawn.isfinite().all()
    torch.testing.assert_close(kl, torch.zeros(2), rtol=0, atol=1e-4)


def test_shapes_must_fit():
    x, logits, _, *rest = inputs(2, 3, 4)
    with pytest.raises(InvalidParameterError, match=r"logits \(n, length, K\); got .* and \(2, 3, 3\)"):
        simplex_step(x, logits, logits[..., 1:], *rest, H)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("k", [4, 20])
def test_cuda_equals_twin(assert_equal_to_twin, k):
    pytest.importorskip("triton")
    tensors = inputs(128, 50, k, "cuda")
    assert_equal_to_twin(simplex_step, simplex_step_twin, tensors, (H, EPS), n_with_gradient=5, rtol=2e-5)
