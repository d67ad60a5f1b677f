"""Pipelines of diffusers as chains, on tiny ones of the real classes."""

import copy
import json
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

from braidkit.diffusion import DiffusionModel, PipelineDiffusion, sample_path
from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidDesignError, InvalidParameterError
from braidkit.finetuning import DirectSolver, rollout
from braidkit.persistence import digest
from tests.worlds import moved, problem_on

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, StableDiffusionPipeline

from tests.pipelines import ddpm, images_of, stable_diffusion

PROMPTS = ["cat", "dog", "horse"]


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("pipelines") / "sd")


@pytest.fixture(scope="module")
def chain(sd):
    return PipelineDiffusion.from_pretrained(sd, prompts=PROMPTS, n_steps=5, guidance_scale=3)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    return ddpm(tmp_path_factory.mktemp("pipelines") / "grey")


@pytest.mark.parametrize(
    ("guidance_scale", "prediction", "noiseless"),
    [(3.0, "epsilon", False), (1.0, "v_prediction", False), (3.0, "sample", True)],
)
def test_the_chain_is_the_pipeline(tmp_path, guidance_scale, prediction, noiseless):
    folder = stable_diffusion(tmp_path / "sd", prediction_type=prediction, set_alpha_to_one=noiseless)
    chain = PipelineDiffusion.from_pretrained(folder, prompts=PROMPTS, n_steps=5, guidance_scale=guidance_scale)
    assert chain.n_steps == 5 - noiseless
    noise = chain.draw_noise(3, torch.Generator().manual_seed(0))
    prompts = [PROMPTS[i] for i in sample_path(chain, noise)[0][:, -1].long()]
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    expected = images_of(pipe, prompts, noise, 5, guidance_scale, skipped=int(noiseless))
    torch.testing.assert_close(chain.sample_points(noise).clamp(-1, 1), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", [DDPMPipeline, DDIMPipeline])
def test_an_unconditional_chain_is_the_pipeline(tmp_path, kind):
    folder = ddpm(tmp_path / "grey", None if kind is DDPMPipeline else DDIMScheduler())
    chain = PipelineDiffusion.from_pretrained(folder, n_steps=10)
    pipe = kind.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    options = {} if kind is DDPMPipeline else {"eta": 1.0}
    settings = {"batch_size": 2, "num_inference_steps": 10, "output_type": "np"}
    images = pipe(generator=torch.Generator().manual_seed(0), **settings, **options).images
    g = torch.Generator().manual_seed(0)
    # The pipeline draws the initial state first, then the noise of one step after the other.
    drawn = [torch.randn(2, 1, 8, 8, generator=g) for _ in range(10)]
    noise = torch.stack([drawn[0], *drawn[:0:-1]], dim=1)
    assert chain.state_shape == (1, 8, 8) and chain.n_steps == 9
    mine = (chain.sample_points(noise).clamp(-1, 1) + 1) / 2
    np.testing.assert_allclose(mine.permute(0, 2, 3, 1).numpy(), images, atol=1e-5)


def test_images_and_prompts_are_the_seeds_whatever_the_batch(chain):
    images = chain.sample(7, random_state=0)
    assert images.shape == (7, 16, 16, 3) and images.dtype == np.uint8
    np.testing.assert_allclose(chain.sample(7, random_state=0, batch_size=3).astype(int), images, atol=1)
    prompts = chain.drawn_prompts(7, random_state=0)
    assert len(set(prompts)) > 1 and set(prompts) <= set(PROMPTS)
    np.testing.assert_allclose(chain.sample(7, random_state=0, prompts=prompts).astype(int), images, atol=1)
    others = chain.sample(7, random_state=0, prompts=["a bird"])
    assert np.abs(others.astype(int) - images).max() > 1
    assert chain.prompts == tuple(PROMPTS) and len(chain.embeddings) == 4


def test_fine_tuning_changes_the_adapter_alone(chain):
    pretrained = chain.parts.network.module.state_dict()
    before = {name: tensor.clone() for name, tensor in pretrained.items()}
    model = chain.trainable_copy()
    assert model.parts is chain.parts
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in model.trainable.parameters())
    assert all(p.requires_grad for p in model.parameters()) and not any(p.requires_grad for p in chain.parameters())
    noise = chain.draw_noise(2, torch.Generator().manual_seed(0))
    assert torch.equal(model.sample_points(noise), chain.sample_points(noise))
    path = rollout(model, chain, noise)
    assert path.kl.tolist() == [0, 0]
    path.point.square().mean().backward()
    gradients = {name: p.grad for name, p in model.trainable.named_parameters()}
    assert all(g.any() == ("lora_B" in name) for name, g in gradients.items())  # A has none while B is zero
    assert all(torch.equal(pretrained[name], before[name]) for name in before)
    assert rollout(moved(chain), chain, noise).kl.min() > 0


