"""Fits give the same whatever the caller has set in torch, and change none of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from tqdm import TMonitor

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward
from braidkit.torch_state import ordinary_torch, seeded
from braidkit.training import batches, train

X = np.random.default_rng(0).normal(size=(80, 2))
Y = X.sum(axis=1)


def designs(seed=0):
    reward = GPBonusReward(max_iter=5)
    finetuner = ConservativeDiffusionFinetuner(reward=reward, max_iter=2, batch_size=8, random_state=seed).fit(X, Y)
    return finetuner.sample(5, random_state=0)


@pytest.fixture(scope="module")
def usual():
    return designs()


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("world", [torch.no_grad, torch.inference_mode, nullcontext])
def test_gradients_and_types_of_the_caller_change_nothing(world, usual, float64):
    with world():
        assert np.array_equal(designs(), usual)


def test_fits_in_threads_give_what_one_gives_and_leave_the_caller_s_generator(usual):
    before = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(designs, [0] * 3):
            assert np.array_equal(found, usual)
    assert torch.equal(before, torch.get_rng_state())


def test_the_default_type_comes_back_after_an_error_and_after_the_last(float64):
    with pytest.raises(ZeroDivisionError), ordinary_torch(), ordinary_torch():
        assert torch.get_default_dtype() == torch.float32
        raise ZeroDivisionError
    assert torch.get_default_dtype() == torch.float64


def test_seeded_numbers_are_those_of_the_seed_and_the_generator_comes_back():
    before = torch.get_rng_state()
    with seeded(3):
        found = torch.randn(2)
    assert torch.equal(found, torch.randn(2, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(before, torch.get_rng_state())


class Nothing:
    def update(self, i):
        return {}


def test_silent_training_leaves_no_thread_of_a_progress_bar():
    def monitors():
        return [thread for thread in threading.enumerate() if isinstance(thread, TMonitor)]

    for thread in monitors():
        thread.exit()
    assert train(Nothing(), 3) == 3 and monitors() == []


def test_no_mini_batch_has_one_row_alone():
    passes = batches(17, 8, torch.Generator().manual_seed(0))
    assert [len(next(passes)) for _ in range(4)] == [8, 9, 8, 9]
    passes = batches(17, 8, torch.Generator().manual_seed(0))
    assert sorted(torch.cat([next(passes), next(passes)]).tolist()) == list(range(17))
    assert [len(next(batches(3, 1, torch.Generator()))), len(next(batches(1, 8, torch.Generator())))] == [1, 1]


def test_features_with_batch_normalisation_learn_whatever_the_number_of_rows():
    features = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh())
    reward = GPBonusReward(features, max_iter=12, batch_size=8, validation_fraction=0, random_state=0)
    assert np.isfinite(reward.fit(X[:17], Y[:17]).predict(X)).all()
