"""Measures of designed sequences: are they similar to measured ones, new, and different from each other?

Sequences are strings over any alphabet; all measures take plain lists of them.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from scipy.special import rel_entr
from scipy.stats import ks_2samp
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from braidkit.evaluation.edit_distance import as_strings, edit_distances, nearest
from braidkit.evaluation.families import effective_number, families
from braidkit.exceptions import InvalidDesignError, InvalidParameterError
from braidkit.parameters import check_number, check_random_state

# More columns would take minutes and gigabytes.
_MAX_KMERS = 4_000_000
# Largest sample of a set in which families are found; the cost is quadratic.
_MAX_ROWS = 3000
_N_SPLITS = 5


def kmer_counts(sequences: Sequence[str], k: int = 3, *, letters: str | None = None) -> scipy.sparse.csr_array:
    """Count each k-mer in each sequence, with overlaps.

    Parameters
    ----------
    sequences : sequence of str
        Any lengths; a sequence shorter than `k` has no k-mer.
    k : int, default=3
    letters : str, optional
        The alphabet, which gives the order of the columns; by default the letters seen, sorted.

    Returns
    -------
    counts : sparse array of shape (n_sequences, len(letters) ** k)
        Columns in alphabetical order of the k-mers, by the order of `letters`.

    Raises
    ------
    InvalidDesignError
        If a sequence has a letter outside `letters`.
    InvalidParameterError
        If `k` is below 1, or gives more than 4 million k-mers.
    """
    check_number("k", k, low=1, whole=True)
    rows = as_strings(sequences)
    seen = set().union(*rows)
    letters = "".join(sorted(seen)) if letters is None else letters
    if not isinstance(letters, str) or len(set(letters)) < len(letters):
        raise InvalidParameterError(f"letters must be a text of different letters; got {letters!r}.")
    if strangers := seen - set(letters):
        raise InvalidDesignError(f"{min(strangers)!r} is not in the alphabet {letters}; pass all letters that occur.")
    if len(letters) > 1 and k > math.log(_MAX_KMERS, len(letters)):
        raise InvalidParameterError(f"k={k} of {len(letters)} letters gives {len(letters)}^{k} k-mers; lower k.")
    kmers = ["".join(kmer) for kmer in itertools.product(letters, repeat=k)]
    counter = CountVectorizer(analyzer=lambda row: (row[i : i + k] for i in range(len(row) - k + 1)), vocabulary=kmers)
    return scipy.sparse.csr_array(counter.transform(rows))


def kmer_jensen_shannon(A: Sequence[str], B: Sequence[str], *, k: int = 3) -> float:
    """Jensen-Shannon divergence of two sets' k-mer spectra, in bits.

    The spectrum is the share of each k-mer in all of a set's k-mers. This is the divergence, between 0 (equal
    spectra) and 1 (no k-mer in common), and not its square root, the Jensen-Shannon distance.

    Parameters
    ----------
    A, B : sequence of str
    k : int, default=3

    Returns
    -------
    divergence : float

    Examples
    --------
    >>> kmer_jensen_shannon(["AAAA"], ["AAAA", "AAA"])
    0.0
    >>> kmer_jensen_shannon(["AAAA"], ["CCCC"])
    1.0
    """
    p, q = _spectra(A, B, k)
    middle = (p + q) / 2
    bits = (rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / (2 * np.log(2))
    return float(np.clip(bits, 0, 1))


def kmer_pearson(A: Sequence[str], B: Sequence[str], *, k: int = 3) -> float:
    """Pearson correlation of two sets' k-mer spectra, over every k-mer of the letters that occur.

    Parameters
    ----------
    A, B : sequence of str
    k : int, default=3

    Returns
    -------
    correlation : float
        Nan where a spectrum is flat.
    """
    p, q = _spectra(A, B, k)
    p, q = p - p.mean(), q - q.mean()
    scale = np.sqrt((p @ p) * (q @ q))
    return float(p @ q / scale) if scale > 0 else float("nan")


def gc_content(sequences: Sequence[str]) -> np.ndarray:
    """Share of G and C in each sequence.

    Parameters
    ----------
    sequences : sequence of str
        DNA or RNA, upper case.

    Returns
    -------
    share : ndarray of shape (n_sequences,)

    Examples
    --------
    >>> gc_content(["GCAT", "GGGG"]).tolist()
    [0.5, 1.0]
    """
    sequences = as_strings(sequences)
    return np.array([(row.count("G") + row.count("C")) / len(row) for row in sequences])


def gc_kolmogorov_smirnov(A: Sequence[str], B: Sequence[str]) -> float:
    """Largest gap between the distribution functions of two sets' GC content; 0 is equal, 1 disjoint."""
    return float(ks_2samp(gc_content(A), gc_content(B), method="asymp").statistic)


def novelty(designs: Sequence[str], reference: Sequence[str]) -> float:
    """Share of designs that are not in the reference.

    Examples
    --------
    >>> novelty(["ACGT", "AAAA"], ["ACGT"])
    0.5
    """
    known = set(as_strings(reference))
    return float(np.mean([design not in known for design in as_strings(designs)]))


