"""Reasons to look twice at a design that do not depend on what it is: a sequence or a picture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from braidkit.evaluation.choosing import LARGE_PENALTY
from braidkit.finetuning.judge import knows_enough

JUDGED_WORSE = "judge below the bound by more than the usual error"


def usual_flags(
    estimator: Any, table: pd.DataFrame, measured: np.ndarray, y: np.ndarray, rng: np.random.RandomState, n: int
) -> dict[str, pd.Series]:
    """Whether each design has a flag, by its words.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
    table : DataFrame
        Designs with "mean", "penalty", "lower", "judge" and "distance" to the nearest measured one.
    measured, y : ndarray of shape (n_samples, ...), ndarray of shape (n_samples,)
    rng : RandomState
    n : int
        Measured designs, drawn at random, whose penalties the designs' are compared with.
    """
    some = measured[rng.permutation(len(measured))[:n]]
    usual_penalty = np.quantile(estimator.reward_.predict(some) - estimator.reward_.predict_lower(some), 0.95)
    # Root mean square of the reward's error on the rows that it never saw.
    usual_error = y.std() * np.sqrt(1 - estimator.reward_check_["r2"])
    return {
        "measured already": table["distance"] == 0,
        JUDGED_WORSE: knows_enough(estimator) & (table["judge"] < table["lower"] - usual_error),
        LARGE_PENALTY: table["penalty"] > usual_penalty,
        "mean above every measurement by more than a standard deviation": table["mean"] > y.max() + y.std(),
    }


def in_words(flags: Mapping[str, Any]) -> list[str]:
    """The flags of each design, separated by "; "."""
    return ["; ".join(itertools.compress(flags, row)) for row in zip(*flags.values(), strict=True)]


def kept_pretrained(estimator: Any, n_drawn: int) -> list[str]:
    """A warning if fine-tuning kept the pretrained model."""
    if getattr(estimator, "best_iter_", None) != 0:
        return []
    return [
        "no checkpoint of fine-tuning was better than the pretrained model without being rejected, so that these "
        f"are the best of its own {n_drawn:,} draws. More measurements or a smaller alpha may help."
    ]
