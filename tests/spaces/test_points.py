"""Points are made batch by batch: the same numbers as all at once, without holding them."""

import tracemalloc

import numpy as np
import pytest
import torch

from braidkit.spaces import ImageSpace, SequenceSpace, VectorSpace

RANDOM = np.random.default_rng(0)
CASES = {
    "sequences": (SequenceSpace("DNA", 6), ["".join(RANDOM.choice(list("ACGT"), 6)) for _ in range(11)]),
    "vectors": (VectorSpace(3, [1, 2, 3], [1, 2, 3]), RANDOM.normal(size=(11, 3))),
    "images": (ImageSpace(4, 5), RANDOM.integers(0, 256, (11, 4, 5, 3), dtype=np.uint8)),
    "float images": (ImageSpace(4, 5, 1), RANDOM.random((11, 4, 5))),
}


@pytest.mark.parametrize(("space", "X"), CASES.values(), ids=CASES.keys())
def test_batches_are_the_rows_of_the_whole(space, X):
    points, whole = space.points(X), space.encode(X)
    assert points.shape == whole.shape and len(points) == 11 and whole.dtype == torch.float32
    rows = torch.tensor([3, 0, 3])
    assert torch.equal(points[rows], whole[rows]) and torch.equal(points[rows.numpy()], whole[rows])
    assert torch.equal(points[2:5], whole[2:5])
    assert torch.equal(torch.cat(list(points.split(4))), whole)
    part = points.take([5, 7, 2, 2])
    assert torch.equal(part[:], whole[[5, 7, 2, 2]]) and torch.equal(part.take([1, 0])[:], whole[[7, 5]])
    assert len(part.rows) == 4


def test_points_share_no_memory_with_the_caller_s_array():
    X = RANDOM.normal(size=(4, 2))
    before = X.copy()
    VectorSpace(2).points(X)[:].zero_()
    assert np.array_equal(X, before)


def test_read_only_arrays_are_read():
    X = RANDOM.normal(size=(4, 2))
    X.flags.writeable = False
    assert VectorSpace(2).points(X)[1:3].shape == (2, 2)


def test_many_images_are_held_as_they_came():
    images = np.zeros((2000, 32, 32, 3), dtype=np.uint8)
    space = ImageSpace(32, 32)
    tracemalloc.start()
    points = space.points(images).take(np.arange(1999, -1, -1))
    for start in range(0, 2000, 100):
        points[start : start + 100]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes / 2
