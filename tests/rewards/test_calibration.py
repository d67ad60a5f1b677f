import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from braidkit.exceptions import InvalidParameterError
from braidkit.rewards import lower_coverage
from braidkit.rewards.calibration import check_enough_rows, conformal_c, designs_to_calibrate, noise_free_c


@settings(max_examples=100)
@given(st.integers(19, 200), st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.integers(0, 10_000))
def test_c_is_the_smallest_whose_bound_holds_often_enough(m, level, seed):
    rng = np.random.default_rng(seed)
    y, mean, std = rng.normal(size=m), rng.normal(size=m), rng.uniform(0.5, 2.0, size=m)
    needed = int(np.ceil((m + 1) * level - 1e-9))
    c = conformal_c(y, mean, std, level)
    slack = 1e-12  # the row at the bound itself, up to rounding
    assert np.sum(y >= mean - c * std - slack) >= needed
    if c > 0:
        assert np.sum(y >= mean - c * (1 - 1e-6) * std) < needed


@pytest.mark.parametrize(("level", "m"), [(0.9, 9), (0.95, 19), (0.5, 1), (0.8, 4), (0.99, 99)])
def test_fewest_rows_of_a_level(level, m):
    check_enough_rows(m, level)
    with pytest.raises(InvalidParameterError, match=f"at least {m} held-out rows, and there are {m - 1}"):
        check_enough_rows(m - 1, level)


@pytest.mark.parametrize(("level", "fraction"), [(0.95, 0.1), (0.9, 0.3), (0.5, 0.25), (0.95, 0.15)])
def test_fewest_designs_to_calibrate_on_a_fraction(level, fraction):
    n = designs_to_calibrate(level, fraction)
    check_enough_rows(int(fraction * n), level)
    with pytest.raises(InvalidParameterError):
        check_enough_rows(int(fraction * (n - 1)), level)


def test_coverage_of_new_rows_is_the_level():
    # Exchangeable rows: coverage is Beta-distributed around the level; over 200 draws its mean is within 0.01.
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        y, std = rng.standard_t(3, size=300), np.ones(300)
        c = conformal_c(y[:100], np.zeros(100), std[:100], 0.9)
        shares.append(np.mean(y[100:] >= -c))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)


def test_lower_coverage_counts_all_rows_and_those_predicted_highest():
    class Bound:
        def predict(self, X):
            return np.asarray(X, dtype=float)

        def predict_lower(self, X):
            return np.asarray(X, dtype=float) - 1

    mean = np.arange(20.0)  # the highest tenth is 18 and 19
    y = np.where(mean < 14, mean, mean - 2)
    y[19] = 30.0
    assert lower_coverage(Bound(), mean, y) == {"overall": 0.75, "top_decile": 0.5}


def test_known_noise_is_not_charged_to_the_model():
    # Errors of the mean are 3 deviations, the noise is as large: the bound is to hold for r, not for y.
    rng = np.random.default_rng(0)
    std = rng.uniform(0.2, 0.6, size=20_000)
    r = 3 * std * rng.normal(size=len(std))
    y = r + 1.2 * rng.normal(size=len(std))
    mean = np.zeros_like(r)
    c = noise_free_c(y, mean, std, 0.95, noise=1.2)
    assert c == pytest.approx(3 * 1.645, rel=0.05)
    assert np.mean(r >= -c * std) == pytest.approx(0.95, abs=0.01)
    assert c < 0.8 * conformal_c(y, mean, std, 0.95)
    assert noise_free_c(y, mean, std, 0.95, noise=10.0) < 1  # the noise alone is more than the errors
    assert noise_free_c(mean, mean, std, 0.95, noise=1.0) == noise_free_c(y, mean, std, 0.4, noise=1.0) == 0.0


@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
def test_with_known_noise_few_rows_cover_the_level_on_average(noise):
    """The scale of the errors is estimated: charged for that, the bound holds for the level's share of new rewards."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(150):
        std = rng.uniform(0.5, 1.5, size=40)
        y = std * rng.normal(size=40) + noise * rng.normal(size=40)
        shares.append(norm.cdf(noise_free_c(y, np.zeros(40), std, 0.95, noise)))
    assert 0.935 < np.mean(shares) < 0.98
