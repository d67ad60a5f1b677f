import numpy as np
import pytest

from braidkit.datasets import make_utr
from braidkit.exceptions import InvalidParameterError
from braidkit.oracles import UTRLandscape


def test_measurements_are_the_exact_load_plus_noise_of_the_stated_size():
    X, y = make_utr(4000, noise=0.7, random_state=0)
    error = y - UTRLandscape().predict(X)
    assert abs(error.mean()) < 4 * 0.7 / np.sqrt(4000)
    assert error.std() == pytest.approx(0.7, rel=0.05)


def test_sequences_are_strings_of_the_length_and_follow_the_law():
    X, _ = make_utr(2000, length=30, random_state=0)
    assert {len(x) for x in X} == {30} and set("".join(X)) == set("ACGT")
    assert UTRLandscape(30).is_valid(X).mean() == pytest.approx(0.99, abs=0.01)


def test_seed_decides():
    first, again, other = (make_utr(50, random_state=seed) for seed in (1, 1, 2))
    assert first[0].tolist() == again[0].tolist() and first[0].tolist() != other[0].tolist()
    np.testing.assert_array_equal(first[1], again[1])


@pytest.mark.parametrize(("name", "value"), [("n_samples", 0), ("noise", -1.0), ("noise", np.inf), ("length", 5)])
def test_parameter_outside_its_range(name, value):
    with pytest.raises(InvalidParameterError, match=f"{name} must be"):
        make_utr(**{name: value})
