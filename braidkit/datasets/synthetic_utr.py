"""Generated 5'UTRs with noisy measurements of an exactly known reward."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from braidkit.oracles import UTRLandscape
from braidkit.parameters import check_number, check_random_state


def make_utr(
    n_samples: int = 20_000,
    *,
    length: int = 50,
    noise: float = 0.4,
    random_state: int | RandomState | None = None,
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """Generate 5'UTRs and measurements of their ribosome load.

    The sequences follow a law under which some are impossible and some are rare. The load comes from a scanning model
    of translation: start codon context, upstream AUGs and their frame, hairpins, GC content. Both are known exactly:
    ``UTRLandscape(length)`` gives the noise-free load of any sequence, its log-probability and whether it is valid.

    Parameters
    ----------
    n_samples : int, default=20_000
        `offline_split` leaves three tenths of them as offline data.
    length : int, default=50
        Nucleotides, at least 12.
    noise : float, default=0.4
        Standard deviation of the measurement error, ribosomes per transcript.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples,), dtype object
        Strings of DNA letters, T for U, 5' to 3'.
    y : ndarray of shape (n_samples,), float64
        Measured load: the exact load plus normal noise.

    See Also
    --------
    braidkit.oracles.UTRLandscape : The model, term by term, with its sources.

    Examples
    --------
    >>> from braidkit import make_utr
    >>> from braidkit.oracles import UTRLandscape
    >>> X, y = make_utr(100, noise=0.0, random_state=0)
    >>> bool((y == UTRLandscape().predict(X)).all())
    True
    """
    check_number("n_samples", n_samples, low=1, whole=True)
    check_number("noise", noise, low=0)
    rng = check_random_state(random_state)
    landscape = UTRLandscape(length)
    X = np.array(landscape.sample(n_samples, rng), dtype=object)
    return X, landscape.predict(X) + noise * rng.normal(size=n_samples)
