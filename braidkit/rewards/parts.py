"""Parts of a kernel between designs: by position, by composition and by distance, for sequences and for vectors.

A *part* is a positive semi-definite function of two designs, written so that `evidence` can weigh it. All are smooth
in relaxed points. `Parts` computes them together, since they share their inner loops.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Collection
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from braidkit.networks import shrunk
from braidkit.rewards.column_scales import SCALE_ROWS, first_scales, fit_scales, rough, smooth, squared_distances
from braidkit.rewards.row_noise import RowNoise
from braidkit.spaces import SequenceSpace

Views = dict[str, Tensor]  # what the parts need of points, by name; each of shape (n, ...)

# Distances at which a pair of typical rows has a correlation of e^-1, e^-3 and e^-8 in the three radial parts.
DECAYS = (1.0, 3.0, 8.0)
MAX_ADDITIVE = 64  # columns of a vector beyond which parts by column are left out, and that the rough part sees
MAX_COUNTS = 2100  # k-mers beyond which a part that counts them is left out
MAX_GAP = 8
LINEAR, GAPPED, NETWORK = "linear", "gapped pairs", "network"
OTHER_END, LENGTHS = "letters from the other end", "length"
SMOOTH, ROUGH, PRODUCTS = "scaled", "scaled rough", "products"
SUMS = ("letters", "neighbours", "pairs", "triples", "quadruples")
CACHED_NUMBERS = 2**16  # of a matrix of matches that stays in a processor's cache
TYPICAL_ROWS = 2000
LEAST_START = 0.3  # of the sum of rough scales, where their search begins


class Parts(nn.Module, abc.ABC):
    """The parts of a kernel on a space, each divided by its mean diagonal on some rows.

    Attributes
    ----------
    names : list of str
        Names of the parts that are not constant on the rows.
    groups : list of list of str
        Names of parts, that of the networks among them, that are used together where the data ask for them. Parts of no
        group are always used.
    doubts_networks : bool
        Whether the part of the networks is used only if left-out rows are predicted better with it.
    """

    names: list[str]
    groups: list[list[str]]
    doubts_networks: bool = False
    # Type of the kernels of new points; the posterior itself is solved in float64.
    dtype: ClassVar[torch.dtype] = torch.float64

    def learn(self, x: Tensor, y: Tensor, row_noise: RowNoise) -> None:
        """Fit what the parts have of parameters to rows (n, \\*space.shape) and standardised y (n,); most have none."""

    @abc.abstractmethod
    def views(self, x: Tensor, wanted: Collection[str] | None = None) -> Views:
        """What the parts that are wanted, all by default, need of points (n, \\*space.shape), in the points' type."""

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

    Where sequences have several lengths, positions count from the end without padding. Then letters by their position
    from the other end are one more part, and so is the length: the last letters of a peptide may matter wherever they
    stand.

    Parameters
    ----------
    space : SequenceSpace
    x : Tensor of shape (n, length, n_letters)
        Rows that set means and scales.
    """

    dtype = torch.float32

    def __init__(self, space: SequenceSpace, x: Tensor) -> None:
        super().__init__()
        self.length, self.n_letters = space.visible_shape  # padding is not seen
        self.padding, self.shortest = space.letters.padding, space.letters.shortest
        longest = 5 if self.length > 64 else 4
        self.sizes = [k for k in range(1, min(longest, self.length) + 1) if self.n_letters**k <= MAX_COUNTS]
        self.max_gap = min(self.length - 1, MAX_GAP, MAX_COUNTS // self.n_letters**2 + 1)
        x = x[:TYPICAL_ROWS, :, : self.n_letters].double()
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
        of_lengths = [] if self.padding is None else [OTHER_END, LENGTHS]
        self.groups = [
            radial,
            self._counted,
            ["triples", "quadruples"],
            [NETWORK],
            *([of_lengths] if of_lengths else []),
        ]
        self._set_scales(x, by_position + radial + self._counted + of_lengths)

    def views(self, x: Tensor, wanted: Collection[str] | None = None) -> Views:
        x = x[..., : self.n_letters]
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
        if self.padding is not None and (wanted is None or OTHER_END in wanted or LENGTHS in wanted):
            views[OTHER_END], views[LENGTHS] = self._from_other_end(x)
        for name in views.keys() - {"x"} if self._has_means else ():
            views[name] = views[name] - self.get_buffer(f"mean of {name}").to(x)
        return views

    def _from_other_end(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Letters (n, length * n_letters) by their position from the end with padding, and weights of each length.

        The weight of a length is 1 or 0 where letters are whole: by how much the last letter of that length is there,
        and the next is not.
        """
        x = x.flip(1) if self.padding == "left" else x  # padding comes last
        there = torch.cat([x.sum(dim=2), x.new_zeros(len(x), 1)], dim=1)
        lengths = there[:, self.shortest - 1 : -1] - there[:, self.shortest :]
        letters = torch.zeros_like(x)
        for i, length in enumerate(range(self.shortest, self.length + 1)):
            letters[:, self.length - length :] += lengths[:, i, None, None] * x[:, :length]
        return letters.flatten(1), lengths

    def _nonlinear(self, a: Views, b: Views, wanted: Collection[str]) -> dict[str, Tensor]:
        mean = self.get_buffer("mean").to(a["x"])
        centred_a, centred_b = a["x"] - mean, b["x"] - mean
        matrices = interactions(centred_a, centred_b, wanted)
        half_distance = squared_distances(a["x"].flatten(-2), b["x"].flatten(-2)) / 2
        return matrices | radial_parts(half_distance / self.typical, wanted)