def test_an_adapter_is_read_by_diffusers(chain, sd, tmp_path):
    model = moved(chain)
    model.freeze().save_pretrained(tmp_path / "adapter")
    noise = chain.draw_noise(3, torch.Generator().manual_seed(0))
    prompts = [PROMPTS[i] for i in sample_path(chain, noise)[0][:, -1].long()]
    pipe = StableDiffusionPipeline.from_pretrained(sd, safety_checker=None)
    pipe.load_lora_weights(tmp_path / "adapter", weight_name="model.safetensors")
    mine = model.sample_points(noise)
    torch.testing.assert_close(images_of(pipe, prompts, noise, 5, 3.0), mine.clamp(-1, 1), rtol=0, atol=2e-5)
    assert float((mine - chain.sample_points(noise)).abs().max()) > 0.01


def test_the_gradient_with_checkpoints_is_that_without(chain):
    model, noise = moved(chain), chain.draw_noise(2, torch.Generator().manual_seed(0))

    def gradients(**options):
        path = rollout(model, chain, noise, **options)
        loss = (chain.space.discretise(path.point).square().mean(dim=(1, 2, 3)) - 1e-3 * path.kl).mean()
        return torch.autograd.grad(loss, list(model.trainable.parameters()))

    for options in ({}, {"n_grad_steps": 3, "weight": lambda t: 5 / (6 - t)}, {"kl_step": 2}):
        for kept, again in zip(gradients(**options), gradients(checkpointing=True, **options), strict=True):
            torch.testing.assert_close(again, kept, rtol=1e-5, atol=1e-8)
            assert kept.any()


def test_direct_back_propagation_moves_every_prompts_images(chain):
    """Toward bright pixels, with one drawn step's KL and checkpointed steps; no base weight changes."""
    settings = {"alpha": 1e-8, "batch_size": 6, "learning_rate": 0.05}
    problem = problem_on(chain, lambda x: chain.space.discretise(x).mean(dim=(1, 2, 3)), **settings)
    solver = DirectSolver(checkpointing=True, kl_steps="one").setup(problem)
    for i in range(10):
        solver.update(i)
    noise = chain.draw_noise(12, torch.Generator().manual_seed(1))
    gain = (problem.model.sample_points(noise) - chain.sample_points(noise)).mean(dim=(1, 2, 3))
    prompts = sample_path(chain, noise)[0][:, -1]
    assert all((gain[prompts == number] > 0.003).all() for number in range(3))


@pytest.mark.parametrize("loader", [DiffusionModel, PipelineDiffusion])
def test_an_adapter_comes_back(chain, tmp_path, loader):
    model = moved(chain).freeze()
    model.save_pretrained(tmp_path / "adapter")
    model.save_pretrained(tmp_path / "adapter")
    loaded = loader.from_pretrained(tmp_path / "adapter")
    assert loaded.frozen and loaded.prompts == chain.prompts
    assert np.array_equal(loaded.sample(3, random_state=0), model.sample(3, random_state=0))
    assert digest(loaded) == digest(model) != digest(chain)
    assert (tmp_path / "adapter" / "model.safetensors").stat().st_size < 100_000


def test_an_adapter_follows_its_pipeline_and_no_other(sd, tmp_path):
    shutil.copytree(sd, tmp_path / "first")
    chain = PipelineDiffusion.from_pretrained(tmp_path / "first", prompts=["cat"], n_steps=3)
    chain.save_pretrained(tmp_path / "adapter")
    (tmp_path / "first").rename(tmp_path / "second")
    with pytest.raises(CheckpointError, match="first is not a directory"):
        PipelineDiffusion.from_pretrained(tmp_path / "adapter")
    loaded = PipelineDiffusion.from_pretrained(tmp_path / "adapter", base=tmp_path / "second")
    assert np.array_equal(loaded.sample(1, random_state=0), chain.sample(1, random_state=0))
    assert digest(loaded) == digest(chain)
    other = stable_diffusion(tmp_path / "other", beta_end=0.02)
    with pytest.raises(CheckpointError, match="not the one that this adapter was trained on"):
        PipelineDiffusion.from_pretrained(tmp_path / "adapter", base=other)
    with pytest.raises(InvalidParameterError, match="has its own n_steps"):
        PipelineDiffusion.from_pretrained(tmp_path / "adapter", n_steps=4)


