"""The table of designs to order: the best of many candidates, each with reasons to look twice."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api.types import is_string_dtype
from torch import Tensor

from braidkit.datasets.table import quoted
from braidkit.diffusion import EnumeratedDiffusion
from braidkit.evaluation.arguments import check_fitted, check_table, draws_slowly, read_measured
from braidkit.evaluation.choosing import (
    MAX_RARITY,
    RARE,
    choose_different,
    concerns,
    default_candidates,
    default_identity,
    describe_moved,
    poor_predictions,
    serious_flags,
)
from braidkit.evaluation.flags import in_words, kept_pretrained, usual_flags
from braidkit.evaluation.metrics import gc_content
from braidkit.evaluation.quantities import unsure_conditions
from braidkit.evaluation.scoring import scored
from braidkit.evaluation.vector_designs import vector_table
from braidkit.exceptions import InvalidParameterError
from braidkit.finetuning import Rollout, sample_with_kl
from braidkit.finetuning.optimum import BATCH, approximates_optimum, moved_to_optimum
from braidkit.parameters import check_number, check_random_state
from braidkit.persistence import read_path, replace_file
from braidkit.progress import Progress
from braidkit.spaces.limits import changes

MAX_HOMOPOLYMER = 8
# Significant digits of numbers in files: as a rule, and so many that no two numbers look alike.
_DIGITS, _ALL_DIGITS = 6, 17
# Measured sequences, drawn at random, whose penalties the designs' are compared with.
_N_PENALTIES = 2000


def design_table(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    n_designs: int = 100,
    n_candidates: int | None = None,
    max_identity: float | None = None,
    random_state: int | np.random.RandomState | None = None,
) -> pd.DataFrame:
    """Draw many candidates from a fine-tuned model, and give the best lower bounds that differ from each other.

    Candidates are taken from the best bound downwards. One that is too similar to a design already taken is passed
    over. If the pretrained model has a Markov law, a candidate that is less probable under it than 95 % of its own
    designs is taken only where no other is left. A measured sequence is taken only where nothing new is left.

    With the solver "tempering" the candidates are draws of the fine-tuned chain that are moved to the optimum which the
    chain approximates, by Metropolis-Hastings steps.

    Parameters
    ----------
    estimator : fitted ConservativeDiffusionFinetuner
        On sequences or vectors.
    X : sequence of str, or array-like of shape (n_samples, n_features)
        The measured designs.
    y : array-like of shape (n_samples,)
        Their measurements.
    n_designs : int, default=100
        Designs wanted.
    n_candidates : int, optional
        Candidates drawn. By default ten for each design, and at least 1,000; ten times as many from a chain that lists
        all designs. From a language model, whose draws take long, five for each design, and at least 250.
    max_identity : float, optional
        Most that two designs may be alike: 1 - edit distance / length. In (0, 1]; 1 drops duplicates only. By default
        designs differ in at least a tenth of the letters in which two measured sequences differ (median). Of vectors:
        1 - distance / median distance of two measured ones, by default 0.9.
    random_state : int, RandomState or None

    Returns
    -------
    table : DataFrame
        Best lower bound first, with the columns

        - "id": "design_1", "design_2", ...
        - "sequence"; of vectors their columns, by name, and a name of `VectorSpace.one_of` as its label
        - "mean", "penalty", "lower": r_hat, g_hat and their difference, in y's units
        - "judge": prediction of the judge, which was never optimised
        - of each quantity of an objective "<name>_mean", "<name>_lower" (or "<name>_upper" where less is better) and
          "<name>_judge"
        - "nearest", "nearest_value", "distance": the measured sequence with the smallest edit distance, its
          measurement, and that distance (number of letters); of vectors the number of the nearest row, and the root
          mean square difference over columns in standard deviations of the measured ones
        - "kl": KL along the design's path to the pretrained model (nats); not of vectors
        - "rarity": of vectors, by how many deviations the log-density under the pretrained model lies below that of its
          own draws
        - "at_bound": of vectors, columns of numbers at an end of their range; better values may lie beyond
        - "mutations": what differs from the parent, such as "A23G C40T", positions from 1; where there is one
        - "gc": share of G and C; for DNA and RNA only
        - "flags": reasons to look twice before ordering, in words, separated by "; "

        Its ``attrs`` hold "n_drawn" (candidates drawn), "n_candidates" (how many of them differ), "rejected" (how many
        were measured already, "X", improbable, "rarity", or too much like a better one, "max_identity"), "n_doubtful"
        (designs with a flag other than that of a large penalty), "moved" (how many draws broke each limit of the space,
        and some, "any", and were moved within them) and "warnings" (their texts).

    Warns
    -----
    UserWarning
        If fewer designs are found than asked for, the model makes few different ones, most draws broke a limit, most
        designs have a flag, or their bounds lie mostly below the best measurement or far above it.

    Raises
    ------
    InvalidParameterError
        If the designs are pictures, or an argument is out of range. Raised before any design is drawn.

    Examples
    --------
    >>> from braidkit import ConservativeDiffusionFinetuner, SequenceSpace, SimplexDiffusion, make_utr
    >>> from braidkit.evaluation import design_table
    >>> X, y = make_utr(60, random_state=0)
    >>> chain = SimplexDiffusion(SequenceSpace("DNA", 50), n_steps=3).fit(X, max_iter=5, random_state=0)
    >>> finetuner = ConservativeDiffusionFinetuner(chain, max_iter=1, batch_size=16, random_state=0).fit(X, y)
    >>> table = design_table(finetuner, X, y, n_designs=5, n_candidates=20, random_state=0)
    >>> len(table), table["lower"].is_monotonic_decreasing
    (5, True)
    """
    check_fitted(estimator, "model_", "pretrained_", "reward_", "judge_", "judge_check_", "space_")
    space = estimator.space_
    if space.alphabet is None and not space.has_columns:
        raise InvalidParameterError(f"design_table is for sequences and vectors, but the designs are in {space}.")
    check_number("n_designs", n_designs, low=1, whole=True)
    if max_identity is not None:
        check_number("max_identity", max_identity, low=0, high=1, above=True)
    if space.has_columns:
        return vector_table(
            estimator,
            X,
            y,
            n_designs=n_designs,
            n_candidates=n_candidates,
            max_identity=max_identity,
            random_state=random_state,
        )
    listed = isinstance(estimator.pretrained_, EnumeratedDiffusion)
    usual = default_candidates(n_designs, listed=listed, slow=draws_slowly(estimator))
    n_drawn = usual if n_candidates is None else n_candidates
    check_number("n_candidates", n_drawn, low=n_designs, whole=True)
    measured, y = read_measured(X, y, estimator)
    max_identity = default_identity(space, measured) if max_identity is None else max_identity
    rng = check_random_state(random_state)

    drawn, moved, noise = _draw(estimator, n_drawn, rng)
    # Sort by: not measured before, not rare under the pretrained law, and then the best lower bound.
    known, rare = drawn.index.isin(measured), drawn["rarity"].to_numpy() > MAX_RARITY
    order = np.lexsort([-drawn["lower"], rare, known])
    chosen, n_alike = choose_different(drawn.index.tolist(), order, n_designs, max_identity)
    drawn = drawn.iloc[chosen]
    if noise:
        drawn = drawn.assign(kl=_path_kl(estimator, [noise[row] for row in drawn.index]))
    table = _described(estimator, drawn, measured, y, rng)
    texts = concerns(table, y, n_designs=n_designs, n_drawn=n_drawn, n_different=len(known))
    texts += kept_pretrained(estimator, n_drawn) + poor_predictions(estimator)
    if moved.get("any", 0) > n_drawn / 2:
        texts.append(f"{describe_moved(moved, n_drawn)}. A MaskedDiffusion keeps limits letter by letter.")
    for text in texts:
        warnings.warn(text, stacklevel=2)
    table.attrs.update(
        n_drawn=n_drawn,
        n_candidates=len(known),
        rejected={"X": int(known.sum()), "rarity": int(rare.sum()), "max_identity": n_alike},
        n_doubtful=len(serious_flags(table["flags"])),
        moved=moved,
        warnings=texts,
    )
    return table


def _described(
    estimator: Any, drawn: pd.DataFrame, measured: Any, y: np.ndarray, rng: np.random.RandomState
) -> pd.DataFrame:
    """The table of chosen candidates, best lower bound first."""
    sequences = drawn.index.tolist()
    table = scored(estimator, sequences, measured, y).assign(kl=drawn["kl"].to_numpy())
    flags: dict[str, pd.Series | np.ndarray] = {
        **usual_flags(estimator, table, measured, y, rng, _N_PENALTIES),
        RARE: drawn["rarity"].to_numpy() > MAX_RARITY,
        **unsure_conditions(estimator, sequences),
    }
    limits = estimator.space_.limits
    if limits is not None and limits.parent is not None:
        table["mutations"] = [" ".join(changes(sequence, limits.parent)) for sequence in sequences]
    if estimator.space_.nucleotides:
        table["gc"] = gc_content(sequences)
        low, high = np.quantile(gc_content(measured), [0.005, 0.995])
        flags["GC outside that of 99 % of measured sequences"] = (table["gc"] < low) | (table["gc"] > high)
        runs = np.array([longest_run(sequence) for sequence in sequences])
        flags[f"homopolymer longer than {MAX_HOMOPOLYMER}"] = runs > MAX_HOMOPOLYMER
    table["flags"] = in_words(flags)
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


def design_files(table: pd.DataFrame) -> list[str]:
    """The files that `write_designs` writes."""
    return ["designs.csv", *(["designs.fasta"] if "sequence" in table else [])]


def write_designs(table: pd.DataFrame, directory: str | os.PathLike[str]) -> None:
    """Write a table of designs as ``designs.csv`` and, of sequences, ``designs.fasta``, in one piece or not at all.

    In the CSV file texts that a spreadsheet would take for a formula, such as sequences that begin with the gap letter
    "-", have an apostrophe in front; `read_table` takes it off.
    """
    of_sequences = isinstance(table, pd.DataFrame) and "designs.fasta" in design_files(table)
    texts = ("id", "sequence") if of_sequences else ("id",)
    check_table(table, "table", texts=texts, numbers=("mean", "lower"))
    directory = read_path("directory", directory)
    with replace_file(os.path.join(directory, "designs.csv")) as path:
        path.write_text(csv_text(table), encoding="utf-8")
    if not of_sequences:
        return
    with replace_file(os.path.join(directory, "designs.fasta")) as path:
        records = zip(table["id"], table["lower"], table["mean"], table["sequence"], strict=True)
        path.write_text(
            "".join(f">{id} lower={lower:.4g} mean={mean:.4g}\n{row}\n" for id, lower, mean, row in records)
        )


def _safe_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which no name and no text is one that a spreadsheet takes for a formula."""
    texts = [name for name in table if is_string_dtype(table[name])]
    safe = table.assign(**{name: quoted(table[name]) for name in texts})
    return safe.set_axis(quoted(pd.Series(table.columns)), axis="columns")


