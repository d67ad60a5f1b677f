"""A trained Stable Diffusion pipeline, from measured pictures to an adapter that diffusers reads."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, PipelineDiffusion
from braidkit.finetuning import DirectSolver

diffusers = pytest.importorskip("diffusers")
ANIMALS = ["bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra"]


@pytest.fixture
def animals(models_dir):
    """A small pipeline of animal silhouettes, of 32 x 32 pixels."""
    return models_dir / "animal-sd"


@pytest.mark.slow
@pytest.mark.data
def test_pictures_with_more_ink_from_measured_ones(animals, data_dir, tmp_path):
    with np.load(data_dir / "animal_mnist.npz") as arrays:
        images = arrays["images"][::50]
    X = np.repeat(np.pad(images, [(0, 0), (2, 2), (2, 2)])[..., None], 3, axis=3)
    y = X.mean(axis=(1, 2, 3)) / 255
    chain = PipelineDiffusion.from_pretrained(animals, prompts=ANIMALS, n_steps=10, guidance_scale=3)
    finetuner = ConservativeDiffusionFinetuner(
        chain,
        alpha=1e-5,
        reward=GPBonusReward(max_iter=100),
        solver=DirectSolver(kl_steps="one", checkpointing=True),
        max_iter=5,
        batch_size=16,
        learning_rate=5e-3,
        random_state=0,
    ).fit(X, y)
    assert np.isfinite(finetuner.history_["kl"]).all() and finetuner.history_["kl"][0] == 0
    before, after = (model.sample(32, random_state=1) for model in (chain, finetuner.model_))
    assert after.shape == (32, 32, 32, 3) and after.dtype == np.uint8
    assert after.mean() > before.mean() + 2

    finetuner.model_.save_pretrained(tmp_path / "adapter")
    assert np.array_equal(PipelineDiffusion.from_pretrained(tmp_path / "adapter").sample(32, random_state=1), after)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(animals)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(tmp_path / "adapter", weight_name="model.safetensors")
    noise = chain.draw_noise(2, torch.Generator().manual_seed(1))[:, 0, :-1].reshape(2, 4, 8, 8)
    settings = {"num_inference_steps": 10, "guidance_scale": 3.0, "output_type": "np"}
    pictures = {}
    for adapted in (True, False):
        pipe.enable_lora() if adapted else pipe.disable_lora()
        pictures[adapted] = pipe(["cow", "dog"], latents=noise, **settings).images
    assert pictures[True].mean() > pictures[False].mean()
