import numpy as np
import pandas as pd
import pytest

from braidkit.exceptions import CheckpointError, InvalidDesignError, InvalidParameterError
from braidkit.oracles import Optimus5Prime
from braidkit.oracles.optimus5p import OUTPUTS, SHAPES


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    rng = np.random.RandomState(0)
    weights = {}
    for layer, shape in SHAPES.items():
        weights[f"{layer}_kernel"] = (rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)
        weights[f"{layer}_bias"] = rng.normal(size=shape[-1]).astype(np.float32)
    return weights


@pytest.fixture(scope="module")
def sequences() -> list[str]:
    return ["".join(row) for row in np.random.RandomState(1).choice(list("ACGT"), size=(5, 50))]


def plain_forward(weights: dict[str, np.ndarray], sequence: str) -> np.ndarray:
    """The stored layout read literally: positions x channels, 3 zeros on the left and 4 on the right."""
    x = np.eye(4)[["ACGT".index(letter) for letter in sequence]]
    for layer in ("conv_1", "conv_2", "conv_3"):
        padded = np.pad(x, ((3, 4), (0, 0)))
        windows = np.stack([padded[i : i + 8] for i in range(50)])
        x = np.einsum("ltc,tco->lo", windows, weights[f"{layer}_kernel"]) + weights[f"{layer}_bias"]
        x = np.maximum(x, 0)
    hidden = np.maximum(x.reshape(-1) @ weights["dense_1_kernel"] + weights["dense_1_bias"], 0)
    return hidden @ weights["dense_2_kernel"] + weights["dense_2_bias"]


def test_network_equals_the_stored_layout_read_literally(weights, sequences):
    expected = np.array([plain_forward(weights, sequence) for sequence in sequences])
    for i, output in enumerate(OUTPUTS):
        found = Optimus5Prime(weights, output).predict(sequences)
        np.testing.assert_allclose(found, expected[:, i], rtol=1e-4, atol=1e-4)


def test_file_of_weights(weights, sequences, tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, **weights)
    found = Optimus5Prime.from_npz(path).predict(sequences)
    np.testing.assert_array_equal(found, Optimus5Prime(weights, "HEK293T").predict(sequences))


def test_bad_input(weights):
    oracle = Optimus5Prime(weights)
    with pytest.raises(InvalidDesignError, match="49 letters"):
        oracle.predict(["A" * 49])
    with pytest.raises(InvalidDesignError, match="'N' at position 50"):
        oracle.predict(["A" * 49 + "N"])
    with pytest.raises(InvalidParameterError, match='output must be "HEK293T", "T cells" or "HepG2"'):
        Optimus5Prime(weights, "HeLa")


def test_bad_file(weights, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.npz cannot be read"):
        Optimus5Prime.from_npz(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no weights")
    with pytest.raises(CheckpointError, match=r"text\.npz cannot be read"):
        Optimus5Prime.from_npz(tmp_path / "text.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(CheckpointError, match=r"array\.npy cannot be read"):
        Optimus5Prime.from_npz(tmp_path / "array.npy")
    np.savez(tmp_path / "one_output.npz", **(weights | {"dense_2_kernel": np.zeros((40, 1), dtype=np.float32)}))
    with pytest.raises(CheckpointError, match=r"one_output\.npz: .* dense_2_kernel of shape \(40, 3\).*\(40, 1\)"):
        Optimus5Prime.from_npz(tmp_path / "one_output.npz")
    np.savez(tmp_path / "short.npz", **{name: array for name, array in weights.items() if name != "conv_2_bias"})
    with pytest.raises(CheckpointError, match="conv_2_bias of shape .* is missing"):
        Optimus5Prime.from_npz(tmp_path / "short.npz")


@pytest.mark.data
def test_published_weights_predict_the_measured_load(data_dir):
    table = pd.read_csv(data_dir / "utr_mrl.csv.gz", nrows=20_000).iloc[::4]
    load = Optimus5Prime.from_npz(data_dir / "optimus5p_mrl.npz").predict(table["sequence"])
    assert load.shape == (5000,)
    assert np.corrcoef(load, table["mrl"])[0, 1] ** 2 == pytest.approx(0.937, abs=0.006)
    assert abs(load.mean() - table["mrl"].mean()) < 0.05