def csv_text(table: pd.DataFrame, settings: Sequence[str] | None = None) -> str:
    """A table as CSV, with six digits of a number.

    Parameters
    ----------
    table : DataFrame
    settings : sequence of str, optional
        Columns of numbers to set, with as many digits as tell its values apart; by default those before "mean".

    Examples
    --------
    >>> print(csv_text(pd.DataFrame({"frequency": [1e9 + 0.125, 1e9 + 0.5], "mean": [1.23456789, 2.0]})))
    frequency,mean
    1000000000.125,1.23457
    1000000000.5,2
    <BLANKLINE>
    """
    names = list(table)
    if settings is None:
        settings = names[: names.index("mean")] if "mean" in names else []
    digits = {name: _digits(table[name].to_numpy()) for name in settings if table[name].dtype.kind == "f"}
    texts = {name: [f"{value:.{n}g}" for value in table[name]] for name, n in digits.items() if n > _DIGITS}
    safe = _safe_cells(table)
    for name, cells in texts.items():
        safe.isetitem(names.index(name), cells)
    return safe.to_csv(index=False, float_format=f"%.{_DIGITS}g", lineterminator="\n")


def _digits(values: np.ndarray) -> int:
    """Significant digits that a column needs so that its values differ in six; a constant column keeps its value."""
    if len(values) == 0 or not np.isfinite(values).all():
        return _DIGITS
    spread, size = float(np.ptp(values)), float(np.abs(values).max())
    if spread == 0:
        exact = float(f"{values[0]:.{_DIGITS}g}") == values[0]
        return _DIGITS if exact else _ALL_DIGITS
    # Values that lie far from zero for their range agree in their first digits, and differ only in later ones.
    return min(_ALL_DIGITS, _DIGITS + max(0, math.floor(math.log10(size) - math.log10(spread)) - 1))


