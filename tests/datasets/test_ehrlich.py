import numpy as np
import pytest

from braidkit.datasets import make_ehrlich
from braidkit.exceptions import InvalidParameterError
from braidkit.oracles import EhrlichLandscape


@pytest.mark.parametrize(("alphabet", "length"), [("protein", 32), ("DNA", 30), ("protein", 64)])
def test_ehrlich_measurements_are_exact_values_of_feasible_sequences_plus_noise(alphabet, length):
    landscape = EhrlichLandscape(alphabet, length, random_state=1)
    X, y = make_ehrlich(3000, landscape=landscape, noise=0.1, random_state=0)
    error = y - landscape.predict(X)
    assert landscape.is_valid(X).all()
    assert abs(error.mean()) < 4 * 0.1 / np.sqrt(3000) and error.std() == pytest.approx(0.1, rel=0.05)


def test_seed_decides_on_ehrlich_data():
    first, again, other = (make_ehrlich(50, random_state=seed) for seed in (1, 1, 2))
    assert first[0].tolist() == again[0].tolist() and first[0].tolist() != other[0].tolist()
    np.testing.assert_array_equal(first[1], again[1])


@pytest.mark.parametrize(("name", "value"), [("n_samples", 0), ("noise", -1.0), ("noise", np.inf)])
def test_parameter_of_ehrlich_data_outside_its_range(name, value):
    with pytest.raises(InvalidParameterError, match=f"{name} must be"):
        make_ehrlich(**{name: value})
