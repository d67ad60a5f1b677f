"""Settings of a chain's training that are out of range are told before any work, for every kind of chain."""

import math

import numpy as np
import pytest

from braidkit import (
    GaussianDiffusion,
    ImageSpace,
    MaskedDiffusion,
    PixelDiffusion,
    SequenceSpace,
    SimplexDiffusion,
    VectorSpace,
)
from braidkit.exceptions import InvalidParameterError

STRINGS = ["ACGT", "AACC"] * 10
CHAINS = [
    (lambda: SimplexDiffusion(SequenceSpace("DNA", 4)), STRINGS),
    (lambda: MaskedDiffusion(SequenceSpace("DNA", 4)), STRINGS),
    (lambda: PixelDiffusion(ImageSpace(4, 4, 1)), np.random.default_rng(0).random((20, 4, 4))),
    (lambda: GaussianDiffusion(VectorSpace(2)), np.random.default_rng(0).normal(size=(20, 2))),
]


@pytest.mark.parametrize(("chain", "X"), CHAINS)
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("max_iter", [0, -1, 2.5, math.nan], "max_iter must be a whole number of at least 1"),
        ("batch_size", [0, 1.5], "batch_size must be a whole number of at least 1"),
        ("learning_rate", [0, -1.0, math.inf, math.nan], "learning_rate must be a number > 0"),
        ("validation_fraction", [-0.5, 1, 2, math.nan], "validation_fraction must be a number >= 0 and < 1"),
    ],
)
def test_settings_out_of_range(chain, X, name, values, message):
    for value in values:
        untrained = chain()
        with pytest.raises(InvalidParameterError, match=message):
            untrained.fit(X, **{name: value})
        assert untrained.network is None
