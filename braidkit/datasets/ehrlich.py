"""Feasible sequences with noisy measurements of an Ehrlich function."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from braidkit.exceptions import InvalidParameterError
from braidkit.oracles import EhrlichLandscape
from braidkit.parameters import check_number, check_random_state


def make_ehrlich(
    n_samples: int = 2_000,
    *,
    landscape: EhrlichLandscape | None = None,
    noise: float = 0.0,
    random_state: int | RandomState | None = None,
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """Draw feasible sequences, and measure an Ehrlich function of them.

    Sequences are drawn from the Markov chain that defines which are feasible. The function is known exactly:
    ``landscape.predict`` gives the value without noise, ``landscape.is_valid`` whether a sequence is feasible.

    Parameters
    ----------
    n_samples : int, default=2_000
    landscape : EhrlichLandscape, optional
        By default ``EhrlichLandscape()``: 20 letters, 32 positions, two motifs of four letters.
    noise : float, default=0.0
        Standard deviation of the measurement error; values are between 0 and 1.
    random_state : int, RandomState instance or None, default=None
        Seed of the sequences and the noise. The function has its own, in `landscape`.

    Returns
    -------
    X : ndarray of shape (n_samples,), dtype object
        Strings of letters.
    y : ndarray of shape (n_samples,), float64
        Measured value: the exact one plus normal noise.

    See Also
    --------
    braidkit.oracles.EhrlichLandscape : The function, with its source.

    Examples
    --------
    >>> from braidkit.datasets import make_ehrlich
    >>> X, y = make_ehrlich(200, random_state=0)
    >>> len(X[0]), bool((y >= 0).all() and (y <= 1).all())
    (32, True)
    """
    check_number("n_samples", n_samples, low=1, whole=True)
    check_number("noise", noise, low=0)
    if landscape is not None and not isinstance(landscape, EhrlichLandscape):
        raise InvalidParameterError(f"landscape must be an EhrlichLandscape; got {landscape!r:.60}.")
    landscape = EhrlichLandscape() if landscape is None else landscape
    rng = check_random_state(random_state)
    X = np.array(landscape.sample(n_samples, rng), dtype=object)
    return X, landscape.predict(X) + noise * rng.normal(size=n_samples)