class VectorParts(Parts):
    """Parts for vectors and images, on standardised columns x_j; large images are `shrunk` first.

    Linear; radial, ``exp(-|x - x'|^2 / l)``; and for up to 64 columns the smooth functions of one column,
    ``sum_j exp(-(x_j - x'_j)^2 / 2)``, and of two.

    Vectors have three more. Squares and products of columns, ``(x . x')^2``. A smooth and a rough part of columns times
    scales a_j that `learn` finds, ``exp(-sum_j (a_j (x_j - x'_j))^2 / 2)`` and ``exp(-sum_j a_j |x_j - x'_j|)``; the
    rough one sees 64 columns at most, those that matter most to the smooth one.

    Parameters
    ----------
    x : Tensor of shape (n, \\*space.shape)
        Rows that set means and scales.
    learns_scales : bool, default=False
        Whether rows are vectors, whose columns have scales.
    """

    def __init__(self, x: Tensor, learns_scales: bool = False) -> None:
        super().__init__()
        self.learns_scales = self.doubts_networks = learns_scales
        x = shrunk(x[:TYPICAL_ROWS]).double().flatten(1)
        deviation = x.std(dim=0, correction=0)
        self.register_buffer("mean", x.mean(dim=0))
        # A column without variation keeps its units, so that leaving its value is seen.
        self.register_buffer("deviation", torch.where(deviation > 1e-12, deviation, torch.ones_like(deviation)))
        self.typical = 2.0 * max(int((deviation > 1e-12).sum()), 1)
        additive = ["columns", "pairs of columns"][: x.shape[1]] if 1 < x.shape[1] <= MAX_ADDITIVE else []
        radial = [f"radial {decay:g}" for decay in DECAYS]
        if learns_scales:
            self.register_buffer("smooth_scales", first_scales(x.shape[1]).to(x))
            self.register_buffer("rough_columns", torch.arange(min(x.shape[1], MAX_ADDITIVE), device=x.device))
            self.register_buffer("rough_scales", first_scales(len(self.rough_columns)).to(x))
        self.groups = []  # on vectors the sum of all was at least as good as a choice
        scaled = [PRODUCTS, SMOOTH, ROUGH] if learns_scales else []
        self._set_scales(x, [LINEAR, *additive, *radial, *scaled])

    smooth_scales: Tensor
    rough_columns: Tensor
    rough_scales: Tensor

    def learn(self, x: Tensor, y: Tensor, row_noise: RowNoise) -> None:
        if not self.learns_scales:
            return
        x, y, row_noise = (
            self.views(x[:SCALE_ROWS].to(y.device))[LINEAR],
            y[:SCALE_ROWS],
            row_noise.take(slice(SCALE_ROWS)),
        )
        self.smooth_scales.copy_(fit_scales(smooth, x, y, row_noise))
        most = self.smooth_scales.argsort(descending=True, stable=True)[: len(self.rough_columns)]
        self.rough_columns.copy_(most.sort().values)
        # A step a third as wide as a wave is a good guess, for all columns that may still matter.
        start = (self.smooth_scales[self.rough_columns] / 3).clamp_min(LEAST_START / len(self.rough_columns))
        self.rough_scales.copy_(fit_scales(rough, x[:, self.rough_columns], y, row_noise, start=start))

    def views(self, x: Tensor, wanted: Collection[str] | None = None) -> Views:
        return {LINEAR: (shrunk(x).flatten(1) - self.get_buffer("mean")) / self.get_buffer("deviation")}

    def _nonlinear(self, a: Views, b: Views, wanted: Collection[str]) -> dict[str, Tensor]:
        x, z = a[LINEAR], b[LINEAR]
        matrices = radial_parts(squared_distances(x, z) / self.typical, wanted)
        if "columns" in wanted or "pairs of columns" in wanted:
            columns = [torch.exp(-0.5 * (x[..., j, None] - z[..., None, :, j]).square()) for j in range(x.shape[-1])]
            total = sum(columns, start=torch.zeros_like(columns[0]))
            squares = sum((column.square() for column in columns), start=torch.zeros_like(columns[0]))
            matrices |= {"columns": total, "pairs of columns": (total.square() - squares) / 2}
        if PRODUCTS in wanted:
            matrices[PRODUCTS] = (x @ z.mT).square()
        if SMOOTH in wanted:
            matrices[SMOOTH] = smooth(x * self.smooth_scales, z * self.smooth_scales)
        if ROUGH in wanted:
            seen, scales = self.rough_columns, self.rough_scales
            matrices[ROUGH] = rough(x[..., seen] * scales, z[..., seen] * scales)
        return matrices


