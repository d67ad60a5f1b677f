"""Parts of a kernel between designs: by position, by composition and by distance, for sequences and for vectors.

A *part* is a positive semi-definite function of two designs, written so that `evidence` can weigh it. All are smooth
in relaxed points. `Parts` computes them together, since they share their inner loops.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from braidkit.networks import shrunk
from braidkit.spaces import Space

Views = dict[str, Tensor]  # what the parts need of points, by name; each of shape (n, ...)

# Distances at which a pair of typical rows has a correlation of e^-1, e^-3 and e^-8 in the three radial parts.
DECAYS = (1.0, 3.0, 8.0)
MAX_ADDITIVE = 64  # columns of a vector beyond which parts by column are left out
MAX_COUNTS = 2100  # k-mers beyond which a part that counts them is left out
MAX_GAP = 8
LINEAR, GAPPED = "linear", "gapped pairs"
TYPICAL_ROWS = 2000


class Parts(nn.Module, abc.ABC):
    """The parts of a kernel on a space, each divided by its mean diagonal on some rows.

    Attributes
    ----------
    names : list of str
        Of the parts that are not constant on the rows.
    """

    names: list[str]

    @abc.abstractmethod
    def views(self, x: Tensor, wanted: Collection[str] | None = None) -> Views:
        """What the parts that are wanted, all by default, need of points (n, \\*space.shape), float64."""

    def matrices(self, a: Views, b: Views, wanted: Collection[str]) -> dict[str, Tensor]:
        """The matrix (n, m) between points of each part that is wanted.

        A view of another name than the parts know, beside them, is features of a linear part.
        """
        linear = {name: a[name] @ b[name].mT for name in wanted if name in a}
        parts = linear | self._nonlinear(a, b, wanted)
        return {name: parts[name] / self._scales.get(name, 1.0) for name in wanted}

    @abc.abstractmethod
    def _nonlinear(self, a: Views, b: Views, wanted: Collection[str]) -> dict[str, Tensor]:
        """Unscaled matrices (..., n, m), of views (..., n, d) and (..., m, d), of what is no view's product."""

    def diagonals(self, a: Views, wanted: Collection[str]) -> dict[str, Tensor]:
        """The part of each point with itself (n,), for each part that is wanted."""
        alone = {name: view[:, None] for name, view in a.items()}  # n sets of one point
        return {name: matrix[:, 0, 0] for name, matrix in self.matrices(alone, alone, wanted).items()}

    def _set_scales(self, x: Tensor, possible: list[str]) -> None:
        """Find the mean diagonal of each possible part on points, and keep those that vary."""
        self._scales = dict.fromkeys(possible, 1.0)
        self._scales = {name: float(d.mean()) for name, d in self.diagonals(self.views(x), possible).items()}
        self.names = [name for name in possible if self._scales[name] > 1e-9]


