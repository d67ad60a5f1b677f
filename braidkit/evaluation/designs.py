"""The table of designs to order: unique, ranked by their lower bound, each with what to look at first."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from braidkit.evaluation.edit_distance import as_strings, nearest
from braidkit.evaluation.metrics import gc_content
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning import evaluate
from braidkit.persistence import replace_file
from braidkit.spaces import SequenceSpace

MAX_HOMOPOLYMER = 8
# A model that repeats itself is asked for at most this many times the designs wanted.
_MAX_DRAWS = 20
# Measured sequences whose penalties stand for all.
_N_PENALTIES = 2000


def design_table(
    finetuner: Any, X: Any, y: Any, n_designs: int, *, random_state: int | np.random.RandomState | None = None
) -> pd.DataFrame:
    """Draw different sequences from a fine-tuned model, score them, and rank them by the lower bound.

    Parameters
    ----------
    finetuner : fitted ConservativeDiffusionFinetuner
        On sequences.
    X : sequence of str
        The measured sequences.
    y : array-like of shape (n_samples,)
        Their measurements.
    n_designs : int
        Fewer are given if the model makes fewer different ones in 20 times as many draws.
    random_state : int, RandomState or None

    Returns
    -------
    table : DataFrame
        Best lower bound first, with the columns

        - "id": "design_1", "design_2", ...
        - "sequence"
        - "mean", "penalty", "lower": r_hat, g_hat and their difference, in y's units
        - "judge": prediction of the judge, which was never optimised
        - "nearest", "nearest_value", "distance": the measured sequence with the smallest edit distance, its
          measurement, and that distance (number of letters)
        - "kl": KL along the design's path to the pretrained model (nats)
        - "gc": share of G and C; for DNA and RNA only
        - "flags": what to look at before ordering, in words, separated by "; "

    Raises
    ------
    InvalidParameterError
        If the designs are no sequences, or `n_designs` is not at least 1.
    """
    check_is_fitted(finetuner, "model_")
    space = finetuner.space_
    if not isinstance(space, SequenceSpace):
        raise InvalidParameterError(f"design_table is for sequences, but the designs are in {space}.")
    if n_designs < 1:
        raise InvalidParameterError(f"n_designs must be at least 1; got {n_designs}.")
    measured = as_strings(X)
    if space.alphabet.upper() == space.alphabet:
        measured = [row.upper() for row in measured]
    rng = check_random_state(random_state)
    points, kl = _draw_different(finetuner, n_designs, rng)
    sequences = space.decode(points, "strings")
    mean, lower = finetuner.reward_.predict(sequences), finetuner.reward_.predict_lower(sequences)
    index, distance = nearest(sequences, measured)
    table = pd.DataFrame(
        {
            "sequence": sequences,
            "mean": mean,
            "penalty": mean - lower,
            "lower": lower,
            "judge": finetuner.judge_.predict(sequences),
            "nearest": [measured[i] for i in index],
            "nearest_value": np.asarray(y, dtype=float)[index],
            "distance": distance,
            "kl": kl,
        }
    )
    some = [measured[i] for i in rng.permutation(len(measured))[:_N_PENALTIES]]
    usual_penalty = np.quantile(finetuner.reward_.predict(some) - finetuner.reward_.predict_lower(some), 0.95)
    # Root mean square of the reward's error on the rows that it never saw.
    usual_error = np.std(y) * np.sqrt(1 - finetuner.reward_check_["r2"])
    flags: dict[str, pd.Series | np.ndarray] = {
        "measured already": table["distance"] == 0,
        "judge below the bound by more than the usual error": table["judge"] < table["lower"] - usual_error,
        "penalty above that of 95 % of measured sequences": table["penalty"] > usual_penalty,
    }
    if space.name in ("DNA", "RNA"):
        table["gc"] = gc_content(sequences)
        low, high = np.quantile(gc_content(measured), [0.005, 0.995])
        flags["GC outside that of 99 % of measured sequences"] = (table["gc"] < low) | (table["gc"] > high)
        runs = np.array([longest_run(sequence) for sequence in sequences])
        flags[f"homopolymer longer than {MAX_HOMOPOLYMER}"] = runs > MAX_HOMOPOLYMER
    table["flags"] = [
        "; ".join(itertools.compress(flags, row)) for row in zip(*(flags[flag] for flag in flags), strict=True)
    ]
    table = table.sort_values("lower", ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "id", [f"design_{i + 1}" for i in range(len(table))])
    return table


def longest_run(sequence: str) -> int:
    """Length of the longest run of one letter.

    Examples
    --------
    >>> longest_run("ACCCA")
    3
    """
    return max(len(list(run)) for _, run in itertools.groupby(sequence))


def write_designs(table: pd.DataFrame, directory: str | os.PathLike[str]) -> None:
    """Write a table of designs as ``designs.csv`` and ``designs.fasta``, each in one piece or not at all."""
    with replace_file(os.path.join(directory, "designs.csv")) as path:
        table.to_csv(path, index=False, float_format="%.6g")
    with replace_file(os.path.join(directory, "designs.fasta")) as path:
        records = zip(table["id"], table["lower"], table["mean"], table["sequence"], strict=True)
        path.write_text(
            "".join(f">{id} lower={lower:.4g} mean={mean:.4g}\n{row}\n" for id, lower, mean, row in records)
        )


def _draw_different(finetuner: Any, n: int, rng: np.random.RandomState) -> tuple[Tensor, np.ndarray]:
    """The first n different designs as points (n, *space.shape), and their path KL (n,), nats."""
    model, space = finetuner.model_, finetuner.space_
    generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
    found: dict[str, tuple[Tensor, float]] = {}
    for _ in range(_MAX_DRAWS):
        path = evaluate(model, finetuner.pretrained_, model.draw_noise(n, generator))
        points = space.discretise(path.point)
        for sequence, point, kl in zip(space.decode(points, "strings"), points, path.kl.tolist(), strict=True):
            found.setdefault(sequence, (point, kl))
        if len(found) >= n:
            break
    designs = list(found.values())[:n]
    return torch.stack([point for point, _ in designs]), np.array([kl for _, kl in designs])