def _draw(estimator: Any, n: int, rng: np.random.RandomState) -> tuple[pd.DataFrame, dict[str, int], dict[str, Tensor]]:
    """The different designs of n draws, by sequence: "lower" in y's units, path "kl" in nats, "rarity"; what moved.

    Where draws take long there is no KL yet. Their noise, by sequence, comes with them, so that the pretrained chain
    passes only those that are chosen.
    """
    model, space, pretrained = estimator.model_, estimator.space_, estimator.pretrained_
    generator = torch.Generator().manual_seed(int(rng.randint(2**31 - 1)))
    refined = approximates_optimum(estimator)
    found: dict[str, tuple[float, ...]] = {}
    noise_of: dict[str, Tensor] = {}
    moved: Counter[str] = Counter()
    batch = min(BATCH, model.rows_at_once)
    with Progress(n, "candidates", shown=bool(getattr(estimator, "verbose", 0))) as progress:
        for start in range(0, n, batch):
            size = min(batch, n - start)
            noise = model.draw_noise(size, generator)
            if model.draws_slowly:
                path = Rollout(model.sample_points(noise), torch.full((size,), torch.nan))
            else:
                path = sample_with_kl(model, pretrained, noise)
            moved.update(space.n_moved(path.point))
            points, kl = space.discretise(path.point), path.kl
            if refined:
                points = moved_to_optimum(estimator, points, generator)
                kl = model.log_prob(points) - pretrained.log_prob(points)
            sequences = space.decode(points, "strings")
            figures = zip(kl.tolist(), pretrained.rarity(points).tolist(), strict=True)
            new = {row: values for row, values in zip(sequences, figures, strict=True) if row not in found}
            if model.draws_slowly:
                noise_of |= {row: one for row, one in zip(sequences, noise.split(1), strict=True) if row in new}
            if new:
                lower = estimator.reward_.predict_lower(list(new))
                found |= {row: (bound, *values) for bound, (row, values) in zip(lower, new.items(), strict=True)}
            progress.update(size)
    return pd.DataFrame.from_dict(found, orient="index", columns=["lower", "kl", "rarity"]), dict(moved), noise_of


def _path_kl(estimator: Any, noise: list[Tensor]) -> list[float]:
    """The KL (nats) along the paths that noise makes, one trajectory each."""
    model, kl = estimator.model_, []
    with Progress(len(noise), "KL of the designs", shown=bool(getattr(estimator, "verbose", 0))) as progress:
        for start in range(0, len(noise), model.rows_at_once):
            part = torch.cat(noise[start : start + model.rows_at_once])
            kl += sample_with_kl(model, estimator.pretrained_, part).kl.tolist()
            progress.update(len(part))
    return kl
