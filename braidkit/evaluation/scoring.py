"""Score any sequences by a fitted estimator: its own designs, a parent, or candidates from elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braidkit.diffusion import DiffusionModel, EnumeratedDiffusion, MarkovLaw, MaskedDiffusion
from braidkit.diffusion._letters import LOG_ZERO
from braidkit.evaluation.arguments import check_fitted, read_measured
from braidkit.evaluation.edit_distance import nearest
from braidkit.evaluation.quantities import quantity_columns
from braidkit.evaluation.row_distance import RowDistance
from braidkit.evaluation.vector_designs import scored_rows
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_number
from braidkit.torch_state import ordinary_torch


def score_table(estimator: Any, sequences: Any, X: Any, y: Any) -> pd.DataFrame:
    """Score any sequences by a fitted estimator: reward, judge, nearest measurement, pretrained log-likelihood.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
        On sequences or vectors.
    sequences : sequence of str, or array-like of shape (n, n_features)
        In the estimator's space.
    X : sequence of str, or array-like of shape (n_samples, n_features)
        The measured designs.
    y : array-like of shape (n_samples,)
        Their measurements.

    Returns
    -------
    table : DataFrame
        A row a sequence, in their order, with the columns

        - "sequence"; of vectors their columns, as in `design_table`
        - "mean", "penalty", "lower": r_hat, g_hat and their difference, in y's units
        - "judge": prediction of the judge
        - of each quantity of an objective, the columns of `design_table`
        - "nearest", "nearest_value", "distance": the measured sequence with the smallest edit distance, its
          measurement, and that distance (number of letters); of vectors as in `design_table`
        - "log_likelihood": see `log_likelihood`; only where the pretrained chain has one

    Raises
    ------
    InvalidDesignError
        Naming the first sequence that is not in the space.

    Examples
    --------
    >>> from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, SequenceSpace, make_utr
    >>> from braidkit.evaluation import score_table
    >>> X, y = make_utr(100, random_state=0)
    >>> finetuner = ConservativeDiffusionFinetuner(
    ...     reward=GPBonusReward(max_iter=2), space=SequenceSpace("DNA", template=X[0][:45] + "_____"), random_state=0
    ... ).fit(X, y)
    >>> table = score_table(finetuner, X[:3], X, y)
    >>> table["distance"].tolist(), bool((table["lower"] < table["mean"]).all())
    ([0, 0, 0], True)
    """
    check_fitted(estimator, "pretrained_", "reward_", "judge_", "space_")
    space = estimator.space_
    if space.alphabet is None and not space.has_columns:
        raise InvalidParameterError(f"score_table is for sequences and vectors, but the designs are in {space}.")
    measured, y = read_measured(X, y, estimator)
    if space.has_columns:
        rows = space.points(sequences).rows
        table = scored_rows(estimator, rows, RowDistance(space, measured), y)
        pretrained = estimator.pretrained_
        return table.assign(log_likelihood=log_density(pretrained, rows)) if pretrained.knows_law else table
    asked = estimator.space_.strings(sequences)
    table = scored(estimator, asked, measured, y)
    likelihoods = log_likelihood(estimator.pretrained_, asked)
    return table if likelihoods is None else table.assign(log_likelihood=likelihoods)


def log_density(model: DiffusionModel, rows: Any) -> np.ndarray:
    """Logarithm of the density of rows of numbers, in units of the space's points, under a chain that knows its law."""
    parts = [model.log_prob(part.to(model.device)) for part in model.space.points(rows).split(4096)]
    return torch.cat(parts).cpu().numpy()


def scored(estimator: Any, sequences: list[str], measured: list[str], y: np.ndarray) -> pd.DataFrame:
    """The columns of `score_table` but for the last, of sequences and measured ones as the space writes them."""
    mean, lower = estimator.reward_.predict(sequences), estimator.reward_.predict_lower(sequences)
    index, distance = nearest(sequences, measured)
    return pd.DataFrame(
        {
            "sequence": sequences,
            "mean": mean,
            "penalty": mean - lower,
            "lower": lower,
            "judge": estimator.judge_.predict(sequences),
            **quantity_columns(estimator, sequences),
            "nearest": [measured[i] for i in index],
            "nearest_value": y[index],
            "distance": distance,
        }
    )


@ordinary_torch()
@torch.no_grad()
def log_likelihood(model: DiffusionModel, X: Any, *, random_state: int = 0) -> np.ndarray | None:
    """Log-likelihood of designs under a chain of letters, in nats.

    That of an EnumeratedDiffusion is exact. A MaskedDiffusion reveals letters in random order; the value is that of one
    order, drawn by `random_state`, of which the average is a lower bound. It is exact where the chain is its Markov
    law. For a SimplexDiffusion it is that of its Markov law, without the network.

    Parameters
    ----------
    model : DiffusionModel
        Trained.
    X : designs of the chain's space
    random_state : int, default=0

    Returns
    -------
    log_likelihood : ndarray of shape (n,), or None
        -inf for designs that the chain cannot make. None if the chain has no such value.

    Examples
    --------
    >>> from braidkit import SequenceSpace
    >>> from braidkit.diffusion import EnumeratedDiffusion
    >>> chain = EnumeratedDiffusion(SequenceSpace("DNA", 1)).fit(["A", "A", "C", "G"] * 50)
    >>> bool(log_likelihood(chain, ["A"])[0] > log_likelihood(chain, ["C"])[0])
    True
    """
    if not isinstance(model, DiffusionModel):
        raise InvalidParameterError(f"model must be a DiffusionModel; got {model!r:.60}.")
    check_number("random_state", random_state, low=0, whole=True)
    space = model.space
    points = space.points(X)
    values = []
    generator = torch.Generator().manual_seed(random_state)
    for part in points.split(4096):
        x = part.to(model.device)
        found = _of_letters(model, x, generator)
        if found is None:
            return None
        off = (space.hold(x) != x).flatten(1).any(dim=1)
        values.append(found.double().masked_fill(off, -torch.inf).cpu().numpy())
    joined = np.concatenate(values)
    return np.where(joined < LOG_ZERO / 2, -np.inf, joined)


def _of_letters(model: DiffusionModel, x: Tensor, generator: torch.Generator) -> Tensor | None:
    """Log-likelihoods (n,) of one-hot sequences (n, length, n_letters)."""
    if isinstance(model, EnumeratedDiffusion):
        return model.table().log_probs()[model.noised(x, 0, generator)[:, 0].long()]
    if isinstance(model, MaskedDiffusion):
        return _in_one_order(model, x, generator)
    prior = getattr(model, "prior", None)
    return prior.log_prob(x.argmax(dim=-1)) if isinstance(prior, MarkovLaw) else None


def _in_one_order(model: MaskedDiffusion, x: Tensor, generator: torch.Generator) -> Tensor:
    """Log-probabilities (n,) of the letters of sequences, revealed step by step in one random order a row."""
    free = (model.space.hold(torch.full_like(x, -1.0)) < 0).any(dim=-1)
    order = torch.rand(x.shape[:2], generator=generator).to(x.device).masked_fill(~free, torch.inf)
    ranks = order.argsort(dim=1).argsort(dim=1)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for t in range(model.n_steps, 0, -1):
        state = x * (ranks >= model.n_masked[t])[..., None]
        revealed = (ranks >= model.n_masked[t - 1]) & (ranks < model.n_masked[t])
        letters = (model.letter_log_probs(state).clamp(min=LOG_ZERO) * x).sum(dim=-1)
        total += (letters * revealed).sum(dim=1)
    return total
