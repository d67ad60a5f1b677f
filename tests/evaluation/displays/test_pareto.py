import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidkit.evaluation import ParetoDisplay
from braidkit.evaluation.displays.pareto import pareto_front
from braidkit.exceptions import InvalidParameterError

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20)
signs = st.sampled_from([-1, 1])


@given(points=pairs, directions=st.tuples(signs, signs))
def test_the_front_is_what_no_other_row_dominates(points, directions):
    points = np.array(points, dtype=float)
    front = {tuple(point) for point in pareto_front(points, directions)}
    better = points * np.array(directions)
    for point, own in zip(points, better, strict=True):
        dominated = ((better >= own).all(axis=1) & (better > own).any(axis=1)).any()
        assert (tuple(point) in front) == (not dominated)


def test_designs_and_their_bounds_are_drawn():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(5, 2))
    display = ParetoDisplay(rng.normal(size=(50, 2)), mean, mean + [-0.5, 0.5], names=["on", "off"], directions=[1, -1])
    ax = display.plot().ax_
    assert ax.get_xlabel() == "on (more is better)" and ax.get_ylabel() == "off (less is better)"
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "designs, predicted"
    assert len(ax.lines) == 3 + 2 * len(mean)


def test_an_estimator_of_one_quantity_has_no_picture():
    with pytest.raises(InvalidParameterError, match="names must be two quantities of the objective, which has none"):
        ParetoDisplay.from_estimator(object(), None, [])
