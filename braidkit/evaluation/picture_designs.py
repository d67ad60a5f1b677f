"""The designs of a run on pictures: the best of many candidates of each prompt, each with reasons to look twice."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_argmin_min

from braidkit.evaluation.arguments import check_fitted, read_measured
from braidkit.evaluation.choosing import concerns, poor_predictions, serious_flags
from braidkit.evaluation.flags import in_words, kept_pretrained, usual_flags
from braidkit.evaluation.quantities import quantity_columns, unsure_conditions
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError
from braidkit.finetuning import sample_with_kl
from braidkit.parameters import check_number, check_random_state
from braidkit.persistence import replace_file
from braidkit.progress import Progress
from braidkit.spaces import ImageSpace

# Candidates drawn for each design: a picture costs far more than a sequence.
_CANDIDATES = 3
# Measured pictures, drawn at random, whose penalties the designs' are compared with.
_N_PENALTIES = 500
# Pictures are averaged to at most so many pixels a side before they are compared with measured ones.
_SIDE = 32


class PictureDesigns(NamedTuple):
    """Pictures to use, and what is predicted of them.

    Attributes
    ----------
    table : DataFrame
        A row a picture, best lower bound first; see `picture_table`.
    images : ndarray of shape (n, height, width[, 3]), uint8
    """

    table: pd.DataFrame
    images: NDArray[np.uint8]


def picture_table(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    n_designs: int = 100,
    n_candidates: int | None = None,
    files: Sequence[str] | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> PictureDesigns:
    """Draw candidates from a fine-tuned model of pictures, and give the best lower bounds.

    A pipeline that takes prompts draws as many candidates of each, and gives as many designs of each, or one more.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
        On pictures.
    X : array-like of shape (n_samples, height, width[, 3])
        The measured pictures.
    y : array-like of shape (n_samples,)
        Their measurements.
    n_designs : int, default=100
        Designs wanted.
    n_candidates : int, optional
        Candidates drawn; three for each design by default.
    files : sequence of str, optional
        Names of the measured pictures; by default their row numbers.
    random_state : int, RandomState or None

    Returns
    -------
    designs : PictureDesigns
        With the columns

        - "id": "design_1", "design_2", ...
        - "prompt", of a pipeline that takes prompts
        - "mean", "penalty", "lower": r_hat, g_hat and their difference, in y's units
        - "judge": prediction of the judge, which was never optimised
        - of each quantity of an objective, the columns of `design_table`
        - "nearest", "nearest_value", "distance": the measured picture whose pixels are most alike, its measurement, and
          the root mean square difference, of pixels from 0 to 1, at no more than 32 x 32
        - "kl": KL along the design's path to the pretrained model (nats)
        - "flags": reasons to look twice, in words, separated by "; "

        and ``attrs`` "n_drawn", "n_candidates", "n_doubtful" and "warnings", as those of `design_table`.

    Warns
    -----
    UserWarning
        As `design_table` does.

    Raises
    ------
    IncompatibleModelError
        If the designs are not pictures.
    """
    check_fitted(estimator, "model_", "pretrained_", "reward_", "judge_", "judge_check_", "space_")
    if not estimator.space_.has_pixels:
        raise IncompatibleModelError(f"picture_table is for pictures, but the designs are in {estimator.space_}.")
    check_number("n_designs", n_designs, low=1, whole=True)
    n_drawn = _CANDIDATES * n_designs if n_candidates is None else n_candidates
    check_number("n_candidates", n_drawn, low=n_designs, whole=True)
    measured, y = read_measured(X, y, estimator)
    names = [str(i) for i in range(len(y))] if files is None else list(files)
    if len(names) != len(y):
        raise InvalidParameterError(f"files has {len(names):,} names for {len(y):,} pictures; pass one for each.")
    rng = check_random_state(random_state)
    images, kl, prompts = _draw(estimator, n_drawn, rng)
    lower = estimator.reward_.predict_lower(images)
    chosen = _best_of_each(lower, prompts, n_designs)
    images = images[chosen]
    table = _described(estimator, images, measured, y, names, rng)
    if prompts is not None:
        table.insert(1, "prompt", [prompts[i] for i in chosen])
    table.insert(len(table.columns) - 1, "kl", kl[chosen])
    texts = concerns(table, y, n_designs=n_designs, n_drawn=n_drawn, n_different=n_drawn)
    texts += kept_pretrained(estimator, n_drawn) + poor_predictions(estimator)
    for text in texts:
        warnings.warn(text, stacklevel=2)
    table.attrs.update(
        n_drawn=n_drawn, n_candidates=n_drawn, n_doubtful=len(serious_flags(table["flags"])), moved={}, warnings=texts
    )
    return PictureDesigns(table, images)


def write_images(images: NDArray[np.uint8], folder: str | os.PathLike[str], word: str = "design") -> list[str]:
    """Write images as PNG files, "design_1.png" and on, into a folder that is there; gives their names."""
    from PIL import Image

    images = np.asarray(images)
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or (images.ndim == 4 and images.shape[3] != 3):
        raise InvalidParameterError(
            f"images must be an array of uint8 of shape (n, height, width[, 3]); got {images.dtype} of shape "
            f"{images.shape}."
        )
    names = image_files(len(images), word)
    for name, image in zip(names, images, strict=True):
        with replace_file(Path(folder) / name) as path:
            Image.fromarray(image).save(path, format="PNG")
    return names


def image_files(n: int, word: str = "design") -> list[str]:
    """Names of the files of n images."""
    return [f"{word}_{i + 1}.png" for i in range(n)]


def prompts_in_turn(model: Any, n: int) -> list[str] | None:
    """A prompt for each of n pictures, as many of each or one more; None for a model that takes none."""
    prompts = getattr(model, "prompts", ())
    return [prompts[i % len(prompts)] for i in range(n)] if prompts else None


def _draw(estimator: Any, n: int, rng: np.random.RandomState) -> tuple[NDArray[np.uint8], np.ndarray, list[str] | None]:
    """Images of n draws, path KL (n,) in nats, and prompts."""
    model = estimator.model_
    generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
    prompts = prompts_in_turn(model, n)
    images, kl = [], []
    with Progress(n, "candidates", shown=bool(getattr(estimator, "verbose", 0))) as progress:
        for start in range(0, n, model.rows_at_once):
            size = min(model.rows_at_once, n - start)
            if prompts is None:
                noise = model.draw_noise(size, generator)
            else:
                noise = model.noise_of(prompts[start : start + size], generator)
            path = sample_with_kl(model, estimator.pretrained_, noise)
            images.append(model.space.decode(path.point, "uint8"))
            kl.append(path.kl.cpu().numpy())
            progress.update(size)
    return np.concatenate(images), np.concatenate(kl), prompts


def _best_of_each(lower: np.ndarray, prompts: list[str] | None, n: int) -> np.ndarray:
    """Places of the n best bounds, best first; of each prompt as many, or one more."""
    order = np.argsort(-lower, kind="stable")
    if prompts is None:
        return order[:n]
    rank: Counter[str] = Counter()
    turns = []
    for i in order:
        turns.append(rank[prompts[i]])
        rank[prompts[i]] += 1
    # All first ones of their prompt, then all second ones, each from the best bound downwards.
    chosen = order[np.argsort(turns, kind="stable")[:n]]
    return chosen[np.argsort(-lower[chosen], kind="stable")]


def _described(
    estimator: Any,
    images: NDArray[np.uint8],
    measured: np.ndarray,
    y: np.ndarray,
    names: list[str],
    rng: np.random.RandomState,
) -> pd.DataFrame:
    """The table of chosen pictures, in their order, but for prompt and KL."""
    reward = estimator.reward_
    mean, lower = reward.predict(images), reward.predict_lower(images)
    judge = estimator.judge_.predict(images)
    ours, theirs = (_small(estimator.space_, rows) for rows in (images, measured))
    nearest, distance = pairwise_distances_argmin_min(ours, theirs)
    distance = distance / np.sqrt(ours.shape[1])
    table = pd.DataFrame(
        {
            "id": [f"design_{i + 1}" for i in range(len(images))],
            "mean": mean,
            "penalty": mean - lower,
            "lower": lower,
            "judge": judge,
            **quantity_columns(estimator, images),
            "nearest": [names[i] for i in nearest],
            "nearest_value": y[nearest],
            "distance": distance,
        }
    )
    flags: dict[str, pd.Series | np.ndarray] = {
        **usual_flags(estimator, table, measured, y, rng, _N_PENALTIES),
        **unsure_conditions(estimator, images),
    }
    looks = {"brightness": (ours.mean(axis=1), theirs.mean(axis=1)), "contrast": (ours.std(axis=1), theirs.std(axis=1))}
    for what, (found, usual) in looks.items():
        low, high = np.quantile(usual, [0.005, 0.995])
        flags[f"{what} outside that of 99 % of measured ones"] = (found < low) | (found > high)
    table["flags"] = in_words(flags)
    return table


def _small(space: ImageSpace, images: np.ndarray) -> np.ndarray:
    """Pixels (n, k) from 0 to 1, averaged to at most 32 x 32."""
    height, width = (min(side, _SIDE) for side in space.shape[1:])
    parts = space.points(images).split(256)
    small = [torch.nn.functional.adaptive_avg_pool2d((x + 1) / 2, (height, width)).flatten(1) for x in parts]
    return torch.cat(small).numpy()