def diversity(sequences: Sequence[str], *, n_samples: int = 200, random_state: Any = None) -> float:
    """Mean edit distance between two of the sequences, over the length of the longer one.

    Parameters
    ----------
    sequences : sequence of str
        At least two; equal ones count with distance 0.
    n_samples : int, default=200
        If there are more sequences, all pairs of a random sample of this size are compared.
    random_state : int, RandomState or None

    Returns
    -------
    diversity : float
        Between 0 (all equal) and 1.
    """
    rows = as_strings(sequences)
    check_number("n_samples", n_samples, low=2, whole=True)
    if len(rows) < 2:
        raise InvalidDesignError(f"diversity compares pairs; got {len(rows)} sequence(s), pass at least two.")
    if len(rows) > n_samples:
        chosen = check_random_state(random_state).choice(len(rows), size=n_samples, replace=False)
        rows = [rows[i] for i in chosen]
    lengths = np.array([len(row) for row in rows])
    relative = edit_distances(rows, rows) / np.maximum.outer(lengths, lengths)
    return float(relative.sum() / (len(rows) * (len(rows) - 1)))


def discriminability(
    A: Sequence[str], B: Sequence[str], *, k: int = 4, n_splits: int = _N_SPLITS, random_state: Any = None
) -> float:
    """Measure how well a classifier separates two sets: cross-validated area under the ROC curve.

    The classifier is a logistic regression on the k-mer shares of each sequence. 0.5 is ideal: the k-mers show no
    difference between the sets. 1 is a perfect classifier. Near-copies count once, and are always in one fold together,
    so that no sequence is recognised by its family. Of larger sets a random sample of 3,000 is taken.

    A set that has collapsed to a few designs cannot be judged in this way, and is refused. One of near-copies of a few
    designs is recognised by them, and has an AUROC near 1.

    Parameters
    ----------
    A, B : sequence of str
    k : int, default=4
    n_splits : int, default=5
        Folds. Each set needs at least as many different sequences, as an effective number: the inverse of the chance
        that two of its rows are equal.
    random_state : int, RandomState or None
        Gives the folds.

    Returns
    -------
    auroc : float
        Mean over the folds.

    Raises
    ------
    InvalidDesignError
        If a set has fewer different sequences than folds.
    """
    check_number("n_splits", n_splits, low=2, whole=True)
    rng = check_random_state(random_state)
    sets = [_sample(rows, rng) for rows in (A, B)]
    sizes = (len(sets[0]), len(sets[1]))
    of_sets = np.split(families([*sets[0], *sets[1]], sizes, least=2 * n_splits), [sizes[0]])
    found = min(map(effective_number, of_sets))
    if found < n_splits:
        raise InvalidDesignError(
            f"{n_splits} folds need {n_splits} different sequences in each set; got {found:.3g} (as an effective "
            "number): the set has collapsed. Pass more different sequences, or a smaller n_splits."
        )
    # A family has the same representative in both sets, if both have that sequence.
    different = sorted(set(sets[0]) | set(sets[1]))
    rank = dict(zip(different, rng.permutation(len(different)), strict=True))
    rows: list[str] = []
    groups: list[int] = []
    labels: list[int] = []
    for label, (own, family) in enumerate(zip(sets, of_sets, strict=True)):
        order = np.argsort([rank[row] for row in own], kind="stable")
        numbers, first = np.unique(family[order], return_index=True)
        rows += [own[i] for i in order[first]]
        groups += numbers.tolist()
        labels += [label] * len(numbers)
    counts = kmer_counts(rows, k)
    shares = (counts / np.maximum(1, counts.sum(axis=1))[:, None]).tocsr()
    seen = shares[:, np.flatnonzero(counts.sum(axis=0))].toarray()
    folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=rng.randint(2**31 - 1))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    scores = cross_val_score(classifier, seen, labels, groups=groups, cv=folds, scoring="roc_auc")
    return float(scores.mean())


def _sample(sequences: Sequence[str], rng: np.random.RandomState) -> list[str]:
    """At most 3,000 of the sequences, at random."""
    rows = as_strings(sequences)
    if len(rows) <= _MAX_ROWS:
        return rows
    return [rows[i] for i in rng.choice(len(rows), size=_MAX_ROWS, replace=False)]


def shuffle_dinucleotides(sequences: Sequence[str], random_state: Any = None) -> list[str]:
    """Shuffle each sequence such that its pairs of neighbouring letters keep their exact numbers.

    The pairs of a sequence are the edges of a graph. A random Eulerian path through it is drawn uniformly from all
    paths with the same first and last letter: first the last edge of each letter, so that they lead to the last letter
    (Wilson's loop-erased walks), then the other edges in random order.

    Parameters
    ----------
    sequences : sequence of str
    random_state : int, RandomState or None

    Returns
    -------
    shuffled : list of str

    References
    ----------
    Altschul and Erickson, Mol. Biol. Evol. 2:526, 1985; Wilson, STOC 1996.

    Examples
    --------
    >>> shuffle_dinucleotides(["AACA"], random_state=0)[0] in {"AACA", "ACAA"}
    True
    """
    rows = as_strings(sequences)
    draw = random.Random(int(check_random_state(random_state).randint(2**31 - 1)))
    return [_shuffle_dinucleotides(row, draw) for row in rows]


