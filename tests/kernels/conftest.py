"""The comparison of kernels with the same functions in plain torch."""

from collections.abc import Callable

import pytest
import torch

from braidkit.kernels import _backend


@pytest.fixture
def assert_equal_to_torch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A check that a public function and one in plain torch have the same values and gradients, and that Triton ran."""
    launches = []
    for module in ("bridge", "gaussian", "posterior", "simplex"):
        original = _backend.launch

        def counted(*args, original=original, **kwargs):
            launches.append(args[0])
            original(*args, **kwargs)

        monkeypatch.setattr(f"braidkit.kernels.{module}.launch", counted)

    def check(function, plain, tensors, constants=(), *, n_with_gradient, rtol):
        results = []
        for run in (function, plain):
            leaves = [x.clone().requires_grad_(i < n_with_gradient) for i, x in enumerate(tensors)]
            out = run(*leaves, *constants)
            out = out if isinstance(out, tuple) else (out,)
            generator = torch.Generator().manual_seed(1)
            weights = [torch.randn(part.shape, generator=generator).to(part) for part in out]
            torch.autograd.backward(out, weights)
            results.append([*out, *(x.grad for x in leaves[:n_with_gradient])])
        assert len(launches) == 2  # forwards and backwards, and none from plain torch
        for ours, expected in zip(*results, strict=True):
            assert ours.shape == expected.shape
            assert ours.dtype == expected.dtype
            # Rounding is relative to the largest entry, since entries are sums of terms of both signs.
            scale = expected.abs().max().item()
            torch.testing.assert_close(ours, expected, rtol=rtol, atol=rtol * scale)

    return check
