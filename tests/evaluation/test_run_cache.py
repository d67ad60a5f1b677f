"""Digests that tell runs apart, and runs that come back from disk."""

import copy
import functools

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward
from braidkit.evaluation.run_cache import RunCache
from braidkit.persistence import digest


def test_digests_see_what_things_hold_not_what_they_are():
    reward = GPBonusReward(max_iter=20, random_state=0)
    finetuner = ConservativeDiffusionFinetuner(alpha=0.1, reward=reward)
    same = digest(finetuner)
    assert digest(copy.deepcopy(finetuner)) == same
    assert digest(ConservativeDiffusionFinetuner(alpha=0.1, reward=reward, verbose=1, device="cpu")) == same
    assert digest(ConservativeDiffusionFinetuner(alpha=0.2, reward=reward)) != same
    assert digest(ConservativeDiffusionFinetuner(alpha=0.1, reward=GPBonusReward(max_iter=20, c=1.0))) != same
    X = [row * 5 for row in ("AC", "GT", "CC", "TA", "GG", "AT")]
    frozen = [FrozenEstimator(copy.deepcopy(reward).fit(X, y)) for y in (range(6), range(6), [0, 1, 2, 3, 4, 6])]
    assert digest(frozen[0]) == digest(frozen[1]) != digest(frozen[2])
    layer, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert digest(layer) == digest(copy.deepcopy(layer)) != digest(other)

    def adder(n):
        return lambda x: x + n

    assert digest(adder(1)) == digest(adder(1)) != digest(adder(2))
    assert digest(functools.partial(max, 1)) != digest(functools.partial(max, 2))
    scope: dict = {"rows": ["AC"]}
    exec("def fit(seed):\n    return rows, seed", scope)
    before = digest(scope["fit"])
    scope["rows"] = ["GT"]
    assert digest(scope["fit"]) != before
    loop: list = [1]
    loop.append(loop)
    assert digest(loop) != digest([1, [1]])


def test_designs_of_any_kind_come_back(tmp_path):
    cache = RunCache(tmp_path / "cache")
    for name, designs in {"best of 8": ["AC", "NA"], "STRL / K=5": np.arange(6.0).reshape(3, 2)}.items():
        assert cache.load(name, 0, "key") is None
        cache.store(name, 0, "key", designs, {"fit (s)": 0.1}, {"alpha": "0.1"})
        stored, cost = cache.load(name, 0, "key")
        assert type(stored) is type(designs) and cost == {"fit (s)": 0.1}
        np.testing.assert_array_equal(stored, designs)
        assert cache.load(name, 1, "key") is None and cache.load(name, 0, "other") is None
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert names == ["best-of-8-0-key.csv", "best-of-8-0-key.json", "strl-k-5-0-key.json", "strl-k-5-0-key.npy"]
    RunCache(None).store("top", 0, "key", ["AC"], {}, {})
    assert RunCache(None).load("top", 0, "key") is None


@pytest.mark.parametrize("designs", [["ACGT", "NAAA", "TTTT"], np.arange(6.0).reshape(3, 2)])
def test_a_run_that_was_cut_or_damaged_is_not_taken_for_a_whole_one(tmp_path, designs):
    cache = RunCache(tmp_path)
    cache.store("top", 0, "key", designs, {"fit (s)": {"mean": 0.1}}, {})
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], whole[:-3], whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:]):
            path.write_bytes(damaged)
            assert cache.load("top", 0, "key") is None
        path.write_bytes(whole)
    assert cache.load("top", 0, "key") is not None
