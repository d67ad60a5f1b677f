"""SequenceEncoder and DesignPipeline: sequences in scikit-learn's pipelines, designs out of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from braidkit.exceptions import InvalidDesignError
from braidkit.spaces import SequenceSpace, infer_space
from braidkit.spaces.letters import PAD

__all__ = ["DesignPipeline", "SequenceEncoder"]


class SequenceEncoder(TransformerMixin, BaseEstimator):
    """Turn sequences into flat one-hot rows, and back.

    Parameters
    ----------
    alphabet : str, default="auto"
        "DNA", "RNA", "protein" or the letters; "auto" finds which of the named ones the rows are written in.

    Attributes
    ----------
    space_ : SequenceSpace
    n_features_in_ : int
        Letters of a sequence.

    Examples
    --------
    >>> from braidkit import SequenceEncoder
    >>> encoder = SequenceEncoder().fit(["ACG", "TTT"])
    >>> encoder.transform(["ACG"]).shape
    (1, 12)
    >>> encoder.inverse_transform(encoder.transform(["ACG"]))
    ['ACG']
    """

    def __init__(self, alphabet: str = "auto") -> None:
        self.alphabet = alphabet

    def fit(self, X: Any, y: Any = None) -> SequenceEncoder:
        """Learn the alphabet and the lengths from a list of strings."""
        seen: Any = infer_space(X)
        letters = (seen.alphabet or "DNA") if self.alphabet == "auto" else self.alphabet
        self.space_ = SequenceSpace(letters, seen.lengths if seen.alphabet is not None else np.shape(X)[1])
        self.space_.encode(X)
        self.n_features_in_ = self.space_.length
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Flat one-hot rows of shape (n_samples, length * n_letters), float32."""
        check_is_fitted(self)
        x = self.space_.encode(X)
        return x.reshape(len(x), -1).numpy()

    def inverse_transform(self, X: Any) -> list[str]:
        """Sequences of the likeliest letters of flat rows, one-hot or not: designs of a chain on numbers are not."""
        check_is_fitted(self)
        try:
            points = np.asarray(X, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidDesignError(f"X must be rows of numbers, as transform gives them ({error}).") from error
        if points.shape[1:] != (self.space_.n_features,) or not np.isfinite(points).all():
            raise InvalidDesignError(
                f"X must be finite rows of {self.space_.n_features} numbers, as transform gives them; got an array of "
                f"shape {points.shape}."
            )
        return self.space_.decode(torch.from_numpy(points.reshape(-1, *self.space_.shape)))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names such as "3G": position, from 1, and letter; "3 padding" where there are several lengths."""
        check_is_fitted(self)
        letters = [" padding" if letter == PAD else letter for letter in self.space_.letters.symbols]
        names = [f"{i + 1}{letter}" for i in range(self.space_.length) for letter in letters]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _final_has(name: str) -> Any:
    """Check that the last step has a method, for `available_if`."""
    return lambda pipeline: hasattr(pipeline.steps[-1][1], name)


class DesignPipeline(Pipeline):
    """A scikit-learn pipeline whose last step makes or bounds designs.

    It adds to `sklearn.pipeline.Pipeline` the two methods that that one does not forward: `sample`, whose designs come
    back through the inverse of every transformer, and `predict_lower`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> from braidkit import ConservativeDiffusionFinetuner, DesignPipeline
    >>> X = np.random.default_rng(0).normal(loc=100, size=(50, 2))
    >>> steps = [("scale", StandardScaler()), ("design", ConservativeDiffusionFinetuner(random_state=0))]
    >>> pipeline = DesignPipeline(steps).fit(X, X.sum(axis=1))
    >>> bool(pipeline.sample(50, random_state=0).mean() > 90)
    True
    """

    @available_if(_final_has("sample"))
    def sample(self, n_samples: int = 1, random_state: Any = None) -> Any:
        """Draw designs from the last step, and undo the transformers."""
        designs = self.steps[-1][1].sample(n_samples, random_state)
        for _, transformer in reversed(self.steps[:-1]):
            if transformer not in (None, "passthrough"):
                designs = transformer.inverse_transform(designs)
        return designs

    @available_if(_final_has("predict_lower"))
    def predict_lower(self, X: Any) -> np.ndarray:
        """The last step's lower bound of transformed designs."""
        for _, transformer in self.steps[:-1]:
            if transformer not in (None, "passthrough"):
                X = transformer.transform(X)
        return self.steps[-1][1].predict_lower(X)
