"""Stand-ins for the laboratory: rewards that judge designs and that no method is fitted to.

An oracle has one method, ``predict(X) -> ndarray of shape (n_samples,)``.
"""

from braidkit.oracles.optimus5p import Optimus5Prime
from braidkit.oracles.utr_landscape import UTRLandscape

__all__ = ["Optimus5Prime", "UTRLandscape"]
