"""Names that users give are shown as they are, never as mathematics or markup."""

import numpy as np
import pandas as pd
import pytest

from braidkit.evaluation import (
    AblationDisplay,
    DistanceDisplay,
    KmerScatterDisplay,
    RewardDistributionDisplay,
    TrainingCurveDisplay,
)

pyplot = pytest.importorskip("matplotlib.pyplot")
pyplot.switch_backend("Agg")

NAMES = ["revenue_$_less_cost_$", r"\frac{$x}{$", "a$b$c$d", "$^{$"]


def displays(name):
    one, two = np.array([1.0, 2.0]), np.array([2.0, 3.0])
    history = {"iteration": [0, 1], "mean": one, "lower": one, "judge": one, "kl": one}
    options = {"name": name, "reference": 1.5, "reference_name": name}
    yield RewardDistributionDisplay.from_values({name: one, f"{name} 2": two}, **options)
    yield AblationDisplay.from_values({name: one, 0.1: two}, parameter=name, **options)
    yield DistanceDisplay(np.array([1, 2]), two, one, **options)
    yield TrainingCurveDisplay(history, best_iter=1, name=name)
    yield KmerScatterDisplay([name, "AC"], one / 3, two / 5, pearson=0.5, divergence=0.1)


def shown(figure, name):
    """Texts of a figure that hold the name, as they are drawn."""
    texts = [text for text in figure.findobj(pyplot.Text) if text.get_text()]
    assert not any(text._preprocess_math(text.get_text())[1] for text in texts)
    return [text for text in texts if name in text._preprocess_math(text.get_text())[0]]


@pytest.mark.parametrize("name", NAMES)
def test_names_with_dollar_signs_are_drawn_as_they_are(name):
    for display in displays(name):
        figure = display.plot().figure_
        figure.canvas.draw()
        assert shown(figure, name), type(display).__name__
        pyplot.close(figure)


def test_reward_distributions_of_a_filtered_table_go_by_position(run):
    frame = pd.DataFrame({"seq": run.X, "y": run.y}).iloc[::-2]
    drawn = [
        RewardDistributionDisplay.from_estimator(run.finetuner, X, y, n_designs=50, random_state=0).values
        for X, y in ((frame["seq"], frame["y"]), (frame["seq"].tolist(), frame["y"].tolist()))
    ]
    for group, values in drawn[0].items():
        np.testing.assert_array_equal(values, drawn[1][group])
