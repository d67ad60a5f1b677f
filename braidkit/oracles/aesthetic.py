"""Aesthetic scores of pictures: LAION's predictors, which are linear heads on CLIP's embeddings."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braidkit.exceptions import CheckpointError, IncompatibleModelError, InvalidDesignError, InvalidParameterError
from braidkit.oracles._base import Oracle
from braidkit.parameters import check_choice
from braidkit.rewards import CLIPFeatures
from braidkit.spaces import ImageSpace, read_designs

HEADS = ("v2", "v1_l_14", "v1_b_32", "v1_b_16")


class AestheticOracle(Oracle):
    """LAION's aesthetic score of images, from about 1 to 10.

    The score is ``weight . embedding + bias``, of embeddings of length 1.

    Version 2, the paper's, was published as five layers without activations between them, so it is one affine map.

    Parameters
    ----------
    features : CLIPFeatures
        Embeddings of the CLIP that the head was trained on: ViT-L/14 for version 2.
    weight : array-like of shape (n_features,)
    bias : float

    References
    ----------
    Schuhmann et al. (2022), "LAION-5B". BRAID, section 7.2.
    """

    def __init__(self, features: CLIPFeatures, weight: Any, bias: float) -> None:
        if not isinstance(features, CLIPFeatures):
            raise InvalidParameterError(f"features must be CLIPFeatures; got {features!r:.60}.")
        weight = torch.as_tensor(np.asarray(weight, dtype=np.float32))
        if weight.shape != (features.n_features,):
            raise IncompatibleModelError(
                f"the head takes embeddings of {weight.numel()} numbers, and this CLIP gives {features.n_features}; "
                "pass the CLIP that the head was trained on (version 2: ViT-L/14)."
            )
        if not features.normalised:
            raise IncompatibleModelError("the heads take embeddings of length 1; pass CLIPFeatures(normalised=True).")
        self.features, self.weight, self.bias = features, weight, float(bias)

    @classmethod
    def from_npz(cls, path: str | os.PathLike[str], features: CLIPFeatures, head: str = "v2") -> AestheticOracle:
        """Read a head from an ``.npz`` file of arrays.

        Parameters
        ----------
        path : path-like
            With ``v2_affine_w`` (768,) and ``v2_affine_b`` (1,), or ``{head}_w`` and ``{head}_b``.
        features : CLIPFeatures
        head : {"v2", "v1_l_14", "v1_b_32", "v1_b_16"}, default="v2"

        Raises
        ------
        CheckpointError
            If the file is missing, or does not hold the head.
        """
        check_choice("head", head, HEADS)
        name = "v2_affine" if head == "v2" else head
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(features, arrays[f"{name}_w"], float(arrays[f"{name}_b"].item()))
        except (OSError, TypeError, KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path} holds no head {head!r} ({error}).") from error

    def score(self, x: Tensor) -> Tensor:
        """Scores (n,) of points of an `ImageSpace`, with gradients."""
        return self.features(x) @ self.weight.to(x.device) + self.bias

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Scores (n_samples,) of images of one size, uint8 or floats in [0, 1], channels last."""
        x = points_of_images(X)
        with torch.no_grad():
            parts = [self.score(part).double() for part in x.split(64)]
        return torch.cat(parts).numpy() if parts else np.zeros(0)


def points_of_images(X: Any) -> Any:
    """Points of images of whatever size they have, read in batches."""
    images = read_designs(X)
    if images.ndim not in (3, 4):
        raise InvalidDesignError(f"images must have shape (n, height, width[, channels]); got {images.shape}.")
    height, width, channels = (*images.shape, 1)[1:4]
    return ImageSpace(height, width, channels).points(images)
