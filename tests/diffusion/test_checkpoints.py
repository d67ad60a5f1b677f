"""Published checkpoints: a state dict of their names and shapes, against the network that they describe."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from braidkit import SequenceSpace
from braidkit.diffusion.checkpoints import load_ddsm_checkpoint
from braidkit.exceptions import CheckpointError, InvalidParameterError

DILATIONS = (1, 1, 4, 16, 64) * 4
SPACE = SequenceSpace("DNA", length=12)


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Random weights under the published names, with classes."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / np.sqrt(np.prod(shape[1:]) or 1)

    state = {"embed.0.W": 30 * draw(128), "embed.1.weight": draw(256, 256), "embed.1.bias": draw(256)}
    state |= {"linear.weight": draw(256, 4, 9), "linear.bias": draw(256), "scale": torch.ones(1)}
    for i in range(20):
        state |= {f"blocks.{i}.weight": draw(256, 256, 9), f"blocks.{i}.bias": draw(256)}
        state |= {f"denses.{i}.dense.weight": draw(256, 256), f"denses.{i}.dense.bias": draw(256)}
        state |= {f"cls_layers.{i}.dense.weight": draw(256, 256), f"cls_layers.{i}.dense.bias": draw(256)}
        state |= {f"norms.{i}.weight": 1 + draw(256) / 5, f"norms.{i}.bias": draw(256) / 5}
    state |= {"final.0.weight": draw(256, 256, 1), "final.0.bias": draw(256)}
    state |= {"final.2.weight": draw(4, 256, 1), "final.2.bias": draw(4)}
    state |= {"embed_class.weight": draw(4, 256)}
    state |= {"time_dependent_weights": torch.linspace(9, 0.5, 400, dtype=torch.float64).sqrt()}
    return state


def without_classes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not re.match("embed_class|cls_layers", name)}


def published_score(state: dict[str, Tensor], x: Tensor, t: float) -> Tensor:
    """The published network written out in torch's functions: points (n, L, 4) at one time to scores."""
    angle = 2 * torch.pi * (t / 2) * state["embed.0.W"]
    features = torch.cat([angle.sin(), angle.cos()])[None]
    embedding = F.silu(F.linear(features, state["embed.1.weight"], state["embed.1.bias"]))
    h = F.silu(F.conv1d(x.transpose(1, 2), state["linear.weight"], state["linear.bias"], padding=4))
    for i, dilation in enumerate(DILATIONS):
        dense = f"denses.{i}.dense"
        shifted = h + F.linear(embedding, state[f"{dense}.weight"], state[f"{dense}.bias"])[:, :, None]
        if "embed_class.weight" in state:
            dense = f"cls_layers.{i}.dense"
            null = state["embed_class.weight"][-1:]
            shifted = shifted + F.linear(null, state[f"{dense}.weight"], state[f"{dense}.bias"])[:, :, None]
        normed = F.group_norm(shifted, 1, state[f"norms.{i}.weight"], state[f"norms.{i}.bias"])
        weight, bias = state[f"blocks.{i}.weight"], state[f"blocks.{i}.bias"]
        h = h + F.silu(F.conv1d(normed, weight, bias, padding=4 * dilation, dilation=dilation))
    h = F.gelu(F.conv1d(h, state["final.0.weight"], state["final.0.bias"]))
    out = F.conv1d(h, state["final.2.weight"], state["final.2.bias"]).transpose(1, 2)
    root_weights = state["time_dependent_weights"]
    before = min(max(int(np.floor(t / 0.01)) - 1, 0), 399)
    after = min(before + 1, 399)
    share = np.clip(t / 0.01 - 1 - before, 0, 1)
    out = out * ((1 - share) * root_weights[before] + share * root_weights[after]).float()
    return out - out.mean(dim=-1, keepdim=True)


def stick_scores(score: Tensor, v: Tensor) -> Tensor:
    """Scores in stick space for scores in x: the chain rule by autograd, and the slope of the log-Jacobian."""
    v = v.clone().requires_grad_()
    left = torch.cat([torch.ones_like(v[..., :1]), (1 - v).cumprod(dim=-1)], dim=-1)
    x = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1) * left
    (slope,) = torch.autograd.grad(x, v, score.to(v.dtype))
    return slope - torch.arange(v.shape[-1] - 1, -1, -1) / (1 - v.detach())


