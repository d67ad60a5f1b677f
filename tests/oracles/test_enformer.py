"""The trained oracle: it learns, comes back from disk as it was, and knows what it was trained on."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from braidkit import SequenceSpace, persistence
from braidkit.datasets import offline_split
from braidkit.exceptions import CheckpointError, InvalidDesignError, InvalidParameterError
from braidkit.oracles import EnformerOracle, UTRLandscape, refuse_shared_rows
from braidkit.oracles._base import hash_rows
from braidkit.oracles.enformer import MAX_POSITIONS, SIZES, EnformerNetwork

LENGTH = 12


@pytest.fixture(scope="module")
def data():
    """1,500 sequences that are worth one for each A before the first T, whose effect depends on the place."""
    X = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), (1500, LENGTH))]
    return X, np.array([row.split("T")[0].count("A") + 0.5 * (row[-3] == "G") for row in X])


@pytest.fixture(scope="module")
def oracle(data):
    X, y = data
    return EnformerOracle(max_iter=200, batch_size=64, random_state=0, device="cpu").fit(X[:1200], y[:1200])


def test_enformer_oracle_learns_order_and_place(oracle, data):
    X, y = data
    assert oracle.score(X[1200:], y[1200:]) > 0.8
    assert oracle.validation_r2_ > 0.8
    np.testing.assert_array_equal(oracle(X[:20]), oracle.predict(X[:20]))
    one_by_one = np.concatenate([oracle.predict([row]) for row in X[:5]])
    np.testing.assert_allclose(one_by_one, oracle.predict(X[:5]), rtol=1e-4)


def test_units_of_y_do_not_matter(data):
    X, y = data[0][:100], data[1][:100]
    plain, scaled = (EnformerOracle(max_iter=5, random_state=0).fit(X, target) for target in (y, 30 * y - 7))
    np.testing.assert_allclose(scaled.predict(X), 30 * plain.predict(X) - 7, rtol=1e-4, atol=1e-3)


def test_seed_decides_and_the_global_one_is_left_alone(data):
    X, y = data[0][:100], data[1][:100]
    state = torch.random.get_rng_state()
    first, again, other = (EnformerOracle(max_iter=3, random_state=seed).fit(X, y) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(first.predict(X), again.predict(X))
    assert not np.allclose(first.predict(X), other.predict(X))
    assert clone(first).get_params() == first.get_params()


def test_save_and_load(oracle, data, tmp_path):
    oracle.save(tmp_path / "oracle")
    loaded = EnformerOracle.load(tmp_path / "oracle", device="cpu")
    np.testing.assert_array_equal(loaded.predict(data[0]), oracle.predict(data[0]))
    np.testing.assert_array_equal(loaded.row_hashes_, oracle.row_hashes_)
    assert loaded.row_hashes_.dtype == np.uint64
    assert (loaded.n_iter_, loaded.validation_r2_, loaded.space_) == (200, oracle.validation_r2_, oracle.space_)
    with pytest.raises(InvalidDesignError, match="trained the EnformerOracle"):
        loaded.check_disjoint(data[0][:1])
    persistence.save(tmp_path / "other", config={"class": "Other"}, tensors={})
    with pytest.raises(CheckpointError, match="holds a 'Other', not an EnformerOracle"):
        EnformerOracle.load(tmp_path / "other")


def test_shared_rows_are_refused_in_any_spelling(oracle, data):
    X = data[0]
    fresh = [row for row in X[1200:] if row not in set(X[:1200])]
    oracle.check_disjoint(fresh)
    shared = [*fresh[:3], X[5].lower(), X[9].replace("T", "U")]
    message = rf"2 of these 5 rows trained the EnformerOracle, row 3 \({X[5].lower()}\) first.*offline_split"
    for judge in (oracle, oracle.predict):
        with pytest.raises(InvalidDesignError, match=message):
            refuse_shared_rows(judge, shared)
    with pytest.raises(InvalidDesignError, match="1 of these 1 rows"):
        oracle.check_disjoint(oracle.space_.encode(X[:1]).numpy())
    with pytest.raises(InvalidDesignError, match="1 of these 1 rows"):
        oracle.check_disjoint(np.array(X[:1]))
    refuse_shared_rows(UTRLandscape(), X)


def test_the_parts_of_an_offline_split_share_no_row(data):
    split = offline_split(*data, random_state=0)
    known = set(hash_rows(split.X_oracle).tolist())
    both = set(split.X_oracle) & set(split.X_offline)  # random rows that came twice
    assert known & set(hash_rows(split.X_offline).tolist()) == set(hash_rows(sorted(both)).tolist())


def test_the_network_has_the_parts_and_widths_of_the_paper():
    with torch.device("meta"):
        network = EnformerNetwork(200, 4, **SIZES["paper"])
    assert len(network.blocks) == 11
    widths = [stage.pointwise[-1].out_channels for stage in network.tower]
    assert widths == [768, 768, 896, 1024, 1152, 1280, 1536]
    query_key = network.blocks[0].attention[1].query_key
    assert query_key.out_features == 2 * 8 * 64
    assert network.place.shape[0] <= MAX_POSITIONS


@pytest.mark.parametrize("length", [1, 3, 50, 130, 301])
def test_any_length_runs(length):
    space = SequenceSpace("protein", length)
    X = ["".join(row) for row in np.random.default_rng(0).choice(list("ACDE"), (12, length))]
    y = np.arange(12.0)
    oracle = EnformerOracle(space=space, max_iter=2, batch_size=4, validation_fraction=0, random_state=0).fit(X, y)
    assert np.isfinite(oracle.predict(X)).all() and np.isnan(oracle.validation_r2_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "huge"}, 'size must be "cpu" or "paper"; got'),
        ({"batch_size": 1}, "batch_size must be a whole number of at least 2; got 1"),
        ({"validation_fraction": 1.0}, "validation_fraction must be a number >= 0 and < 1; got 1.0"),
        ({"max_iter": 0}, "max_iter"),
        ({"learning_rate": -1}, "learning_rate"),
    ],
)
def test_parameters_out_of_range(data, change, message):
    with pytest.raises(InvalidParameterError, match=message):
        EnformerOracle(**change).fit(*data)


def test_numbers_are_no_sequences():
    with pytest.raises(InvalidDesignError, match="EnformerOracle takes sequences"):
        EnformerOracle().fit(np.eye(4, 2), np.arange(4))


def test_scikit_learn_s_checks():
    assert not [found for found in check_estimator(EnformerOracle(max_iter=1), on_fail=None) if found["exception"]]
