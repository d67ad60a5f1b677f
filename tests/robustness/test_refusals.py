"""Bad input, as a table: what is called, the kind of its error, and words of its message.

Rows are refused before any training, with the value, the place and the remedy; none ends in an error of a library.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

from braidkit import (
    BootstrapReward,
    ConservativeDiffusionFinetuner,
    GaussianDiffusion,
    GPBonusReward,
    ImageSpace,
    SequenceEncoder,
    SequenceSpace,
    SimplexDiffusion,
    VectorSpace,
)
from braidkit.baselines import DDOM, BestOfN, ClassifierGuidance, RewardAscent, SMCSampler
from braidkit.datasets import offline_split
from braidkit.diffusion import DiffusionModel
from braidkit.exceptions import (
    CheckpointError,
    InvalidDesignError,
    InvalidParameterError,
    InvalidTargetError,
    NotTrainedError,
)

SEQUENCES = ["ACGT", "ACGA", "TTTT", "GGCA", "CATC", "TAGG"]
VECTORS = np.arange(12.0).reshape(6, 2) ** 1.5
Y = [1.0, 2.0, 3.0, 1.5, 0.5, 2.5]
ESTIMATORS = [
    GPBonusReward,
    BootstrapReward,
    ConservativeDiffusionFinetuner,
    BestOfN,
    SMCSampler,
    RewardAscent,
    DDOM,
    ClassifierGuidance,
]


class Case(NamedTuple):
    """Arguments of a fit, and its refusal."""

    X: Any
    y: Any
    kind: type[Exception]
    words: str


def with_row(rows, row, value):
    """A list with one entry replaced."""
    return [*rows[:row], value, *rows[row + 1 :]]


DATA = {
    "missing design": Case(with_row(SEQUENCES, 2, None), Y, InvalidDesignError, "row 2 is None, not a string"),
    "missing first design": Case(with_row(SEQUENCES, 0, np.nan), Y, InvalidDesignError, "row 0 is nan, not a string"),
    "missing in a column": Case(
        pd.Series(with_row(SEQUENCES, 0, None)), Y, InvalidDesignError, "row 0 is (None|nan), not a string"
    ),
    "number among strings": Case(with_row(SEQUENCES, 3, 7), Y, InvalidDesignError, "row 3 is 7, not a string"),
    "another letter": Case(with_row(SEQUENCES, 4, "ACGN"), Y, InvalidDesignError, "row 4: 'N' at position 4"),
    "an empty string": Case(with_row(SEQUENCES, 1, ""), Y, InvalidDesignError, "row 1 has 0 letters"),
    "one string": Case("ACGT", Y, InvalidDesignError, "X is one string"),
    "a number": Case(5, Y, InvalidDesignError, "X is 5, not a collection"),
    "nothing": Case(None, Y, InvalidDesignError, "X is None, not a collection"),
    "a dictionary": Case({"a": 1}, Y, InvalidDesignError, "not a collection of designs"),
    "a set": Case(set(SEQUENCES), Y, InvalidDesignError, "not a collection of designs"),
    "a generator": Case((s for s in SEQUENCES), Y, InvalidDesignError, "not a collection of designs"),
    "no designs": Case([], [], InvalidDesignError, "X is empty"),
    "one design": Case(["ACGT"], [1.0], InvalidDesignError, "a minimum of 2 is required"),
    "letters apart": Case([list(s) for s in SEQUENCES], Y, InvalidDesignError, "text in an array of shape"),
    "dates as designs": Case(
        pd.Series(pd.date_range("2024-01-01", periods=6)), Y, InvalidDesignError, "X holds dates .2024-01-01"
    ),
    "ragged rows": Case([[1.0, 2.0], [1.0]] * 3, Y, InvalidDesignError, "row 0 has 2 entries, row 1 has 1"),
    "one-hot without a space": Case(np.zeros((6, 5, 4)), Y, InvalidDesignError, "name the space: space=SequenceSpace"),
    "images without a space": Case(np.zeros((6, 5, 4, 3)), Y, InvalidDesignError, "name the space: space=ImageSpace"),
    "NaN in vectors": Case(np.where(VECTORS > 30, np.nan, VECTORS), Y, ValueError, "Input X contains NaN"),
    "infinity in vectors": Case(np.where(VECTORS > 30, np.inf, VECTORS), Y, ValueError, "Input X contains infinity"),
    "complex vectors": Case(VECTORS * 1j, Y, ValueError, "Complex data not supported"),
    "one-dimensional numbers": Case(VECTORS[:, 0], Y, ValueError, "Expected 2D array, got 1D array"),
    "no columns": Case(np.zeros((6, 0)), Y, ValueError, "0 feature"),
    "fewer measurements": Case(SEQUENCES, Y[:4], InvalidDesignError, "X has 6 designs, but y has 4 measurements"),
    "fewer measurements of vectors": Case(VECTORS, Y[:4], InvalidDesignError, "X has 6 designs, but y has 4"),
    "no measurements": Case(SEQUENCES, None, InvalidTargetError, "requires y to be passed"),
    "missing measurement": Case(SEQUENCES, with_row(Y, 3, None), InvalidTargetError, "row 3 is nan .1 such rows"),
    "missing by pandas": Case(
        SEQUENCES, pd.Series(with_row(Y, 0, pd.NA), dtype="Float64"), InvalidTargetError, "row 0 is nan"
    ),
    "infinite measurement": Case(SEQUENCES, with_row(Y, 5, -np.inf), InvalidTargetError, "row 5 is -inf"),
    "huge measurement": Case(SEQUENCES, with_row(Y, 1, 1e300), InvalidTargetError, r"row 1 is 1e\+300 .*too large"),
    "huge measurements": Case(SEQUENCES, np.array(Y) * 1e200, InvalidTargetError, "too large to compute with"),
    "tiny measurements": Case(SEQUENCES, np.array(Y) * 1e-200, InvalidTargetError, "too little to compute with"),
    "words": Case(SEQUENCES, with_row(list(map(str, Y)), 2, "high"), InvalidTargetError, "row 2 is 'high'"),
    "decimal commas": Case(SEQUENCES, ["1,5"] * 6, InvalidTargetError, "write decimals with a point"),
    "dates": Case(SEQUENCES, pd.date_range("2024-01-01", periods=6), InvalidTargetError, "y holds dates or durations"),
    "durations": Case(SEQUENCES, np.arange(6, dtype="m8[s]"), InvalidTargetError, "y holds dates or durations"),
    "two columns": Case(SEQUENCES, np.c_[Y, Y], InvalidTargetError, r"y should be a 1d array.*shape \(6, 2\)"),
    "complex measurements": Case(SEQUENCES, np.array(Y) * 1j, InvalidTargetError, "Complex data not supported"),
    "constant": Case(SEQUENCES, [2.0] * 6, InvalidTargetError, "y is constant .every one of the 6 measurements is 2"),
    "one number": Case(SEQUENCES, 1.0, InvalidTargetError, "y should be a 1d array"),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", DATA.values(), ids=DATA.keys())
def test_data_that_no_estimator_is_fitted_on(estimator, case):
    with pytest.raises(case.kind, match=case.words):
        estimator(random_state=0).fit(case.X, case.y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("space", ["DNA", 4, SequenceSpace])
def test_a_space_that_is_none_is_refused(estimator, space):
    with pytest.raises(InvalidParameterError, match=r"space must be a design space of braidkit, such as SequenceSpace"):
        estimator(space=space).fit(SEQUENCES, Y)


CALLS = {
    "encode other letters": (lambda: SequenceSpace("RNA", 4).encode(SEQUENCES), InvalidDesignError, "row 0: 'T' at"),
    "encode tokens out of range": (
        lambda: SequenceSpace("DNA", 2).encode([[0, 4], [1, 1]]),
        InvalidDesignError,
        "row 0: token .*4.* at position 2 is not a whole number from 0 to 3",
    ),
    "encode negative tokens": (lambda: SequenceSpace("DNA", 2).encode([[0, -1]]), InvalidDesignError, "row 0: token"),
    "encode NaN tokens": (lambda: SequenceSpace("DNA", 2).encode([[0, np.nan]]), InvalidDesignError, "row 0: token"),
    "encode relaxed one-hot": (
        lambda: SequenceSpace("DNA", 2).encode(np.full((1, 2, 4), 0.25)),
        InvalidDesignError,
        "row 0: position 1 is not one-hot",
    ),
    "encode letters first": (
        lambda: SequenceSpace("DNA", 6).encode(np.zeros((2, 4, 6))),
        InvalidDesignError,
        "letters first; pass them as",
    ),
    "encode a tensor of four axes": (
        lambda: SequenceSpace("DNA", 2).encode(torch.zeros(1, 2, 4, 1)),
        InvalidDesignError,
        "designs must be a list of strings",
    ),
    "encode vectors of another width": (
        lambda: VectorSpace(3).encode(VECTORS),
        InvalidDesignError,
        r"X has shape \(6, 2\), but the space holds vectors of 3 features",
    ),
    "encode strings as vectors": (lambda: VectorSpace(3).encode(SEQUENCES), InvalidDesignError, "designs are strings"),
    "encode infinite vectors": (
        lambda: VectorSpace(1).encode([[np.inf]]),
        InvalidDesignError,
        "row 0: column 0 is inf; drop or impute",
    ),
    "encode images of strings": (lambda: ImageSpace(2, 2).encode(SEQUENCES), InvalidDesignError, "images must have"),
    "encode dark images": (
        lambda: ImageSpace(1, 1, 1).encode(np.array([[[0.5]], [[-1.0]]])),
        InvalidDesignError,
        "row 1: pixels run from -1 to -1",
    ),
    "decode another length": (
        lambda: SequenceSpace("DNA", 4).decode(torch.zeros(2, 5, 4)),
        InvalidDesignError,
        r"points must have shape \(n, 4, 4\); got \(2, 5, 4\)",
    ),
    "decode to an unknown kind": (
        lambda: SequenceSpace("DNA", 4).decode(torch.zeros(2, 4, 4), "fasta"),
        InvalidDesignError,
        "kind must be one of strings, tokens, one_hot, flat; got 'fasta'",
    ),
    "a chain of other designs": (
        lambda: SimplexDiffusion(SequenceSpace("DNA", 5)).fit(SEQUENCES),
        InvalidDesignError,
        "row 0 has 4 letters, but the space has length 5",
    ),
    "a chain of no designs": (
        lambda: GaussianDiffusion(VectorSpace(2)).fit(np.zeros((0, 2))),
        InvalidDesignError,
        "empty",
    ),
    "an encoder of another alphabet": (
        lambda: SequenceEncoder("RNA").fit(SEQUENCES),
        InvalidDesignError,
        "row 0: 'T' at position 4",
    ),
    "an encoder of one string": (lambda: SequenceEncoder().fit("ACGT"), InvalidDesignError, "X is one string"),
    "a split of words": (lambda: offline_split(SEQUENCES, ["high"] * 6), InvalidTargetError, "row 0 is 'high'"),
    "a split of fewer measurements": (lambda: offline_split(SEQUENCES, Y[:3]), InvalidDesignError, "X has 6 designs"),
    "a chain that was never trained": (
        lambda: BestOfN(SimplexDiffusion(SequenceSpace("DNA", 4))).fit(SEQUENCES, Y),
        NotTrainedError,
        "was never trained; call its fit",
    ),
    "a pretrained path": (
        lambda: BestOfN("model").fit(SEQUENCES, Y),
        InvalidParameterError,
        "pretrained must be a DiffusionModel or None; got 'model'",
    ),
    "a directory that is not there": (
        lambda: DiffusionModel.from_pretrained("nowhere"),
        CheckpointError,
        "nowhere is not a directory; pass the directory that save_pretrained wrote",
    ),
    "a reward that is a word": (
        lambda: BestOfN(reward="gp!").fit(SEQUENCES, Y),
        InvalidParameterError,
        "reward must be a regressor of designs, such as GPBonusReward",
    ),
}


@pytest.mark.parametrize(("call", "kind", "words"), CALLS.values(), ids=CALLS.keys())
def test_calls_that_are_refused(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
