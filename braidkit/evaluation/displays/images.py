"""Grids of images: what was measured, and what chains make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from braidkit.evaluation.arguments import check_fitted, read_measured, read_values
from braidkit.evaluation.displays._drawing import new_axes, plain
from braidkit.exceptions import IncompatibleModelError, InvalidDesignError, InvalidParameterError
from braidkit.parameters import check_number, check_random_state

# Share of a cell's width that is the image; inches of a cell; room for a number, in cells.
_WIDTH, _INCHES, _NUMBER = 0.94, 0.85, 0.24


class ImageGridDisplay:
    """A grid of images in groups, one below the other, with a number under each image if wanted.

    Parameters
    ----------
    images : mapping of str to ndarray of shape (n, height, width) or (n, height, width, 3)
        Images of each group, uint8 or floats from 0 to 1, named as the rows are to be labelled.
    numbers : mapping of str to array-like of shape (n,), optional
        A number for each image, for example a reward.
    name : str, default=""
        What the numbers are; labels the grid.
    n_columns : int, default=10
        Images beside each other; a longer group goes on below.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Raises
    ------
    InvalidDesignError
        If a group is no array of grey or coloured images, or not all images have the same size.
    InvalidParameterError
        If there is no group, or not one number for each image.

    Examples
    --------
    >>> import numpy as np
    >>> display = ImageGridDisplay({"noise": np.random.default_rng(0).random((3, 8, 8))}, {"noise": [0.1, 0.5, 0.9]})
    >>> [text.get_text() for text in display.plot().ax_.texts]
    ['0.1', '0.5', '0.9']
    """

    def __init__(
        self,
        images: Mapping[str, Any],
        numbers: Mapping[str, Any] | None = None,
        *,
        name: str = "",
        n_columns: int = 10,
    ) -> None:
        check_number("n_columns", n_columns, low=1, whole=True)
        self.images = {group: np.asarray(rows) for group, rows in images.items()}
        if not self.images:
            raise InvalidParameterError("images is empty; pass at least one group.")
        for group, rows in self.images.items():
            if rows.ndim not in (3, 4) or (rows.ndim == 4 and rows.shape[3] != 3) or not len(rows):
                raise InvalidDesignError(
                    f"{group!r} must have images of shape (n, height, width[, 3]), channels last; got {rows.shape}."
                )
        sizes = {rows.shape[1:3] for rows in self.images.values()}
        if len(sizes) > 1:
            raise InvalidDesignError(f"all images must have the same size; got {sorted(sizes)}.")
        self.numbers = None if numbers is None else read_values(numbers)
        for group, rows in self.images.items():
            if self.numbers is not None and len(self.numbers.get(group, [])) != len(rows):
                raise InvalidParameterError(f"numbers must have {len(rows)} for {group!r}, one for each image.")
        self.name = name
        self.n_columns = int(n_columns)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any = None,
        y: Any = None,
        *,
        n_designs: int = 10,
        random_state: Any = None,
        name: str = "reward",
        n_columns: int = 10,
    ) -> ImageGridDisplay:
        """Show the best measured images, those of the pretrained chain, and the fine-tuned chain's of the same noise.

        The numbers are predictions of the judge for all of them, so that they differ by the images only.

        Parameters
        ----------
        estimator : fitted ConservativeDiffusionFinetuner
            Of images.
        X, y : images and their measurements, optional
            Without them there are no measured images.
        n_designs : int, default=10
            Images of each kind.
        random_state : int, RandomState or None
        name : str, default="reward"
        n_columns : int, default=10

        Raises
        ------
        IncompatibleModelError
            If the designs are no images.
        """
        check_fitted(estimator, "pretrained_", "model_", "judge_", "space_")
        check_number("n_designs", n_designs, low=1, whole=True)
        if not estimator.space_.has_pixels:
            raise IncompatibleModelError(f"estimator makes designs of {estimator.space_}, which are no images.")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        groups = {}
        if X is not None:
            measured, values = read_measured(X, y, estimator)
            groups["best measured"] = measured[np.argsort(-values, kind="stable")[:n_designs]]
        groups["pretrained"] = estimator.pretrained_.sample(n_designs, seed)
        groups["fine-tuned"] = estimator.sample(n_designs, seed)
        numbers = {group: estimator.judge_.predict(images) for group, images in groups.items()}
        return cls(groups, numbers, name=f"{name}, predicted by the judge", n_columns=n_columns)

    def plot(self, ax: Any = None) -> ImageGridDisplay:
        """Draw on `ax`, or on a new figure."""
        height, width = next(iter(self.images.values())).shape[1:3]
        height = _WIDTH * height / width
        pitch = height + 1 - _WIDTH + (0 if self.numbers is None else _NUMBER)
        n_columns = min(self.n_columns, max(map(len, self.images.values())))
        n_rows = sum(-(-len(rows) // n_columns) for rows in self.images.values())
        self.figure_, self.ax_ = new_axes(ax, _INCHES * pitch * n_rows + 0.5, _INCHES * n_columns + 1.2)
        row, labelled = 0, []
        for group, images in self.images.items():
            labelled.append(-pitch * row - height / 2)
            for i, image in enumerate(images):
                left, top = i % n_columns, -pitch * (row + i // n_columns)
                extent = (left, left + _WIDTH, top - height, top)
                self.ax_.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1, extent=extent)
                if self.numbers is not None:
                    text, middle = f"{self.numbers[group][i]:.3g}", left + _WIDTH / 2
                    self.ax_.text(middle, top - height - 0.03, text, ha="center", va="top", fontsize="small")
            row += -(-len(images) // n_columns)
        self.ax_.set_xlim(0, n_columns)
        self.ax_.set_ylim(-pitch * n_rows, 0.02)
        self.ax_.set_yticks(labelled, [plain(group) for group in self.images])
        self.ax_.set_xticks([])
        self.ax_.tick_params(length=0)
        self.ax_.set_xlabel(plain(self.name))
        self.ax_.spines[:].set_visible(False)
        return self