@pytest.mark.parametrize("with_classes", [False, True])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}}])
def test_chain_is_that_of_the_published_network(published, tmp_path, with_classes, wrap):
    state = published if with_classes else without_classes(published)
    torch.save(wrap(state), tmp_path / "published.ckpt")
    model = load_ddsm_checkpoint(tmp_path / "published.ckpt", space=SPACE, n_steps=5)
    assert model.frozen and not any(parameter.requires_grad for parameter in model.parameters())
    v = 0.05 + 0.9 * torch.rand(3, *model.state_shape, generator=torch.Generator().manual_seed(1))
    x = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    x = x * torch.cat([torch.ones_like(v[..., :1]), (1 - v).cumprod(dim=-1)], dim=-1)
    b = torch.tensor([3.0, 2.0, 1.0])
    s = 2 / (1 + b)
    for t in (5, 1):
        score = stick_scores(published_score(state, x, model.times[t]), v.double())
        h = model.times[t] - model.times[t - 1]
        # The Euler step as math.md writes it.
        drift = (1 - v - b * v) / 2 - (1 - 2 * v) - v * (1 - v) * score
        policy = model.policy(v, t)
        torch.testing.assert_close(policy.mean, (v - h * s * drift).float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(policy.std, (h * s * v * (1 - v)).sqrt())


def test_loaded_model_samples_and_can_be_saved(published, tmp_path):
    torch.save(published, tmp_path / "published.ckpt")
    model = load_ddsm_checkpoint(tmp_path / "published.ckpt", space=SPACE, n_steps=2)
    designs = model.sample(2, random_state=0)
    assert all(re.fullmatch("[ACGT]{12}", design) for design in designs)
    model.save_pretrained(tmp_path / "model")
    assert type(model).from_pretrained(tmp_path / "model").sample(2, random_state=0) == designs


def test_the_scale_of_the_score_is_a_function_of_time(published, tmp_path):
    """At any number of steps it is that of the file, also after saving; at the same number designs are the same."""
    torch.save(published, tmp_path / "published.ckpt")
    model = load_ddsm_checkpoint(tmp_path / "published.ckpt", space=SPACE, n_steps=2)
    model.save_pretrained(tmp_path / "model")
    known = 0.01 * np.arange(1, 401)
    for chain in (model, model.with_steps(2), type(model).from_pretrained(tmp_path / "model")):
        assert chain.sample(2, random_state=0) == model.sample(2, random_state=0)
        finer = chain.with_steps(7)
        expected = np.interp(finer.times, known, published["time_dependent_weights"].numpy())
        np.testing.assert_allclose(finer.score_scale.numpy(), expected, rtol=1e-6)


def test_unknown_ddsm_checkpoints_are_refused(published, tmp_path):
    path = tmp_path / "published.ckpt"
    with pytest.raises(CheckpointError, match="is not there"):
        load_ddsm_checkpoint(path, space=SPACE)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="published.ckpt"):
        load_ddsm_checkpoint(path, space=SPACE)
    torch.save({"state_dict": published, "callbacks": re.compile("code")}, path)
    with pytest.raises(CheckpointError, match="more than tensors"):
        load_ddsm_checkpoint(path, space=SPACE)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="no state dict"):
        load_ddsm_checkpoint(path, space=SPACE)
    torch.save({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="no DDSM or BRAID"):
        load_ddsm_checkpoint(path, space=SPACE)
    # A later variant of the conditional network, which adds its class twice, has a name of its own.
    torch.save(published | {"additional_embed_class.weight": torch.zeros(4, 256)}, path)
    with pytest.raises(CheckpointError, match="additional_embed_class"):
        load_ddsm_checkpoint(path, space=SPACE)
    torch.save({name: value for name, value in published.items() if name != "norms.3.bias"}, path)
    with pytest.raises(CheckpointError, match=r"blocks\.3\.norm\.bias"):
        load_ddsm_checkpoint(path, space=SPACE)
    torch.save(published, path)
    with pytest.raises(InvalidParameterError, match="4 letters, but the space has 20"):
        load_ddsm_checkpoint(path, space=SequenceSpace("protein", length=12))
