"""What a run costs, counted where the answer is known."""

import copy
import mmap
import threading

import numpy as np
import pytest

from braidkit import SequenceSpace, SimplexDiffusion
from braidkit.evaluation.cost import MemoryRise, count_network_passes

SPACE = SequenceSpace("DNA", 10)
X = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), (60, 10))]


@pytest.fixture(scope="module")
def chain():
    return SimplexDiffusion(SPACE, n_steps=4).fit(X, max_iter=2, random_state=0)


def test_network_passes_are_counted_in_copies_and_in_chains_trained_meanwhile(chain):
    with count_network_passes(chain) as passes:
        chain.sample(7, random_state=0)
        one_chain = passes.rows
        chain.trainable_copy().sample(7, random_state=0)
    assert one_chain == 7 * 5  # four steps and the readout
    assert passes.rows == 2 * one_chain
    assert not chain.network._forward_hooks
    with count_network_passes() as passes:
        new = copy.deepcopy(chain)
        assert passes.rows == 0
        trained = SimplexDiffusion(SPACE, n_steps=4, prior=None).fit(X, max_iter=2, batch_size=16, random_state=0)
        in_training = passes.rows
        trained.sample(3, random_state=0)
    assert in_training >= 2 * 16
    assert passes.rows == in_training + 3 * 5
    new.sample(3, random_state=0)
    assert passes.rows == in_training + 3 * 5


def test_memory_that_is_taken_is_seen():
    with MemoryRise() as small:
        pass
    with MemoryRise() as large:
        # Straight from the system: what the allocator kept from earlier work would not show.
        block = mmap.mmap(-1, 2**26)
        np.frombuffer(block, dtype=np.uint8)[:] = 1
        threading.Event().wait(0.1)
    assert 60 < large.host < 100 and small.host < 10
