import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from braidkit.evaluation import Comparison
from braidkit.evaluation.displays import RewardDistributionDisplay
from braidkit.exceptions import InvalidParameterError


def test_rewards_are_labelled_and_their_quantiles_are_right(rng, texts):
    values = {"offline": rng.normal(size=500), "pretrained": np.full(7, 2.0), "fine-tuned": [4.0, 5.0, 9.0]}
    display = RewardDistributionDisplay.from_values(values, name="MRL (ribosomes)", reference=8.0).plot()
    ax = display.ax_
    assert ax.get_xlabel() == "MRL (ribosomes)"
    # The first group is on top.
    rows = dict(zip([label.get_text() for label in ax.get_yticklabels()], ax.get_yticks(), strict=True))
    assert rows["offline"] > rows["pretrained"] > rows["fine-tuned"]
    assert texts(ax) == [f"{np.median(values['offline']):.3g}", "2", "5", "best measured 8"]
    spans = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(spans[0], np.quantile(values["offline"], [0.05, 0.95]))
    np.testing.assert_allclose(spans[2], np.quantile(values["fine-tuned"], [0.05, 0.95]))
    assert ax.get_xlim()[0] < -2
    assert ax.get_xlim()[1] > 9


def test_reward_display_draws_on_given_axes():
    _, ax = pyplot.subplots()
    assert RewardDistributionDisplay.from_values({"a": [1.0, 2.0]}).plot(ax).ax_ is ax


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "values is empty; pass at least one group"),
        ({"a": []}, "'a' must have at least one"),
        ({"a": [1.0, np.nan]}, "2 with 1 not finite"),
    ],
)
def test_values_that_cannot_be_drawn_are_refused(values, message):
    with pytest.raises(InvalidParameterError, match=message):
        RewardDistributionDisplay.from_values(values)


def test_rewards_from_an_estimator_are_all_predicted_by_the_judge(run):
    display = RewardDistributionDisplay.from_estimator(*run, n_designs=50, random_state=0, name="MRL")
    assert list(display.values) == ["offline data", "pretrained", "fine-tuned"]
    assert {len(values) for values in display.values.values()} == {50}
    predicted = run.finetuner.judge_.predict(run.X)
    assert set(display.values["offline data"].round(6)) <= set(predicted.round(6))
    assert predicted.min() <= display.values["pretrained"].mean() < display.values["fine-tuned"].mean()
    assert display.reference == run.y.max()
    assert display.name == "MRL, predicted by the judge"
    again = RewardDistributionDisplay.from_estimator(*run, n_designs=50, random_state=0)
    assert all((again.values[group] == values).all() for group, values in display.values.items())


def test_methods_of_a_comparison_are_ordered_by_their_median(texts):
    designs = pd.DataFrame(
        {
            "method": ["BRAID"] * 3 + ["STRL"] * 3 + ["BRAID"] * 3 + ["natural"] * 3,
            "seed": [0] * 6 + [1] * 6,
            "design": ["A"] * 12,
            "truth": [1.0, 2.0, 3.0, 0.0, 0.5, 1.0, 5.0, 6.0, 7.0, np.nan, np.nan, np.nan],
        }
    )
    comparison = Comparison(results=pd.DataFrame(), designs=designs, failures=pd.DataFrame())
    display = RewardDistributionDisplay.from_comparison(comparison, "truth").plot()
    assert {method: values.tolist() for method, values in display.values.items()} == {
        "BRAID": [1, 2, 3, 5, 6, 7],
        "STRL": [0, 0.5, 1],
    }
    assert list(display.values) == ["BRAID", "STRL"]
    assert texts(display.ax_) == ["4", "0.5"]
    assert display.ax_.get_xlabel() == "truth"
    with pytest.raises(InvalidParameterError, match="oracle must be one of 'truth'; got 'Optimus'"):
        RewardDistributionDisplay.from_comparison(comparison, "Optimus")