def validity_measures(
    designs: Sequence[str], reference: Sequence[str], *, k: int = 3, random_state: Any = None
) -> dict[str, float]:
    """All measures of designs against reference sequences.

    Parameters
    ----------
    designs, reference : sequence of str
    k : int, default=3
        Length of the k-mers in the spectra.
    random_state : int, RandomState or None

    Returns
    -------
    measures : dict of str to float
        Nan where a set has too few different sequences for a measure. A collapsed set has no discriminability; the
        share and the effective number of its different sequences show it.
    """
    rng = check_random_state(random_state)
    designs, reference = as_strings(designs), as_strings(reference)
    try:
        auroc = discriminability(designs, reference, random_state=rng)
    except InvalidDesignError:
        auroc = np.nan
    return {
        "different (share)": len(set(designs)) / len(designs),
        "different (effective number)": effective_number(np.unique(designs, return_inverse=True)[1]),
        f"{k}-mer Jensen-Shannon divergence (bits)": kmer_jensen_shannon(designs, reference, k=k),
        f"{k}-mer Pearson correlation": kmer_pearson(designs, reference, k=k),
        "GC Kolmogorov-Smirnov": gc_kolmogorov_smirnov(designs, reference),
        "novelty (share unseen)": novelty(designs, reference),
        "edit distance to the nearest (median)": float(np.median(nearest(designs, reference)[1])),
        "diversity (edit distance / length)": diversity(designs, random_state=rng) if len(designs) > 1 else np.nan,
        "discriminability (AUROC)": auroc,
    }


def validity_report(
    designs: Sequence[str], natural: Sequence[str], *, k: int = 3, random_state: Any = None
) -> pd.DataFrame:
    """The measures of designs beside their values for held-out natural sequences and for shuffled ones.

    Half of `natural`, chosen at random, is the reference that the designs, the other half ("held out") and
    the other half with its neighbouring letters shuffled ("shuffled") are compared with. GC content means
    little for proteins.

    Parameters
    ----------
    designs, natural : sequence of str
    k : int, default=3
        Length of the k-mers in the spectra.
    random_state : int, RandomState or None

    Returns
    -------
    report : DataFrame of shape (n_measures, 3)
        Columns "designs", "held out", "shuffled"; the index names the measures, see `validity_measures`.
    """
    rng = check_random_state(random_state)
    natural = as_strings(natural)
    order = rng.permutation(len(natural))
    reference = [natural[i] for i in order[: len(order) // 2]]
    held_out = [natural[i] for i in order[len(order) // 2 :]]
    columns = {"designs": designs, "held out": held_out, "shuffled": shuffle_dinucleotides(held_out, rng)}
    return pd.DataFrame(
        {name: validity_measures(rows, reference, k=k, random_state=rng) for name, rows in columns.items()}
    )


def _spectra(A: Sequence[str], B: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of each k-mer in two sets, (n_kmers,) each."""
    letters = "".join(sorted(set().union(*as_strings(A), *as_strings(B))))
    counts = [np.asarray(kmer_counts(rows, k, letters=letters).sum(axis=0)) for rows in (A, B)]
    if not all(count.sum() > 0 for count in counts):
        raise InvalidDesignError(f"no sequence has {k} letters; pass longer sequences or a smaller k.")
    p, q = (count / count.sum() for count in counts)
    return p, q


def _shuffle_dinucleotides(sequence: str, draw: random.Random) -> str:
    """One random Eulerian path."""
    successors: dict[str, list[str]] = {}
    for letter, successor in zip(sequence, sequence[1:], strict=False):
        successors.setdefault(letter, []).append(successor)
    # Wilson's algorithm: a uniform random tree of last edges that lead to the last letter. Each random walk runs until
    # it meets the tree; overwriting `last_edge` erases its loops.
    last_edge: dict[str, int] = {}
    in_tree = {sequence[-1]}
    for start in successors:
        letter = start
        while letter not in in_tree:
            last_edge[letter] = draw.randrange(len(successors[letter]))
            letter = successors[letter][last_edge[letter]]
        letter = start
        while letter not in in_tree:
            in_tree.add(letter)
            letter = successors[letter][last_edge[letter]]
    # By the BEST theorem any order of the other edges gives an Eulerian path, and each path once.
    for letter, following in successors.items():
        last = [following.pop(last_edge[letter])] if letter != sequence[-1] else []
        draw.shuffle(following)
        # Taken from the end: the last edge comes first in the list.
        following[:0] = last
    path = [sequence[0]]
    while successors.get(path[-1]):
        path.append(successors[path[-1]].pop())
    return "".join(path)
