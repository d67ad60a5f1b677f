"""A small image encoder of CLIP's classes for the experiment on pictures, trained by contrast on silhouettes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from paper_images_world import coloured
from torch import Tensor
from torch.nn import functional as F

from braidkit.rewards import CLIPFeatures

TEMPERATURE = 0.1


def encoder(images: np.ndarray, path: Path, *, n_updates: int = 600, batch_size: int = 96) -> CLIPFeatures:
    """Embeddings by an encoder that tells grey pictures (n, 32, 32) apart, trained once, and kept in a directory.

    Two views of a picture, moved and mirrored and softened, are to have like embeddings, those of two pictures unlike
    ones (Chen et al. 2020). No scores, animals or prompts are used.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    if not path.exists():
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        config = CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            projection_dim=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=32,
            patch_size=4,
        )
        model = CLIPVisionModelWithProjection(config).train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=n_updates)
        for i in range(n_updates):
            some = images[rng.choice(len(images), batch_size, replace=False)]
            pixels = torch.cat([_view(some, rng), _view(some, rng)])
            z = F.normalize(model(pixel_values=pixels).image_embeds, dim=1)
            likeness = (z @ z.T / TEMPERATURE).fill_diagonal_(-torch.inf)
            other = torch.arange(2 * batch_size).roll(batch_size)
            loss = F.cross_entropy(likeness, other)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if (i + 1) % 100 == 0:
                found = float((likeness.argmax(dim=1) == other).float().mean())
                print(f"encoder: update {i + 1}, loss {loss:.2f}, other view found in {100 * found:.0f} %", flush=True)
        half = path.with_name(f"half-{path.name}")
        model.eval().save_pretrained(half)
        half_preparation = {"size": {"shortest_edge": 32}, "crop_size": 32, "image_mean": [0.5] * 3}
        (half / "preprocessor_config.json").write_text(json.dumps(half_preparation | {"image_std": [0.5] * 3}))
        half.rename(path)
    return CLIPFeatures(path)


def _view(images: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Pictures moved by up to three pixels, mirrored, softened and made fainter by chance; from -1 to 1."""
    n = len(images)
    padded = np.pad(images, [(0, 0), (3, 3), (3, 3)])
    down, right = rng.integers(0, 7, size=(2, n))
    rows, columns = down[:, None] + np.arange(32), right[:, None] + np.arange(32)
    moved = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    moved = np.where(rng.random((n, 1, 1)) < 0.5, moved[:, :, ::-1], moved)
    x = torch.tensor(coloured(moved) / 255, dtype=torch.float32).permute(0, 3, 1, 2)
    share = torch.tensor(rng.uniform(0, 1, size=(n, 1, 1, 1)), dtype=torch.float32)
    x = (1 - share) * x + share * F.avg_pool2d(x, 3, stride=1, padding=1)
    return 2 * x * torch.tensor(rng.uniform(0.8, 1, size=(n, 1, 1, 1)), dtype=torch.float32) - 1
