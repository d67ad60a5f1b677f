import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidkit.datasets import fetch_utr, offline_split
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError

measurements = st.lists(st.integers(-1000, 1000), min_size=6, max_size=80, unique=True)


@settings(max_examples=60)
@given(y=measurements, oracle_fraction=st.floats(0, 0.6), quantile=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_parts_are_disjoint_cover_the_rows_and_are_cut_right(y, oracle_fraction, quantile, seed):
    y = np.array(y, dtype=float)
    split = offline_split(y[:, None], y, oracle_fraction=oracle_fraction, quantile=quantile, random_state=seed)
    np.testing.assert_array_equal(np.sort(np.r_[split.oracle_indices, split.pool_indices]), np.arange(len(y)))
    assert len(split.oracle_indices) == round(oracle_fraction * len(y))
    assert split.cut == np.quantile(y[split.pool_indices], quantile)
    assert set(split.offline_indices) == {i for i in split.pool_indices if y[i] < split.cut}
    for part in ("offline", "oracle"):
        rows = getattr(split, f"{part}_indices")
        np.testing.assert_array_equal(getattr(split, f"y_{part}"), y[rows])
        np.testing.assert_array_equal(getattr(split, f"X_{part}"), y[rows, None])


@settings(max_examples=40)
@given(groups=st.lists(st.integers(0, 12), min_size=20, max_size=60), seed=st.integers(0, 99))
def test_groups_stay_together(groups, seed):
    groups = np.array(groups + [100, 101])
    split = offline_split(list(range(len(groups))), np.arange(len(groups)), groups=groups, random_state=seed)
    assert set(groups[split.oracle_indices]).isdisjoint(groups[split.pool_indices])
    assert len(set(groups[split.oracle_indices])) == round(len(set(groups)) / 2)


def test_designs_keep_their_kind():
    strings = [f"{'ACGT'[i % 4]}{'ACGT'[i // 4]}" for i in range(16)]
    y = np.arange(16)
    as_list = offline_split(strings, y, random_state=0)
    assert as_list.X_offline == [strings[i] for i in as_list.offline_indices]
    as_array = offline_split(np.array(strings), y, random_state=0)
    assert as_array.X_offline.tolist() == as_list.X_offline
    series = pd.Series(strings, index=range(100, 116))
    as_series = offline_split(series, pd.Series(y, index=series.index), random_state=0)
    assert isinstance(as_series.X_oracle, pd.Series)
    assert as_series.X_oracle.tolist() == as_list.X_oracle


def test_seed_decides():
    y = np.arange(100.0)
    first, again, other = (offline_split(y, y, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.offline_indices, again.offline_indices)
    assert set(first.oracle_indices) != set(other.oracle_indices)


def test_measurements_are_copied():
    y = np.arange(10.0)
    split = offline_split(y, y, oracle_fraction=0, random_state=0)
    split.y_offline[:] = -1
    np.testing.assert_array_equal(y, np.arange(10.0))


@pytest.mark.parametrize(
    "options", [{"oracle_fraction": 1.0}, {"oracle_fraction": -0.1}, {"quantile": 0}, {"quantile": 1}]
)
def test_fraction_outside_its_range(options):
    with pytest.raises(InvalidParameterError, match=next(iter(options))):
        offline_split(np.arange(9), np.arange(9), **options)


def test_bad_data():
    with pytest.raises(InvalidDesignError, match="X has 3 designs, but y has 4 measurements"):
        offline_split(["A", "C", "G"], [1, 2, 3, 4])
    with pytest.raises(InvalidDesignError, match="groups has 2 entries for 3 designs"):
        offline_split(["A", "C", "G"], [1, 2, 3], groups=[0, 1])
    with pytest.raises(InvalidTargetError, match=r"row 1 is nan \(1 such rows\); drop those rows"):
        offline_split(["A", "C", "G"], [1, np.nan, 3])
    with pytest.raises(InvalidTargetError, match="too many are equal"):
        offline_split(["A", "C", "G", "T"], [5.0] * 4)
    with pytest.raises(InvalidDesignError, match="none is left"):
        offline_split([], [])


@pytest.mark.data
def test_the_papers_protocol(data_dir):
    X, y = fetch_utr(data_dir, return_X_y=True)
    split = offline_split(X, y, random_state=0)
    assert len(split.X_oracle) == len(split.pool_indices) == 140_000
    assert len(split.X_offline) == pytest.approx(84_000, abs=20)
    assert split.cut == pytest.approx(np.quantile(y, 0.6), abs=0.02)
