import numpy as np
import pytest

from braidkit.evaluation import nearest
from braidkit.evaluation.displays import DistanceDisplay
from braidkit.exceptions import InvalidParameterError


class CountG:
    def predict(self, X):
        return [row.count("G") for row in X]


def test_designs_are_drawn_at_their_distance(run, check_nothing_is_cut_off, texts):
    designs = run.finetuner.sample(40, random_state=0)
    display = DistanceDisplay.from_estimator(*run, designs=designs, oracle=CountG(), name="MRL").plot()
    assert display.distance.tolist() == nearest(designs, run.X)[1].tolist()
    np.testing.assert_allclose(display.mean, run.finetuner.reward_.predict(designs))
    np.testing.assert_allclose(display.lower, run.finetuner.reward_.predict_lower(designs))
    means, oracle = display.ax_.lines[:2]
    assert list(means.get_ydata()) == list(display.mean) and list(oracle.get_ydata()) == CountG().predict(designs)
    # Designs at one distance stand side by side, nearer to it than to any other.
    assert list(np.round(means.get_xdata())) == display.distance.tolist()
    assert len(set(means.get_xdata())) > len(set(display.distance))
    hanging = display.ax_.collections[0].get_segments()
    np.testing.assert_allclose([sorted(line[:, 1]) for line in hanging], np.column_stack([display.lower, display.mean]))
    assert texts(display.ax_) == [f"best measured {run.y.max():.3g}"]
    assert display.ax_.get_ylabel() == "MRL"
    check_nothing_is_cut_off(display.figure_)


def test_designs_are_drawn_from_the_estimator_by_default(run):
    display = DistanceDisplay.from_estimator(run.finetuner, run.X, n_designs=25, random_state=0)
    assert display.reference is None and display.truth is None
    np.testing.assert_allclose(display.mean, run.finetuner.reward_.predict(run.finetuner.sample(25, random_state=0)))


def test_no_design_is_refused(run):
    with pytest.raises(InvalidParameterError, match="no design to show"):
        DistanceDisplay.from_estimator(*run, designs=[])


def test_designs_of_one_distance_stand_side_by_side_without_a_trend():
    mean = np.linspace(0, 1, 200)
    display = DistanceDisplay(np.ones(200), mean, mean - 0.1).plot()
    x = display.ax_.lines[0].get_xdata()
    assert len(np.unique(x)) == 200 and np.ptp(x) < 1
    assert abs(np.corrcoef(x, mean)[0, 1]) < 0.2
