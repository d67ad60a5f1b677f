"""Stand-ins for the laboratory: rewards that judge designs and that no method is fitted to.

An oracle has one method, ``predict(X) -> ndarray of shape (n_samples,)``, and can be called like a function.
"""

from braidkit.oracles._base import Oracle, refuse_shared_rows
from braidkit.oracles.aesthetic import AestheticOracle
from braidkit.oracles.ehrlich import EhrlichLandscape
from braidkit.oracles.enformer import EnformerOracle
from braidkit.oracles.optimus5p import Optimus5Prime
from braidkit.oracles.prompt_check import PromptCheck
from braidkit.oracles.utr_landscape import UTRLandscape

__all__ = [
    "AestheticOracle",
    "EhrlichLandscape",
    "EnformerOracle",
    "Optimus5Prime",
    "Oracle",
    "PromptCheck",
    "UTRLandscape",
    "refuse_shared_rows",
]
