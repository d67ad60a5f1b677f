"""Embeddings of images by CLIP, as features of rewards and of aesthetic heads."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braidkit.exceptions import CheckpointError, IncompatibleModelError, MissingExtraError
from braidkit.networks import Shared
from braidkit.persistence import digest, read_path

# The settings CLIP was trained with, for directories that have no others.
_DEFAULTS = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
}
_MODES = {2: "bilinear", 3: "bicubic"}
_AT_ONCE = 32
_MOST_CACHED = 200_000


class CLIPFeatures(nn.Module):
    """Embeddings of images by CLIP's image tower: features for a reward, differentiable in the pixels.

    The weights are frozen, and shared by all copies, as the members of a bootstrap are. What is saved with a reward is
    the directory's name, and reading it checks that the weights are still those. Embeddings of images that need no
    gradient are computed once and kept. Images are prepared as `CLIPImageProcessor` does, but for its rounding to
    8 bits between resizing and cropping.

    Parameters
    ----------
    directory : path-like
        Directory of a ``CLIPModel`` or a ``CLIPVisionModelWithProjection``, with its ``preprocessor_config.json``.
    normalised : bool, default=True
        Divide embeddings by their length, as LAION's aesthetic heads and the paper's reward take them.

    Attributes
    ----------
    n_features : int

    Raises
    ------
    CheckpointError
        If the directory is not there, or holds no such model.

    Examples
    --------
    The paper's network (Table 3), with a Gaussian process on its last layer::

        layers = [nn.Linear(768, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 16), nn.ReLU()]
        reward = GPBonusReward(nn.Sequential(CLIPFeatures("clip-vit-large-patch14"), *layers))
    """

    def __init__(self, directory: str | os.PathLike[str], *, normalised: bool = True) -> None:
        super().__init__()
        folder = read_path("directory", directory)
        self.normalised = normalised
        self._settings = _preparation(folder)
        self.tower = _SharedTower(folder)
        self.n_features = self.tower.n_features
        self._fingerprint = digest(self.tower.fingerprint, self._settings, normalised)
        self._kept = _Kept()

    def digest_parts(self) -> list[Any]:
        """The fingerprint of weights and settings."""
        return [self._fingerprint]

    def forward(self, x: Tensor) -> Tensor:
        """Points (n, channels, height, width) of an `ImageSpace` to embeddings (n, n_features)."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise IncompatibleModelError(
                f"CLIP takes images of shape (n, 3, height, width), or grey ones (n, 1, ...); got {tuple(x.shape)}."
            )
        if torch.is_grad_enabled() and x.requires_grad:
            return self._embed(x)
        with torch.no_grad():
            return torch.cat([self._looked_up(part) for part in x.split(_AT_ONCE)]) if len(x) else self._embed(x)

    def prepared(self, x: Tensor) -> Tensor:
        """Points as the tower takes them: resized, cropped in the centre and standardised."""
        settings = self._settings
        pixels = (x.clamp(-1, 1) + 1) / 2
        height, width = x.shape[2:]
        size = settings["size"]
        if isinstance(size, dict) and "height" in size:
            target = (size["height"], size["width"])
        else:
            edge = size if isinstance(size, int) else size["shortest_edge"]
            # The long side is cut to a whole number, not rounded, as the processor does.
            target = (edge, int(edge * width / height)) if height <= width else (int(edge * height / width), edge)
        mode = _MODES[settings["resample"]]
        pixels = F.interpolate(pixels, target, mode=mode, antialias=True, align_corners=False).clamp(0, 1)
        crop = settings["crop_size"]
        rows, columns = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
        top, left = (target[0] - rows) // 2, (target[1] - columns) // 2
        pixels = pixels[:, :, top : top + rows, left : left + columns].expand(-1, 3, -1, -1)
        mean, std = (x.new_tensor(settings[name])[:, None, None] for name in ("image_mean", "image_std"))
        return (pixels - mean) / std

    def _embed(self, x: Tensor) -> Tensor:
        embeddings = self.tower.on(x.device)(self.prepared(x))
        return F.normalize(embeddings, dim=1) if self.normalised else embeddings

    def _looked_up(self, x: Tensor) -> Tensor:
        """Embeddings, of which those of images that were seen before are not computed again."""
        keys = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x.detach().cpu().numpy()]
        new = {key: i for i, key in enumerate(keys) if key not in self._kept.rows}
        if len(self._kept.rows) + len(new) > _MOST_CACHED:
            self._kept.rows.clear()
            new = {key: i for i, key in enumerate(keys)}
        if new:
            self._kept.rows.update(zip(new, self._embed(x[list(new.values())]).cpu(), strict=True))
        return torch.stack([self._kept.rows[key] for key in keys]).to(x.device)


class _Kept:
    """Embeddings by the digest of the image, held by all copies of a `CLIPFeatures`."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Kept:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"rows": {}}  # they are computed again


class _SharedTower(Shared):
    """The frozen half of the CLIP model in a directory that reads images; saved as the directory's name.

    Attributes
    ----------
    fingerprint : str
        Of the weights.
    n_features : int
    """

    def __init__(self, directory: Path) -> None:
        tower = _load_tower(directory)
        super().__init__(tower)
        self.directory = str(directory.resolve())
        self.fingerprint = digest(dict(self.module.state_dict()))
        self.n_features: int = tower.projection.out_features

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "fingerprint": self.fingerprint}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _SharedTower.__init__(self, Path(state["directory"]))
        if self.fingerprint != state["fingerprint"]:
            raise CheckpointError(
                f"the CLIP model in {self.directory} is not the one that a saved reward sees images by: its weights "
                f"have the fingerprint {self.fingerprint}, and not {state['fingerprint']}."
            )


class _Tower(nn.Module):
    """The half of a CLIP model that reads images: prepared ones (n, 3, height, width) to embeddings."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision, self.projection = model.vision_model, model.visual_projection

    def forward(self, pixels: Tensor) -> Tensor:
        return self.projection(self.vision(pixel_values=pixels).pooler_output)


def _load_tower(folder: Path) -> _Tower:
    """The image tower in a directory, in float32."""
    if not (folder / "config.json").is_file():
        state = "is not a directory" if not folder.is_dir() else "has no config.json"
        raise CheckpointError(f"{folder} {state}; pass the directory of a CLIP model of transformers.")
    try:
        from transformers import CLIPModel, CLIPVisionModelWithProjection
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtraError('CLIP needs transformers: pip install "braidkit[images]".') from error
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is none of a CLIP model ({error!r:.80}).") from error
    if kind not in ("clip", "clip_vision_model"):
        raise CheckpointError(f"{folder} holds a model of type {kind!r}; pass the directory of a CLIP model.")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model = CLIPModel if kind == "clip" else CLIPVisionModelWithProjection
        return _Tower(model.from_pretrained(folder, local_files_only=True, dtype=torch.float32))
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} cannot be loaded as a CLIP model: {error}") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _preparation(folder: Path) -> dict[str, Any]:
    """The preparation of images that a directory's settings ask for."""
    path = folder / "preprocessor_config.json"
    given = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    settings = {name: given.get(name, value) for name, value in _DEFAULTS.items()}
    if settings["resample"] not in _MODES:
        raise IncompatibleModelError(f"{path} resamples by method {settings['resample']}; only 2 and 3 are known here.")
    return settings