class SequenceParts(Parts):
    """Parts for sequences, on one-hot letters x_i (K,) with their column means taken off.

    With the matches ``m_i = x_i . x'_i``: letters by position ``sum m_i``; neighbours ``sum m_i m_j``, 0 < j - i <= 3;
    pairs, the same over all i < j; triples and quadruples of consecutive letters. Radial parts ``exp(-d / l)`` of the
    Hamming distance d. Counts of k-mers anywhere, k = 1 to 4 (5 in sequences of more than 64 letters), and of pairs
    with 1 to 7 letters between them.

    Parameters
    ----------
    space : Space
        Of sequences.
    x : Tensor of shape (n, length, n_letters)
        Rows that set means and scales.
    """

    def __init__(self, space: Space, x: Tensor) -> None:
        super().__init__()
        self.length, self.n_letters = space.shape
        longest = 5 if self.length > 64 else 4
        self.sizes = [k for k in range(1, min(longest, self.length) + 1) if self.n_letters**k <= MAX_COUNTS]
        self.max_gap = min(self.length - 1, MAX_GAP, MAX_COUNTS // self.n_letters**2 + 1)
        x = x[:TYPICAL_ROWS].double()
        self.register_buffer("mean", x.mean(dim=0))
        self.typical = max(float(1 - self.get_buffer("mean").square().sum(dim=1).mean()) * self.length, 0.5)
        self._counted = [f"{k}-mers" for k in self.sizes] + ([GAPPED] if self.max_gap > 1 else [])
        self._has_means = False
        for name, view in self.views(x).items():
            if name != "x":
                self.register_buffer(f"mean of {name}", view.mean(dim=0))
        self._has_means = True
        shortest = {"letters": 1, "neighbours": 5, "pairs": 2, "triples": 3, "quadruples": 4}
        by_position = [name for name, length in shortest.items() if self.length >= length]
        radial = [f"radial {decay:g}" for decay in DECAYS]
        self._set_scales(x, by_position + radial + self._counted)

    def views(self, x: Tensor, wanted: Collection[str] | None = None) -> Views:
        x = x.double()
        views = {"x": x}
        windows = [x]  # of k letters: (n, length - k + 1, n_letters**k)
        for k in self.sizes:
            if wanted is not None and f"{k}-mers" not in wanted:
                continue
            if k == 1:
                views["1-mers"] = x.sum(dim=1)
                continue
            # A k-mer is a window and the one that follows: their product, summed over positions, is a matrix product.
            first, second = (k + 1) // 2, k // 2
            while first > len(windows):
                windows.append((windows[-1][:, :-1, :, None] * x[:, len(windows) :, None, :]).flatten(2))
            head = windows[first - 1][:, : self.length - k + 1].transpose(1, 2)
            views[f"{k}-mers"] = (head @ windows[second - 1][:, first:]).flatten(1)
        if GAPPED in self._counted and (wanted is None or GAPPED in wanted):
            gapped = [x[:, :-gap].transpose(1, 2) @ x[:, gap:] for gap in range(2, self.max_gap + 1)]
            views[GAPPED] = torch.cat([counts.flatten(1) for counts in gapped], dim=1)
        for name in views.keys() - {"x"} if self._has_means else ():
            views[name] = views[name] - self.get_buffer(f"mean of {name}")
        return views

    def _nonlinear(self, a: Views, b: Views, wanted: Collection[str]) -> dict[str, Tensor]:
        mean = self.get_buffer("mean")
        centred_a, centred_b = a["x"] - mean, b["x"] - mean
        matches = (centred_a[..., i, :] @ centred_b[..., i, :].mT for i in range(self.length))
        matrices = interactions(matches, ("letters", "neighbours", "pairs", "triples", "quadruples"), wanted)
        half_distance = squared_distances(a["x"].flatten(-2), b["x"].flatten(-2)) / 2
        return matrices | radial_parts(half_distance / self.typical, wanted)


class VectorParts(Parts):
    """Parts for vectors and images, on standardised columns x_j; large images are `shrunk` first.

    Linear; radial, ``exp(-|x - x'|^2 / l)``; and for up to 64 columns the smooth functions of one column,
    ``sum_j exp(-(x_j - x'_j)^2 / 2)``, and of two.

    Parameters
    ----------
    x : Tensor of shape (n, \\*space.shape)
        Rows that set means and scales.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        x = shrunk(x[:TYPICAL_ROWS]).double().flatten(1)
        deviation = x.std(dim=0, correction=0)
        self.register_buffer("mean", x.mean(dim=0))
        # A column without variation keeps its units, so that leaving its value is seen.
        self.register_buffer("deviation", torch.where(deviation > 1e-12, deviation, torch.ones_like(deviation)))
        self.typical = 2.0 * max(int((deviation > 1e-12).sum()), 1)
        additive = ["columns", "pairs of columns"][: x.shape[1]] if 1 < x.shape[1] <= MAX_ADDITIVE else []
        self._set_scales(x, [LINEAR, *additive, *(f"radial {decay:g}" for decay in DECAYS)])

    def views(self, x: Tensor, wanted: Collection[str] | None = None) -> Views:
        return {LINEAR: (shrunk(x).double().flatten(1) - self.get_buffer("mean")) / self.get_buffer("deviation")}

    def _nonlinear(self, a: Views, b: Views, wanted: Collection[str]) -> dict[str, Tensor]:
        x, z = a[LINEAR], b[LINEAR]
        columns = (torch.exp(-0.5 * (x[..., j, None] - z[..., None, :, j]).square()) for j in range(x.shape[-1]))
        matrices = interactions(columns, ("columns", "", "pairs of columns", "", ""), wanted)
        return matrices | radial_parts(squared_distances(x, z) / self.typical, wanted)


def parts_for(space: Space, x: Tensor) -> Parts:
    """The parts of a kernel that suit a space; rows (n, \\*space.shape) set means and scales."""
    return SequenceParts(space, x) if space.default_features == "sequence" else VectorParts(x)


def interactions(matches: Iterable[Tensor], names: tuple[str, ...], wanted: Collection[str]) -> dict[str, Tensor]:
    """Sums of products of matches m_i, matrices of one shape, over sets of positions.

    Parameters
    ----------
    matches : iterable of Tensor
        m_1, m_2, ... by position.
    names : tuple of str
        Of the sums over single positions, over pairs at most 3 apart, over all pairs, over 3 and over 4 in a row.
    wanted : collection of str
        Those to compute.
    """
    single, near, pair, three, four = (name in wanted and name != "" for name in names)
    if not (single or near or pair or three or four):
        return {}
    sums: dict[str, Tensor] = {}
    total = squares = None
    before: list[Tensor] = []

    def add(name: str, value: Tensor) -> None:
        sums[name] = sums[name] + value if name in sums else value

    for match in matches:
        total = match if total is None else total + match
        if pair:
            squares = match.square() if squares is None else squares + match.square()
        if near and before:
            add(names[1], match * torch.stack(before).sum(dim=0) if len(before) > 1 else match * before[0])
        if (three or four) and len(before) >= 2:
            in_a_row = match * before[0] * before[1]
            if three:
                add(names[3], in_a_row)
            if four and len(before) == 3:
                add(names[4], in_a_row * before[2])
        before = [match, *before[:2]]
    assert total is not None
    if single:
        sums[names[0]] = total
    if pair:
        assert squares is not None
        sums[names[2]] = (total.square() - squares) / 2
    zero = torch.zeros_like(total)  # of shorter sequences
    return {name: sums.get(name, zero) for name in names if name and name in wanted}


def radial_parts(distance: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
    """``exp(-decay distance)`` for distances that are 1 between typical rows."""
    names = {f"radial {decay:g}": decay for decay in DECAYS}
    return {name: torch.exp(-decay * distance) for name, decay in names.items() if name in wanted}


def squared_distances(x: Tensor, z: Tensor) -> Tensor:
    """Squared Euclidean distances (..., n, m) of rows (..., n, d) and (..., m, d)."""
    return (x.square().sum(dim=-1)[..., :, None] + z.square().sum(dim=-1)[..., None, :] - 2 * x @ z.mT).clamp_min(0)