def parts_for(space: Any, x: Tensor) -> Parts:
    """The parts of a kernel that suit a space; rows (n, \\*space.shape) set means and scales."""
    if space.alphabet is not None:
        return SequenceParts(space, x)
    return VectorParts(x, learns_scales=space.has_columns)


class Interactions(torch.autograd.Function):
    """Sums of products of matches ``m_i = a_i . b_i`` over sets of positions, without a graph of the products.

    Forward, and backward with the matches computed again, some rows at a time, so that all matrices of a few positions
    stay in a processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, wanted: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Matrices (..., n, m), one for each name wanted, of points a (..., n, L, K) and b (..., m, L, K)."""
        ctx.save_for_backward(a, b)
        ctx.wanted = wanted
        parts = [_sums(rows, b, wanted) for rows in a.split(_rows_at_once(b), dim=-3)]
        return tuple(torch.cat(sums, dim=-2) for sums in zip(*parts, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        size = _rows_at_once(b)
        by_rows = [gradient.split(size, dim=-2) for gradient in gradients]
        grad_a, grad_b = torch.empty_like(a), torch.zeros_like(b) if ctx.needs_input_grad[1] else None
        pieces = zip(a.split(size, dim=-3), grad_a.split(size, dim=-3), *by_rows, strict=True)
        for rows, grad_rows, *own in pieces:
            _add_gradients(rows, b, dict(zip(ctx.wanted, own, strict=True)), grad_rows, grad_b)
        return grad_a if ctx.needs_input_grad[0] else None, grad_b, None


def _rows_at_once(b: Tensor) -> int:
    return max(CACHED_NUMBERS // b.shape[-3], 1)


def _matches(a: Tensor, b: Tensor) -> list[Tensor]:
    return [a[..., i, :] @ b[..., i, :].mT for i in range(a.shape[-2])]


def _sums(a: Tensor, b: Tensor, wanted: tuple[str, ...]) -> list[Tensor]:
    """The sums (..., n, m) by name: over single positions, pairs, and consecutive positions."""
    zero = a.new_zeros(*a.shape[:-2], b.shape[-3])
    total, squares = zero.clone(), zero.clone()
    sums = {name: zero.clone() for name in wanted if name in ("neighbours", "triples", "quadruples")}
    before: list[Tensor] = []  # the last three matches, the latest first
    for i in range(a.shape[-2]):
        match = a[..., i, :] @ b[..., i, :].mT
        total += match
        if "pairs" in wanted:
            squares.addcmul_(match, match)
        for other in before if "neighbours" in sums else ():
            sums["neighbours"].addcmul_(match, other)
        if len(before) > 1 and ("triples" in sums or "quadruples" in sums):
            in_a_row = match * before[0] * before[1]
            if "triples" in sums:
                sums["triples"] += in_a_row
            if "quadruples" in sums and len(before) > 2:
                sums["quadruples"].addcmul_(in_a_row, before[2])
        before = [match, *before[:2]]
    if "pairs" in wanted:
        sums["pairs"] = (total.square() - squares) / 2
    sums["letters"] = total
    return [sums[name] for name in wanted]


def _add_gradients(a: Tensor, b: Tensor, by_name: dict[str, Tensor], grad_a: Tensor, grad_b: Tensor | None) -> None:
    """Set the gradient of points a (..., n, L, K), and add that of points b, from those of the sums."""
    length = a.shape[-2]
    # Beyond the ends there are matches of zero.
    zero = a.new_zeros(())
    m = [zero] * 3 + _matches(a, b) + [zero] * 3
    letters, near, pairs, three, four = (by_name.get(name) for name in SUMS)
    total = torch.stack(m[3:-3]).sum(dim=0) if pairs is not None else zero
    in_a_row = three is not None or four is not None
    two = [one * following for one, following in itertools.pairwise(m)] if in_a_row else []
    for i in range(3, length + 3):
        gradient = torch.zeros_like(m[3]) if letters is None else letters.clone()
        if near is not None:
            gradient.addcmul_(near, m[i - 1] + m[i - 2] + m[i - 3] + m[i + 1] + m[i + 2] + m[i + 3])
        if pairs is not None:
            gradient.addcmul_(pairs, total - m[i])
        if three is not None:
            gradient.addcmul_(three, two[i - 2] + m[i - 1] * m[i + 1] + two[i + 1])
        if four is not None:
            gradient.addcmul_(four, two[i - 2] * (m[i - 3] + m[i + 1]) + two[i + 1] * (m[i - 1] + m[i + 3]))
        grad_a[..., i - 3, :] = gradient @ b[..., i - 3, :]
        if grad_b is not None:
            grad_b[..., i - 3, :] += gradient.mT @ a[..., i - 3, :]


def interactions(a: Tensor, b: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
    """Sums of products of matches ``m_i = a_i . b_i`` over sets of positions.

    Parameters
    ----------
    a, b : Tensor of shape (..., n, L, K) and (..., m, L, K)
    wanted : collection of str
        Those of `SUMS` to compute: over single positions, over pairs at most 3 apart, over all pairs, over 3 and over 4
        in a row.

    Returns
    -------
    sums : dict of str to Tensor of shape (..., n, m)
        Differentiable once.
    """
    names = tuple(name for name in SUMS if name in wanted)
    return dict(zip(names, Interactions.apply(a, b, names), strict=True)) if names else {}


def radial_parts(distance: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
    """``exp(-decay distance)`` for distances that are 1 between typical rows."""
    names = {f"radial {decay:g}": decay for decay in DECAYS}
    return {name: torch.exp(-decay * distance) for name, decay in names.items() if name in wanted}
