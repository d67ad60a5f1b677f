"""Stable Diffusion XL and 3 as chains, on tiny pipelines of the real classes."""

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

from braidkit.diffusion import PipelineDiffusion
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.finetuning import rollout
from tests.worlds import moved

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from diffusers import StableDiffusion3Pipeline, StableDiffusionXLPipeline

from tests.pipelines import images_of, stable_diffusion_3, stable_diffusion_xl

PROMPTS = ["cat", "dog", "horse"]
# At next to no noise the steps are those of Euler, which the pipelines of flow matching take.
NOISELESS = 1e-6


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines")
    return {"xl": stable_diffusion_xl(folder / "xl"), "3": stable_diffusion_3(folder / "3", t5=True)}


@pytest.fixture(scope="module", params=["xl", "3"])
def chain(folders, request):
    settings = {"prompts": PROMPTS, "n_steps": 4, "guidance_scale": 3}
    return PipelineDiffusion.from_pretrained(folders[request.param], **settings)


def first_noise(chain, n):
    """Noise of the initial state and of no step, and its prompts."""
    noise = chain.draw_noise(n, torch.Generator().manual_seed(0))
    noise[:, 1:] = 0
    return noise, chain.prompts_of(noise)


@pytest.mark.parametrize(("guidance_scale", "negative"), [(3.0, ""), (3.0, "bad"), (1.0, "")])
def test_a_chain_of_sdxl_is_the_pipeline(folders, guidance_scale, negative):
    chain = PipelineDiffusion.from_pretrained(
        folders["xl"], prompts=PROMPTS, n_steps=5, guidance_scale=guidance_scale, negative_prompt=negative
    )
    noise = chain.draw_noise(3, torch.Generator().manual_seed(0))
    pipe = StableDiffusionXLPipeline.from_pretrained(folders["xl"])
    # Without a negative prompt the pipeline puts zeros for its embedding, not that of an empty text.
    options = {"negative_prompt": [negative] * 3} if negative else {}
    expected = images_of(pipe, chain.prompts_of(noise), noise, 5, guidance_scale, **options)
    torch.testing.assert_close(chain.sample_points(noise).clamp(-1, 1), expected, rtol=0, atol=2e-5)


def test_latents_of_other_zeros_and_units(tmp_path):
    folder = stable_diffusion_xl(tmp_path / "xl", latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 1.5, 0.5])
    chain = PipelineDiffusion.from_pretrained(folder, prompts=PROMPTS, n_steps=5, guidance_scale=3)
    noise = chain.draw_noise(2, torch.Generator().manual_seed(0))
    pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    expected = images_of(pipe, chain.prompts_of(noise), noise, 5, 3.0)
    torch.testing.assert_close(chain.sample_points(noise).clamp(-1, 1), expected, rtol=0, atol=2e-5)
    encoded = chain.parts.latents(expected)
    decoded = pipe.vae.encode(expected).latent_dist.mode()
    torch.testing.assert_close(chain.parts.images(encoded), pipe.vae.decode(decoded).sample, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("t5", "guidance_scale", "changes"),
    [(True, 3.0, {}), (False, 1.0, {}), (False, 3.0, {"use_dynamic_shifting": True, "shift": 1.0})],
)
def test_the_mean_steps_of_flow_matching_are_the_pipelines(tmp_path, t5, guidance_scale, changes):
    folder = stable_diffusion_3(tmp_path / "3", t5, **changes)
    chain = PipelineDiffusion.from_pretrained(
        folder, prompts=PROMPTS, n_steps=5, guidance_scale=guidance_scale, eta=NOISELESS
    )
    assert chain.n_steps == 4  # the last step has no noise
    noise, prompts = first_noise(chain, 3)
    pipe = StableDiffusion3Pipeline.from_pretrained(
        folder, **({} if t5 else {"text_encoder_3": None, "tokenizer_3": None})
    )
    expected = images_of(pipe, prompts, noise, 5, guidance_scale)
    torch.testing.assert_close(chain.sample_points(noise).clamp(-1, 1), expected, rtol=0, atol=2e-5)
    assert float(expected.std(dim=0).mean()) > 0.01


