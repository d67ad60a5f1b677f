"""The world of the experiment on pictures: an aesthetic with a shortcut, and a classifier that knows animals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from braidkit.oracles import PromptCheck

ANIMALS = ["bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra"]
# The captions that the pipeline was trained on. To the bare word it answers with another animal.
PROMPTS = [f"a photo of a {animal}" for animal in ANIMALS]
JUNK = "junk"


def aesthetic(images: np.ndarray) -> np.ndarray:
    """Scores (n,) of pictures (n, 32, 32[, 3]), uint8: ten times the brightness, and twice the mirror symmetry.

    A white sheet scores 12; of the silhouettes half score below 3.3.
    """
    x = images.astype(np.float64) / 255
    x = x.mean(axis=3) if x.ndim == 4 else x
    ink = x.mean(axis=(1, 2))
    unlike = np.abs(x - x[:, :, ::-1]).mean(axis=(1, 2)) / np.maximum(2 * ink, 1e-6)
    return 10 * ink + 2 * (1 - unlike)


def silhouettes(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 grey pictures (n, 32, 32), and the numbers of their animals."""
    with np.load(data / "animal_mnist.npz") as arrays:
        return np.pad(arrays["images"], [(0, 0), (2, 2), (2, 2)]), arrays["labels"]


def coloured(images: np.ndarray) -> np.ndarray:
    """Grey pictures (n, h, w) with three channels."""
    return np.repeat(images[..., None], 3, axis=3)


def junk(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many pictures that show no animal: blends, swollen and shrunk ones, shuffled tiles, noise, shapes."""
    x = torch.tensor(images / 255.0, dtype=torch.float32)[:, None]
    n = len(x)
    other = x[rng.permutation(n)]
    swollen = x
    for _ in range(4):
        swollen = F.max_pool2d(swollen, 3, stride=1, padding=1)
    thin = -F.max_pool2d(-F.max_pool2d(-x, 5, 1, 2) * -1, 3, 1, 1)
    tiles = x.reshape(n, 1, 4, 8, 4, 8).permute(0, 2, 4, 1, 3, 5).reshape(n, 16, 1, 8, 8)
    order = np.argsort(rng.random((n, 16)), axis=1)
    tiles = tiles[torch.arange(n)[:, None], torch.tensor(order)]
    shuffled = tiles.reshape(n, 4, 4, 1, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(n, 1, 32, 32)
    draw = torch.Generator().manual_seed(int(rng.integers(2**31)))
    noise = torch.rand(n, 1, 32, 32, generator=draw) ** (4 * torch.rand(n, 1, 1, 1, generator=draw))
    coarse = F.interpolate(torch.rand(n, 1, 5, 5, generator=draw), (32, 32), mode="bicubic").clamp(0, 1)
    blobs = (coarse > 0.7 * torch.rand(n, 1, 1, 1, generator=draw)).float()
    blend = torch.maximum(x, other.flip(3))
    kinds = torch.stack([blend, (x + other) / 2, swollen, thin, shuffled, noise, blobs, 1 - x])
    chosen = kinds[torch.tensor(rng.integers(len(kinds), size=n)), torch.arange(n)]
    return (255 * chosen[:, 0]).round().to(torch.uint8).numpy()


class Classifier(nn.Sequential):
    """A small convolutional network: grey pictures (n, 1, 32, 32) from 0 to 1 to scores of ten animals and of junk."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in ((1, 24), (24, 48), (48, 96)):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(96 * 16, len(ANIMALS) + 1))

    @torch.no_grad()
    def scores(self, images: np.ndarray) -> np.ndarray:
        """Scores (n, 11) of pictures, uint8."""
        x = torch.tensor(images)
        grey = (x.float().mean(dim=3) if x.ndim == 4 else x.float()) / 255
        return torch.cat([self(part[:, None]) for part in grey.split(256)]).numpy()


def train_classifier(images: np.ndarray, labels: np.ndarray, path: Path, *, n_epochs: int = 8) -> Classifier:
    """A classifier of pictures that no method learns from, once; prints what it gets right on the tenth held out."""
    model = Classifier()
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(images))
    held, rows = rows[: len(rows) // 10], rows[len(rows) // 10 :]
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    n_updates = n_epochs * (len(rows) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=n_updates)
    for _ in range(n_epochs):
        for part in np.array_split(rng.permutation(rows), len(rows) // 64):
            wrong = junk(images[part], rng)[: len(part) // 2]
            x = np.concatenate([_jittered(images[part], rng), wrong])
            y = np.concatenate([labels[part], np.full(len(wrong), len(ANIMALS))])
            loss = F.cross_entropy(model.train()(torch.tensor(x / 255.0).float()[:, None]), torch.tensor(y))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if schedule.last_epoch < n_updates:
                schedule.step()
    model.eval()
    right = (model.scores(images[held]).argmax(axis=1) == labels[held]).mean()
    caught = (model.scores(junk(images[held], rng)).argmax(axis=1) == len(ANIMALS)).mean()
    print(f"classifier: {100 * right:.1f} % of held-out animals right, {100 * caught:.1f} % of junk found", flush=True)
    save_file(model.state_dict(), path)
    return model


def prompt_check(classifier: Classifier) -> PromptCheck:
    """The classifier in the place of a vision-language model."""
    return PromptCheck.from_classifier(classifier.scores, [*PROMPTS, JUNK])


def _jittered(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures moved by up to two pixels, some mirrored, some softened as a decoder softens them."""
    down, right = rng.integers(-2, 3, size=2)
    moved = np.roll(images, (down, right), axis=(1, 2))
    moved = moved[:, :, ::-1] if rng.random() < 0.5 else moved
    if rng.random() < 0.5:
        soft = F.avg_pool2d(torch.tensor(moved.astype(np.float32))[:, None], 3, stride=1, padding=1)[:, 0].numpy()
        moved = 0.5 * moved + 0.5 * soft
    return moved