def test_a_copy_goes_on_from_the_adapter(chain):
    """A fine-tuned chain is a pretrained one: its copies start from it, and the base is not changed."""
    model = moved(chain).freeze()
    noise = chain.draw_noise(2, torch.Generator().manual_seed(0))
    again = model.trainable_copy()
    assert torch.equal(again.sample_points(noise), model.sample_points(noise))
    assert rollout(again, model, noise).kl.tolist() == [0, 0]
    assert copy.deepcopy(model).parts is chain.parts


def test_noising_is_undone_by_the_readout_of_its_own_level(chain):
    x = chain.space.encode(chain.sample(4, random_state=0))
    clean = chain.noised(x, 0, torch.Generator().manual_seed(0))
    assert clean.shape == (4, *chain.state_shape)
    noisy = chain.noised(x, torch.tensor([0, 1, 3, 5]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy[0], clean[0])
    assert chain.as_points(noisy, 5).shape == x.shape and chain.denoise(noisy, 5).shape == x.shape


def test_frozen_weights_in_bfloat16(sd):
    chain = PipelineDiffusion.from_pretrained(sd, prompts=PROMPTS, n_steps=5, guidance_scale=3, dtype="bfloat16")
    exact = PipelineDiffusion.from_pretrained(sd, prompts=PROMPTS, n_steps=5, guidance_scale=3, dtype="float32")
    noise = chain.draw_noise(4, torch.Generator().manual_seed(0))
    path = rollout(moved(chain), chain, noise)
    assert path.point.dtype == path.kl.dtype == torch.float32
    torch.testing.assert_close(path.point, rollout(moved(exact), exact, noise).point, rtol=0.1, atol=0.1)
    path.kl.sum().backward()
    assert digest(chain) != digest(exact)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": "cat"}, r"pass \['cat'\]"),
        ({"prompts": []}, "prompts is empty"),
        ({"prompts": ["cat", 3]}, r"prompts\[1\] must be text; got 3"),
        (
            {"prompts": ["cat", "abcdefghijklmnop"]},
            r"prompts\[1\] has 18 tokens, and the text encoder takes 12; 'klmnop",
        ),
        ({"prompts": ["cat"], "eta": 0}, "eta must be above 0"),
        ({"prompts": ["cat"], "n_steps": 0}, "n_steps must be a whole number of at least 1; got 0"),
        ({"prompts": ["cat"], "lora_rank": 1.5}, "lora_rank must be a whole number"),
        ({"prompts": ["cat"], "dtype": "float16"}, 'dtype must be "auto", "float32" or "bfloat16"'),
        ({"prompts": ["cat"], "guidance_scale": float("nan")}, "guidance_scale must be a number"),
    ],
)
def test_bad_settings_are_named(sd, settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        PipelineDiffusion.from_pretrained(sd, **settings)


def test_a_pipeline_without_text_takes_no_prompts(grey):
    with pytest.raises(InvalidParameterError, match="leave out prompts"):
        PipelineDiffusion.from_pretrained(grey, prompts=["cat"])


def test_directories_that_hold_no_pipeline_are_named(sd, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        PipelineDiffusion.from_pretrained(tmp_path / "nowhere", prompts=["cat"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no model_index.json"):
        PipelineDiffusion.from_pretrained(tmp_path / "empty", prompts=["cat"])
    index = json.loads((sd / "model_index.json").read_text())
    shutil.copytree(sd, tmp_path / "changed")

    def load(**changes):
        (tmp_path / "changed" / "model_index.json").write_text(json.dumps(index | changes))
        PipelineDiffusion.from_pretrained(tmp_path / "changed", prompts=["cat"])

    with pytest.raises(IncompatibleModelError, match="holds a FluxPipeline"):
        load(_class_name="FluxPipeline")
    with pytest.raises(IncompatibleModelError, match="has no vae; the StableDiffusionPipeline needs it"):
        load(vae=[None, None])
    shutil.rmtree(tmp_path / "changed" / "vae")
    with pytest.raises(CheckpointError, match="cannot be loaded as a StableDiffusionPipeline"):
        load()
    (tmp_path / "changed" / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        PipelineDiffusion.from_pretrained(tmp_path / "changed", prompts=["cat"])


def test_images_of_another_size_are_refused(chain):
    with pytest.raises(InvalidDesignError, match=r"images must have shape \(n, 16, 16, 3\)"):
        chain.space.encode(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(InvalidParameterError, match="prompts must be a list of 3 texts"):
        chain.sample(3, prompts=["cat", "dog"])
