"""The paper's offline protocol: half of the data trains the oracle, the better part of the rest is withheld."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

from braidkit.data import check_lengths, read_measurements
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError
from braidkit.parameters import check_number, check_random_state
from braidkit.spaces import join_groups, read_designs


@dataclass(frozen=True)
class OfflineSplit:
    """Result of `offline_split`. Row numbers refer to the data passed to it, in ascending order.

    Attributes
    ----------
    X_offline, y_offline : designs, ndarray of shape (n_offline,)
        Rows that a method may see: those of the pool whose measurement is below `cut`.
    X_oracle, y_oracle : designs, ndarray of shape (n_oracle,)
        The oracle's share: trains the reward that judges, and is never shown to a method.
    offline_indices, oracle_indices, pool_indices : ndarray of int
        Rows of the offline data, of the oracle's share, and of the pool that the offline data are cut from.
    cut : float
        Quantile of the pool's measurements, in the units of y.
    """

    X_offline: Any
    y_offline: NDArray[np.float64]
    X_oracle: Any
    y_oracle: NDArray[np.float64]
    offline_indices: NDArray[np.int64]
    oracle_indices: NDArray[np.int64]
    pool_indices: NDArray[np.int64]
    cut: float


def offline_split(
    X: Any,
    y: Any,
    *,
    oracle_fraction: float = 0.5,
    quantile: float = 0.6,
    groups: Any = None,
    random_state: int | RandomState | None = None,
) -> OfflineSplit:
    """Split measured designs into the oracle's share and offline data without the best designs.

    The rows are split at random into D_ora, which trains the oracle, and the pool D'. The offline data are the rows of
    D' whose measurement is below a quantile of D'.

    Parameters
    ----------
    X : list, array, Series or DataFrame of n_samples designs
    y : array-like of shape (n_samples,)
        Measurements, finite.
    oracle_fraction : float, default=0.5
        Share of the rows (with `groups`, of the groups) that the oracle gets, from 0 (where the oracle needs no data)
        to less than 1.
    quantile : float, default=0.6
        Between 0 and 1: the paper's value for 5'UTRs; it takes 0.95 for enhancers.
    groups : array-like of shape (n_samples,), optional
        Rows of one group, such as the two orientations of an enhancer, go to one side, as rows of one design do.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    split : OfflineSplit
        `X_offline` and `X_oracle` are of the kind that `X` is.

    Raises
    ------
    InvalidParameterError
        If a fraction is outside its range.
    InvalidTargetError
        If a measurement is not finite, or none lies below the cut.
    InvalidDesignError
        If X, y and groups differ in length, or no row is left for the pool.

    References
    ----------
    Uehara et al. (2024), Bridging model-based optimization and generative modeling via conservative fine-tuning of
    diffusion models, section 7.1.

    Examples
    --------
    >>> from braidkit import make_utr, offline_split
    >>> X, y = make_utr(1000, random_state=0)
    >>> split = offline_split(X, y, random_state=0)
    >>> len(split.X_oracle), len(split.X_offline), bool(split.y_offline.max() < split.cut)
    (500, 300, True)
    """
    check_number("oracle_fraction", oracle_fraction, low=0, high=1)
    check_number("quantile", quantile, low=0, high=1, above=True)
    if 1 in (oracle_fraction, quantile):
        raise InvalidParameterError(
            f"oracle_fraction and quantile must be less than 1; got {oracle_fraction}, {quantile}."
        )
    y = read_measurements(y)
    designs = read_designs(X)
    check_lengths(designs, y)
    units = join_groups(designs, groups)
    n_units = int(units.max(initial=-1)) + 1
    order = check_random_state(random_state).permutation(n_units)
    to_oracle = np.isin(units, order[: round(oracle_fraction * n_units)])
    oracle, pool = np.flatnonzero(to_oracle), np.flatnonzero(~to_oracle)
    if len(pool) == 0:
        raise InvalidDesignError(f"of {len(y):,} rows none is left beside the oracle's share; pass more data.")
    cut = float(np.quantile(y[pool], quantile))
    offline = pool[y[pool] < cut]
    if len(offline) == 0:
        raise InvalidTargetError(
            f"no measurement lies below the {quantile:g} quantile ({cut:g}): too many are equal; raise quantile."
        )
    return OfflineSplit(
        X_offline=_safe_indexing(X, offline),
        y_offline=y[offline],
        X_oracle=_safe_indexing(X, oracle),
        y_oracle=y[oracle],
        offline_indices=offline,
        oracle_indices=oracle,
        pool_indices=pool,
        cut=cut,
    )
