"""Errors that braidkit raises, each also of the kind that scikit-learn's users catch."""

from __future__ import annotations

from sklearn.exceptions import NotFittedError


class BraidkitError(Exception):
    """Base of every error that braidkit raises on purpose."""


class InvalidDesignError(BraidkitError, ValueError):
    """A design (a row of X) is not in the design space."""


class SparseDesignError(InvalidDesignError, TypeError):
    """Designs are a sparse matrix; scikit-learn's estimators that take none raise a TypeError."""


class InvalidTargetError(BraidkitError, ValueError):
    """A measurement (an entry of y) cannot be used."""


class InvalidParameterError(BraidkitError, ValueError):
    """A parameter is outside the values that it may take."""


class IncompatibleModelError(BraidkitError, ValueError):
    """A model does not fit the data or the other models that it is used with."""


class NotTrainedError(BraidkitError, NotFittedError):
    """A diffusion model was used before it was trained."""


class CheckpointError(BraidkitError, RuntimeError):
    """A saved model or run cannot be read, or belongs to other data or settings."""


class MissingExtraError(BraidkitError, ImportError):
    """An optional dependency is not installed."""


class DownloadError(BraidkitError, OSError):
    """A data set could not be downloaded or is not what was expected."""