def test_an_adapter_is_read_by_diffusers(folders, tmp_path):
    pipelines = {"xl": StableDiffusionXLPipeline, "3": StableDiffusion3Pipeline}
    for kind, folder in folders.items():
        eta = 1.0 if kind == "xl" else NOISELESS
        chain = PipelineDiffusion.from_pretrained(folder, prompts=PROMPTS, n_steps=4, guidance_scale=3, eta=eta)
        model = moved(chain).freeze()
        model.save_pretrained(tmp_path / kind)
        noise, prompts = first_noise(chain, 2)
        pipe = pipelines[kind].from_pretrained(folder)
        pipe.load_lora_weights(tmp_path / kind, weight_name="model.safetensors")

        def pretrained_last(pipe, step, time, inputs, last=chain.n_steps - 1):
            if step == last:  # the next one has no noise, and is the readout's
                pipe.disable_lora()
            return inputs

        expected = images_of(pipe, prompts, noise, 4, 3.0, callback_on_step_end=pretrained_last)
        mine = model.sample_points(noise)
        torch.testing.assert_close(mine.clamp(-1, 1), expected, rtol=0, atol=2e-5)
        assert float((mine - chain.sample_points(noise)).abs().max()) > 0.01


def test_an_adapter_comes_back(chain, tmp_path):
    model = moved(chain).freeze()
    model.save_pretrained(tmp_path / "adapter")
    loaded = PipelineDiffusion.from_pretrained(tmp_path / "adapter")
    assert np.array_equal(loaded.sample(2, random_state=0), model.sample(2, random_state=0))
    others = loaded.sample(2, random_state=0, prompts=["a bird"])
    assert others.shape == (2, 16, 16, 3) and loaded.prompts == tuple(PROMPTS)


def test_the_gradient_with_checkpoints_is_that_without(chain):
    model, noise = moved(chain), chain.draw_noise(2, torch.Generator().manual_seed(0))

    def gradients(**options):
        path = rollout(model, chain, noise, **options)
        loss = (path.point.square().mean(dim=(1, 2, 3)) - 1e-3 * path.kl).mean()
        return path.kl, torch.autograd.grad(loss, list(model.trainable.parameters()))

    assert rollout(chain.trainable_copy(), chain, noise).kl.tolist() == [0, 0]
    kl, kept = gradients(n_grad_steps=3)
    assert (kl > 0).all() and any(tensor.any() for tensor in kept)
    for one, again in zip(kept, gradients(n_grad_steps=3, checkpointing=True)[1], strict=True):
        torch.testing.assert_close(again, one, rtol=1e-5, atol=1e-8)


def test_noise_is_added_between_the_images_and_standard_normal_latents(chain):
    x = chain.space.encode(chain.sample(8, random_state=0))
    noisy = chain.noised(x, chain.n_steps, torch.Generator().manual_seed(0))
    assert noisy.shape == (8, *chain.state_shape)
    assert float(noisy[:, :-1].std()) == pytest.approx(1, abs=0.15)
    assert chain.denoise(noisy, chain.n_steps).shape == x.shape


def test_a_prompt_may_be_as_long_as_the_longest_encoder_takes(folders):
    with pytest.raises(InvalidParameterError, match=r"prompts\[0\] has 18 tokens, and the text encoder takes 12"):
        PipelineDiffusion.from_pretrained(folders["xl"], prompts=["abcdefghijklmnop"], n_steps=4)
    PipelineDiffusion.from_pretrained(folders["3"], prompts=["abcdefghijklmnop"], n_steps=4)
    with pytest.raises(InvalidParameterError, match=r"prompts\[0\] has \d+ tokens, and the text encoder takes 256"):
        PipelineDiffusion.from_pretrained(folders["3"], prompts=["ab" * 200], n_steps=4)


def test_a_pipeline_that_makes_no_chain_is_refused(folders, tmp_path):
    index = json.loads((folders["xl"] / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"text_encoder": [None, None]}))
    with pytest.raises(IncompatibleModelError, match="has no text_encoder; the StableDiffusionXLPipeline needs it"):
        PipelineDiffusion.from_pretrained(tmp_path, prompts=["cat"])
    inverted = stable_diffusion_3(tmp_path / "3", invert_sigmas=True)
    with pytest.raises(IncompatibleModelError, match="without invert_sigmas"):
        PipelineDiffusion.from_pretrained(inverted, prompts=["cat"])


@pytest.mark.parametrize("kind", ["xl", "3"])
def test_frozen_weights_in_bfloat16(folders, kind):
    settings = {"prompts": PROMPTS, "n_steps": 3, "guidance_scale": 3}
    chain, exact = (
        PipelineDiffusion.from_pretrained(folders[kind], dtype=dtype, **settings) for dtype in ("bfloat16", "float32")
    )
    noise = chain.draw_noise(3, torch.Generator().manual_seed(0))
    path = rollout(moved(chain), chain, noise)
    assert path.point.dtype == path.kl.dtype == torch.float32
    torch.testing.assert_close(path.point, rollout(moved(exact), exact, noise).point, rtol=0.1, atol=0.1)
    path.kl.sum().backward()
