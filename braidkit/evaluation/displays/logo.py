"""Sequence logos: the letters that designs share, position by position."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from braidkit.evaluation.arguments import read_array
from braidkit.evaluation.displays._drawing import BLUE, GREEN, GREY, ORANGE, SKY, given_axes, pyplot
from braidkit.evaluation.edit_distance import as_strings
from braidkit.exceptions import InvalidParameterError
from braidkit.parameters import check_number
from braidkit.spaces import SequenceSpace, infer_space

# The usual colours of nucleotides, in shades that colour-blind people can distinguish; other alphabets cycle.
_COLOURS = {"A": GREEN, "C": BLUE, "G": "#E69F00", "T": ORANGE, "U": ORANGE}
_OTHERS = (GREEN, BLUE, ORANGE, SKY, GREY, "black")
_ROW = 50  # positions


class SequenceLogoDisplay:
    """Letters as tall as the information of their position, in bits, times their share.

    Parameters
    ----------
    shares : ndarray of shape (length, n_letters)
        Share of each letter at each position; rows sum to 1.
    letters : str
    n_sequences : int, optional
        Sequences that the shares come from. Few sequences agree by chance: the information is less by
        ``(n_letters - 1) / (2 ln(2) n_sequences)`` bits, and not below 0.
    start : int, default=1
        Number of the first position.

    Attributes
    ----------
    information : ndarray of shape (length,)
        Bits: log2(n_letters) less the entropy of the shares, and less the correction.
    axes_ : ndarray of matplotlib Axes
        One for every 50 positions.
    figure_ : matplotlib Figure

    References
    ----------
    Schneider and Stephens (1990), Nucleic Acids Res. 18:6097; the correction: Schneider et al. (1986), J. Mol. Biol.
    188:415.

    Examples
    --------
    >>> display = SequenceLogoDisplay.from_sequences(["AC", "AG", "AT", "AA"] * 1000)
    >>> [float(bits) for bits in display.information.round(2)]
    [2.0, 0.0]
    """

    def __init__(self, shares: np.ndarray, letters: str, *, n_sequences: int | None = None, start: int = 1) -> None:
        self.shares = read_array("shares", shares, None, len(letters))
        if (self.shares < 0).any():
            raise InvalidParameterError("shares must be at least 0.")
        self.letters = letters
        self.n_sequences = n_sequences
        self.start = start

    @property
    def information(self) -> np.ndarray:
        positive = np.where(self.shares > 0, self.shares, 1.0)
        entropy = -(positive * np.log2(positive)).sum(axis=1)
        chance = 0.0 if self.n_sequences is None else (len(self.letters) - 1) / (2 * np.log(2) * self.n_sequences)
        return np.maximum(0, np.log2(len(self.letters)) - entropy - chance)

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[str], *, letters: str | None = None, start: int = 1
    ) -> SequenceLogoDisplay:
        """Count the letters of sequences of one length.

        Parameters
        ----------
        sequences : sequence of str
        letters : str, optional
            The alphabet; by default DNA, RNA or protein, whichever the sequences are written in.
        start : int, default=1
            Number of the first position.

        Raises
        ------
        InvalidDesignError
            If the sequences are none, or differ in length, or have letters outside the alphabet.
        """
        check_number("start", start, whole=True)
        rows = as_strings(sequences)
        space = SequenceSpace(letters or infer_space(rows).alphabet or "", len(rows[0]))
        return cls(
            space.encode(rows).numpy().mean(axis=0, dtype=float), space.alphabet, n_sequences=len(rows), start=start
        )

    def plot(self, axes: Any = None) -> SequenceLogoDisplay:
        """Draw on axes, one for every 50 positions, or on a new figure."""
        n_rows = -(-len(self.shares) // _ROW)
        if axes is None:
            width = max(2.4, 0.8 + 0.15 * min(len(self.shares), _ROW))
            self.figure_, drawn = pyplot().subplots(
                n_rows, 1, squeeze=False, sharey=True, figsize=(width, 1.5 * n_rows), layout="constrained"
            )
            self.axes_ = drawn[:, 0]
        else:
            self.axes_ = given_axes(axes, n_rows)
            self.figure_ = self.axes_[0].figure
        heights = self.shares * self.information[:, None]
        # Where little is agreed on, the full scale would show nothing.
        top = float(np.clip(1.1 * heights.sum(axis=1).max(), 0.1, np.log2(len(self.letters))))
        for row, ax in enumerate(self.axes_):
            places = range(row * _ROW, min(len(heights), (row + 1) * _ROW))
            self._draw_letters(ax, places, heights)
            numbers = [self.start + place for place in places]
            # The last row, where shorter, keeps its letters as wide as the others.
            ax.set_xlim(numbers[0] - 0.6, numbers[0] + (_ROW if n_rows > 1 else len(numbers)) - 0.4)
            ax.set_ylim(0, top)
            every = 10 if len(self.shares) > 20 else 1
            ax.set_xticks([number for number in numbers if number % every == 0 or number == numbers[0]])
            ax.set_ylabel("bits")
            ax.spines[["top", "right"]].set_visible(False)
        self.axes_[-1].set_xlabel("position")
        return self

    def _draw_letters(self, ax: Any, places: range, heights: np.ndarray) -> None:
        """Stack the letters of some positions, the tallest on top, as outlines stretched to their heights."""
        from matplotlib.collections import PathCollection
        from matplotlib.font_manager import FontProperties
        from matplotlib.path import Path
        from matplotlib.textpath import TextPath

        font = FontProperties(family="DejaVu Sans", weight="bold")
        colour = dict(zip(self.letters, itertools.cycle(_OTHERS), strict=False))
        colour = _COLOURS if set(self.letters) <= set(_COLOURS) else colour
        outlines = {letter: TextPath((0, 0), letter, size=1, prop=font) for letter in self.letters}
        paths, colours = [], []
        for place in places:
            floor = 0.0
            for index in np.argsort(heights[place], kind="stable"):
                letter, height = self.letters[index], heights[place, index]
                if height <= 0:
                    continue
                outline = outlines[letter]
                box = outline.get_extents()
                # Narrow letters, such as I, keep their shape.
                width = 0.9 * min(1.0, box.width / 0.5)
                scale = np.array([width / box.width, height / box.height])
                corner = np.array([self.start + place - width / 2, floor])
                paths.append(Path((outline.vertices - box.min) * scale + corner, outline.codes))
                colours.append(colour[letter])
                floor += height
        ax.add_collection(PathCollection(paths, facecolors=colours, linewidths=0))
