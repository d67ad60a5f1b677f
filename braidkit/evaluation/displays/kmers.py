"""Shares of k-mers in designs and in natural sequences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from braidkit.evaluation.arguments import read_array
from braidkit.evaluation.displays._drawing import BLUE, new_axes, plain
from braidkit.evaluation.edit_distance import as_strings
from braidkit.evaluation.metrics import kmer_counts, kmer_jensen_shannon, kmer_pearson

# Names written beside the points that lie furthest from the diagonal.
_N_NAMED = 6


class KmerScatterDisplay:
    """Share of every k-mer in designs against its share in reference sequences; equal spectra lie on the diagonal.

    Parameters
    ----------
    kmers : sequence of str
    reference, designs : ndarray of shape (n_kmers,)
        Shares of all k-mers.
    pearson : float
        Correlation of the two.
    divergence : float
        Their Jensen-Shannon divergence, bits.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> display = KmerScatterDisplay.from_sequences(["ACGT", "AAAA"], ["ACGT", "CCCC"], k=1)
    >>> [float(share) for share in display.designs]
    [0.625, 0.125, 0.125, 0.125]
    """

    def __init__(
        self, kmers: Sequence[str], reference: np.ndarray, designs: np.ndarray, *, pearson: float, divergence: float
    ) -> None:
        self.kmers = kmers
        self.reference = read_array("reference", reference, len(kmers) or None)
        self.designs = read_array("designs", designs, len(kmers) or None)
        self.pearson = pearson
        self.divergence = divergence

    @classmethod
    def from_sequences(cls, designs: Sequence[str], reference: Sequence[str], *, k: int = 3) -> KmerScatterDisplay:
        """Count the k-mers of two sets of sequences."""
        sets = as_strings(reference), as_strings(designs)
        letters = "".join(sorted(set().union(*map(set, itertools.chain(*sets)))))
        divergence = kmer_jensen_shannon(sets[1], sets[0], k=k)
        counts = [np.asarray(kmer_counts(rows, k, letters=letters).sum(axis=0)) for rows in sets]
        return cls(
            ["".join(kmer) for kmer in itertools.product(letters, repeat=k)],
            counts[0] / counts[0].sum(),
            counts[1] / counts[1].sum(),
            pearson=kmer_pearson(sets[1], sets[0], k=k),
            divergence=divergence,
        )

    def plot(self, ax: Any = None) -> KmerScatterDisplay:
        """Draw on `ax`, or on a new figure."""
        self.figure_, self.ax_ = new_axes(ax, height=4.4, width=4.6)
        top = 1.08 * 100 * max(self.reference.max(), self.designs.max())
        self.ax_.plot([0, top], [0, top], color="black", linewidth=0.8, linestyle=":")
        self.ax_.plot(100 * self.reference, 100 * self.designs, "o", color=BLUE, alpha=0.6, markersize=4)
        self._name_furthest(top)
        self.ax_.set_xlim(-0.03 * top, top)
        self.ax_.set_ylim(-0.03 * top, top)
        self.ax_.set_aspect("equal")
        size = len(self.kmers[0])
        self.ax_.set_xlabel(f"% of {size}-mers, reference")
        self.ax_.set_ylabel(f"% of {size}-mers, designs")
        self.ax_.set_title(f"Pearson {self.pearson:.2f}, divergence {self.divergence:.3g} bits", fontsize="medium")
        self.ax_.spines[["top", "right"]].set_visible(False)
        return self

    def _name_furthest(self, top: float) -> None:
        """Write the names of the points furthest from the diagonal, but for those that would cover another name."""
        points = 100 * np.column_stack([self.reference, self.designs])
        gap = points[:, 1] - points[:, 0]
        named: list[np.ndarray] = []
        for i in np.argsort(-np.abs(gap)):
            covers = any((np.abs(points[i] - other) < [0.15 * top, 0.05 * top]).all() for other in named)
            if covers or gap[i] == 0:
                continue
            named.append(points[i])
            right = gap[i] < 0
            offset, side = ((5, -2), "left") if right else ((-5, 2), "right")
            self.ax_.annotate(
                plain(self.kmers[i]), points[i], offset, textcoords="offset points", ha=side, fontsize="small"
            )
            if len(named) == _N_NAMED:
                break
