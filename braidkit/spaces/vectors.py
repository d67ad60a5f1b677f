"""VectorSpace: designs that are rows of numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from braidkit.exceptions import BraidkitError, IncompatibleModelError, InvalidDesignError, InvalidParameterError
from braidkit.parameters import check_number
from braidkit.spaces._base import Space, ranges
from braidkit.spaces.columns import Columns, found_whole
from braidkit.spaces.points import Points
from braidkit.spaces.reading import is_strings, read_designs

# Squares of points that lie further out, and what networks make of them, are beyond float32.
FAR = 1e12


class VectorSpace(Space):
    """Vectors of one width; points are standardised, so that chains and networks see entries near one.

    Parameters
    ----------
    n_features : int
    loc, scale : array-like of shape (n_features,), optional
        Subtracted from each column, which is then divided by `scale`; zeros and ones by default.
    template : sequence of n_features numbers or None, optional
        A number where a column is held at it in all designs, None (or NaN) where it is free. Without a template,
        estimators hold the columns that are constant in their data; ``[None] * n_features`` holds none.
    bounds : (low, high), optional
        The least and the largest number of each column that a design may have, each of shape (n_features,);
        None, or an infinite number, where a column has no bound. Designs only are bounded: rows are read as they are.
    whole : collection of int, optional
        Numbers of the columns in which designs have whole numbers. Rows are read as they are.
    one_of : mapping of str to collection of int, optional
        Columns of zeros and a one that stand for the labels of a name, such as ``{"solvent": [2, 3, 4]}``: a design has
        a 1 in exactly one of them.
    names : sequence of n_features str, optional
        Names of the columns; those of a name's labels are the labels.

    Examples
    --------
    >>> space = VectorSpace(3, whole=[0], one_of={"solvent": [1, 2]}, names=["layers", "water", "ethanol"])
    >>> space.to_frame(space.decode(torch.tensor([[1.7, 0.3, 0.4]])))
       layers  solvent
    0       2  ethanol
    """

    designs = "vectors"
    default_chain = "gaussian"
    default_features = "vector"
    has_columns = True

    def __init__(
        self,
        n_features: int,
        loc: Sequence[float] | np.ndarray | None = None,
        scale: Sequence[float] | np.ndarray | None = None,
        template: Sequence[float | None] | np.ndarray | None = None,
        bounds: tuple[Any, Any] | None = None,
        *,
        whole: Iterable[int] = (),
        one_of: Mapping[str, Iterable[int]] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        check_number("n_features", n_features, low=1, whole=True)
        self.shape = (int(n_features),)
        self.loc = np.zeros(n_features) if loc is None else _numbers("loc", loc)
        self.scale = np.ones(n_features) if scale is None else _numbers("scale", scale)
        if self.loc.shape != self.shape or self.scale.shape != self.shape:
            raise InvalidParameterError(f"loc and scale must have n_features = {n_features} entries each.")
        if not np.isfinite(self.loc).all():
            raise InvalidParameterError(f"loc must be finite; got {self.loc[~np.isfinite(self.loc)][0]}.")
        wrong = ~((self.scale > 0) & np.isfinite(self.scale))
        if wrong.any():
            raise InvalidParameterError(f"scale must be > 0 and finite; got {self.scale[wrong][0]}.")
        self.columns = Columns(int(n_features), names, whole, {} if one_of is None else one_of)
        self.template = None if template is None else self._check_template(template)
        self.bounds = None if bounds is None else self._check_bounds(bounds)

    @classmethod
    def from_data(cls, X: Any, *, whole: Iterable[int] | None = None, **columns: Any) -> VectorSpace:
        """Standardise by the columns of `X`, within whose range designs stay.

        A constant column has its value as loc, and scale 1.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        whole : collection of int, optional
            By default the columns in which all numbers are whole and some differ; ``whole=()`` for none.
        **columns
            `one_of` and `names`.
        """
        array = _numbers("X", read_designs(X))
        if array.ndim != 2 or len(array) == 0:
            raise InvalidDesignError(f"X must have shape (n, n_features), with at least one row; got {array.shape}.")
        constant = (array == array[0]).all(axis=0)
        # Over the largest entry first, so that no square leaves the range of numbers.
        size = np.abs(array).max(axis=0)
        size[size == 0] = 1.0
        deviation = (array / size).std(axis=0) * size
        labels = {i for places in (columns.get("one_of") or {}).values() for i in places}
        return cls(
            array.shape[1],
            np.where(constant, array[0], array.mean(axis=0)),
            np.where(constant | (deviation == 0), 1.0, deviation),
            bounds=(array.min(axis=0), array.max(axis=0)),
            whole=[i for i in found_whole(array) if i not in labels] if whole is None else whole,
            **columns,
        )

    def named(self, names: Sequence[str]) -> VectorSpace:
        """The same space with names of its columns."""
        space = copy.copy(self)
        space.columns = Columns(self.n_features, names, self.columns.whole, self.columns.one_of)
        return space

    @property
    def n_free(self) -> int:
        held = set(self.held_columns)
        return self.n_features - len(held) - sum(not held & set(places) for places in self.columns.one_of.values())

    def kind_of(self, X: Any) -> str:
        """There is one kind, "vectors": a 2-D array."""
        if is_strings(X):
            raise InvalidDesignError("designs are strings, but the space holds vectors; use a SequenceSpace.")
        return "vectors"

    def points(self, X: Any) -> Points:
        """Rows that are standardised batch by batch; `X` is an array-like of shape (n, n_features)."""
        array = read_designs(X)
        self.kind_of(array)
        array = array if array.dtype in (np.float32, np.float64) else _numbers("X", array, InvalidDesignError)
        if array.ndim != 2 or array.shape[1:] != self.shape:
            raise InvalidDesignError(
                f"X has shape {array.shape}, but the space holds vectors of {self.shape[0]} features."
            )
        if not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            raise InvalidDesignError(
                f"row {row:,}: {self.columns.name(int(column))} is {array[row, column]}; drop or impute such rows."
            )
        far = self.too_far(array)
        if far.any():
            row, column = np.argwhere(far)[0]
            raise InvalidDesignError(
                f"row {row:,}: {self.columns.name(int(column))} is {array[row, column]:g}, {FAR:g} times the scale of "
                "its column away, too far to compute with; correct or drop such rows."
            )
        return Points(array, self._standardised, self.shape)

    def too_far(self, rows: np.ndarray) -> np.ndarray:
        """Which numbers of finite rows (n, n_features) are too far from the others of their column to compute with."""
        with np.errstate(over="ignore"):
            return np.abs(rows - self.loc) / self.scale > FAR

    def _standardised(self, rows: Tensor) -> Tensor:
        """Points of rows of numbers."""
        loc, scale = (torch.from_numpy(part).to(rows.device) for part in (self.loc, self.scale))
        return ((rows.double() - loc) / scale).float()

    def discretise(self, x: Tensor) -> Tensor:
        """The nearest designs: within the bounds, whole where they must be, with the held columns written.

        Gradients pass as if each point were a design.
        """
        if self.bounds is None and not self.columns.steps.any():
            return self.hold(x)
        return self.hold(self._nearest(x) + (x - x.detach()))

    def confine(self, x: Tensor) -> Tensor:
        """The nearest points whose nearest design `discretise` finds without a bound; held columns are written."""
        return self.hold(self._within(x))

    def squared_excess(self, x: Tensor) -> Tensor:
        """Squared distance (n,) of points from the nearest that `confine` leaves as it is, whatever is held."""
        return (x - self._within(x)).square().sum(dim=1)

    def spread(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Points with uniform noise where designs have whole numbers, as wide as what is rounded to each.

        A density of such points has no spikes, and its mass where a number is rounded to is that number's probability
        (uniform dequantisation).
        """
        if not self.columns.steps.any():
            return x
        steps, scale = (torch.from_numpy(part).to(x.device) for part in (self.columns.steps, self.scale))
        noise = torch.rand(x.shape, generator=generator, device=generator.device).to(x) - 0.5
        return torch.where(steps, x + noise / scale.to(x), x)

    @torch.no_grad()
    def _nearest(self, x: Tensor) -> Tensor:
        """Points of the nearest designs, but for held columns."""
        loc, scale = (torch.from_numpy(part).to(x.device) for part in (self.loc, self.scale))
        low, high = (part.to(x.device) for part in self._limits())
        return ((self.columns.nearest(x.double() * scale + loc, low, high) - loc) / scale).to(x.dtype)

    def _within(self, x: Tensor) -> Tensor:
        """The nearest points within the bounds, which are half a unit wider where designs have whole numbers."""
        if self.bounds is None:
            return x
        margin = 0.5 * self.columns.steps
        low, high = (
            torch.from_numpy((part + side - self.loc) / self.scale).to(x)
            for part, side in zip(self.bounds, (-margin, margin), strict=True)
        )
        return x.clamp(low, high)

    def _limits(self) -> tuple[Tensor, Tensor]:
        """The bounds of all columns, float64."""
        infinite = np.full(self.n_features, np.inf)
        low, high = (-infinite, infinite) if self.bounds is None else self.bounds
        return torch.from_numpy(low), torch.from_numpy(high)

    def decode(self, x: Tensor, kind: str | None = None) -> np.ndarray:
        """Designs (n, n_features), float64, without the standardisation; see `discretise`."""
        self._check_decoding(x, kind, ("vectors",))
        rows = torch.from_numpy(x.detach().cpu().numpy().astype(np.float64) * self.scale + self.loc)
        designs = self.columns.nearest(rows, *self._limits()).numpy()
        for column in self.held_columns:
            designs[:, column] = self.template[column]
        return designs

    def to_frame(self, X: Any) -> pd.DataFrame:
        """Rows as a table with the columns' names, in which each name of `one_of` is a column of its labels."""
        array = read_designs(X)
        self.points(array)
        return self.columns.to_frame(array)

    def from_frame(self, table: pd.DataFrame) -> np.ndarray:
        """Rows (n, n_features) of a table as `to_frame` gives it."""
        return self.columns.from_frame(table)

    def makes_same(self, other: Space) -> bool:
        """Whether the other space holds vectors of this width and these names, whatever their scale."""
        if not isinstance(other, VectorSpace) or other.shape != self.shape:
            return False
        return None in (self.columns.names, other.columns.names) or self.columns.names == other.columns.names

    def from_points_of(self, other: Space, x: Tensor) -> Tensor:
        """Points on this space's scale for points on another's; with gradients."""
        super().from_points_of(other, x)
        other = cast(VectorSpace, other)
        ratio = torch.as_tensor(other.scale / self.scale, dtype=x.dtype, device=x.device)
        shift = torch.as_tensor((other.loc - self.loc) / self.scale, dtype=x.dtype, device=x.device)
        return x * ratio + shift

    def check_same_designs(self, X: np.ndarray) -> None:
        """Raise IncompatibleModelError if rows are text, or have another number of columns."""
        super().check_same_designs(X)
        if X.ndim == 2 and X.shape[1] != self.n_features:
            raise IncompatibleModelError(
                f"pretrained makes designs of {self.n_features} features, but X has {X.shape[1]}; refit the encoder "
                "or pass pretrained=None."
            )

    def in_words(self) -> str:
        """What designs may have, column by column."""
        low, high = (part.numpy() for part in self._limits())
        names = self.columns.frame_names
        held = {} if self.template is None else {i: v for i, v in enumerate(self.template) if v is not None}
        words = {}
        for i, name in zip(self.columns.plain, [n for n in names if n not in self.columns.one_of], strict=True):
            kind = ", whole" if i in self.columns.whole else ""
            words[name] = f"{held[i]:g}" if i in held else f"{low[i]:g} to {high[i]:g}{kind}"
        for name, places in self.columns.one_of.items():
            labels = self.columns.labels(name)
            ones = [label for label, i in zip(labels, places, strict=True) if held.get(i, 1)]
            words[name] = ones[0] if len(ones) == 1 else f"one of {', '.join(ones)}"
        return "; ".join(f"{name}: {words[name]}" for name in names)

    @property
    def held(self) -> str:
        columns = self.held_columns
        if self.columns.names is not None:
            label = {i: name for name, places in self.columns.one_of.items() for i in places}
            return ", ".join(dict.fromkeys(label.get(i, self.columns.names[i]) for i in columns))
        return f"columns {ranges(np.array(columns))} (from 0)" if columns else ""

    @property
    def held_columns(self) -> list[int]:
        """Numbers of the held columns."""
        return [] if self.template is None else [i for i, value in enumerate(self.template) if value is not None]

    def _held_points(self) -> tuple[np.ndarray, np.ndarray] | None:
        columns = self.held_columns
        if not columns:
            return None
        values = np.array([0.0 if value is None else value for value in self.template])
        mask = np.isin(np.arange(self.n_features), columns)
        return mask, ((values - self.loc) / self.scale).astype(np.float32)

    def _constant(self, x: Points) -> tuple[float | None, ...] | None:
        rows = x.rows
        constant = (rows == rows[0]).all(axis=0)
        if constant.all():
            raise InvalidDesignError(f"all {len(rows):,} rows of X are the same design: there is nothing to vary.")
        return tuple(float(v) if c else None for v, c in zip(rows[0], constant, strict=True)) if any(constant) else None

    def unrestricted(self) -> VectorSpace:
        space = super().unrestricted()
        assert isinstance(space, VectorSpace)
        space.bounds, space.columns = None, Columns(self.n_features, None, (), {})
        return space

    def restricted_as(self, other: Space) -> Space:
        space = cast(VectorSpace, copy.copy(super().restricted_as(other)))
        if isinstance(other, VectorSpace):
            space.bounds = space.bounds if other.bounds is None else other.bounds
            space.columns = space.columns if other.columns.says_nothing else other.columns
        return space

    def _check_bounds(self, bounds: Any) -> tuple[np.ndarray, np.ndarray]:
        """Low and high as arrays, checked."""
        if not isinstance(bounds, Sequence | np.ndarray) or len(bounds) != 2:
            raise InvalidParameterError(f"bounds must be (low, high); got {bounds!r:.60}.")
        without = (-np.inf, np.inf)
        low, high = (
            _numbers("bounds", [none if v is None else v for v in part] if isinstance(part, Iterable) else part)
            for part, none in zip(bounds, without, strict=True)
        )
        if low.shape != self.shape or high.shape != self.shape:
            raise InvalidParameterError(
                f"bounds must be two arrays of n_features = {self.n_features} numbers; got shapes {low.shape} and "
                f"{high.shape}."
            )
        wrong = ~(low <= high) | np.isposinf(low) | np.isneginf(high)
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise InvalidParameterError(
                f"bounds of {self.columns.name(i)}: the lower, {low[i]}, must be <= the upper, {high[i]}, and a "
                "number lie between them."
            )
        labels = {i for places in self.columns.one_of.values() for i in places}
        off = [i for i in sorted(labels) if low[i] > 1 or high[i] < 0]
        if off:
            raise InvalidParameterError(
                f"bounds of {self.columns.name(off[0])}, a label, are {low[off[0]]:g} to {high[off[0]]:g}; its column "
                "has zeros and ones: bound it by 0 and 1."
            )
        empty = [i for i in self.columns.whole if np.ceil(low[i]) > np.floor(high[i])]
        if empty:
            i = empty[0]
            raise InvalidParameterError(
                f"bounds of {self.columns.name(i)}: there is no whole number from {low[i]:g} to {high[i]:g}."
            )
        return low, high

    def _check_template(self, template: Any) -> tuple[float | None, ...]:
        """The template with None where it is free, checked."""
        listed = list(template) if isinstance(template, Iterable) else [template]
        values = _numbers("template", [np.nan if value is None else value for value in listed])
        if values.shape != self.shape or np.isinf(values).any():
            raise InvalidParameterError(
                f"template must have n_features = {self.n_features} entries, each a finite number or None; got "
                f"{template!r}."
            )
        if not np.isnan(values).any():
            raise InvalidParameterError("template holds every column: leave at least one free, as None.")
        held = ~np.isnan(values)
        for name, places in self.columns.one_of.items():
            chosen = values[list(places)]
            if held[list(places)].any() and sorted(chosen) != [0.0] * (len(chosen) - 1) + [1.0]:
                raise InvalidParameterError(
                    f"template must hold all columns of {name!r} or none: one at 1 and the others at 0."
                )
        return tuple(None if np.isnan(value) else float(value) for value in values)

    def to_config(self) -> dict[str, Any]:
        config = {"n_features": self.shape[0], "loc": self.loc.tolist(), "scale": self.scale.tolist()}
        template = {} if self.template is None else {"template": list(self.template)}
        # None for no bound, as JSON has no infinite numbers.
        listed = [[v if np.isfinite(v) else None for v in part.tolist()] for part in self.bounds or ()]
        bounds = {"bounds": listed} if listed else {}
        return {"space": "VectorSpace"} | config | template | bounds | self.columns.to_config()


def _numbers(name: str, values: Any, kind: type[BraidkitError] = InvalidParameterError) -> np.ndarray:
    """Real numbers as float64; anything else is refused by name."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "cMmSU":
            raise TypeError(f"of type {array.dtype}")
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise kind(f"{name} must hold numbers; got {values!r:.60} ({error}).") from error
