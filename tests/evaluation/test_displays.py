import builtins

import numpy as np
import pytest

from braidkit.evaluation.displays import RewardDistributionDisplay, TrainingCurveDisplay
from braidkit.exceptions import InvalidParameterError, MissingExtraError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

HISTORY = {
    "iteration": [0, 10, 20],
    "mean": [1.0, 2.0, 3.0],
    "lower": [0.5, 1.0, 1.5],
    "judge": [1.0, 1.6, 1.4],
    "penalty": [0.5, 1.0, 1.5],
    "kl": [0.0, 2.0, 5.0],
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_rewards_are_labelled_and_their_quantiles_are_right(rng):
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


def test_displays_draw_on_given_axes():
    figure, axes = matplotlib.pyplot.subplots(3)
    assert RewardDistributionDisplay.from_values({"a": [1.0, 2.0]}).plot(axes[0]).ax_ is axes[0]
    display = TrainingCurveDisplay(HISTORY).plot(axes[1:])
    assert list(display.axes_) == list(axes[1:])
    assert display.figure_ is figure


@pytest.mark.parametrize(
    ("values", "message"),
    [({}, "no group"), ({"a": []}, "'a' must have at least one"), ({"a": [1.0, np.nan]}, "2 with 1 not finite")],
)
def test_values_that_cannot_be_drawn_are_refused(values, message):
    with pytest.raises(InvalidParameterError, match=message):
        RewardDistributionDisplay.from_values(values)


def test_rewards_from_an_estimator_are_all_predicted_by_the_judge(run):
    display = RewardDistributionDisplay.from_estimator(*run, n_samples=50, random_state=0, name="MRL")
    assert list(display.values) == ["offline data", "pretrained", "fine-tuned"]
    assert {len(values) for values in display.values.values()} == {50}
    predicted = run.finetuner.judge_.predict(run.X)
    assert set(display.values["offline data"].round(6)) <= set(predicted.round(6))
    assert predicted.min() <= display.values["pretrained"].mean() < display.values["fine-tuned"].mean()
    assert display.reference == run.y.max()
    assert display.name == "MRL, predicted by the judge"
    again = RewardDistributionDisplay.from_estimator(*run, n_samples=50, random_state=0)
    assert all((again.values[group] == values).all() for group, values in display.values.items())


def test_training_curves_from_an_estimator(run):
    display = TrainingCurveDisplay.from_estimator(run.finetuner, name="MRL").plot()
    assert list(display.axes_[1].lines[0].get_ydata()) == run.finetuner.history_["kl"]
    assert f"kept: {run.finetuner.best_iter_}" in texts(display.axes_[0])


@pytest.mark.parametrize("best_iter", [0, 10, 20])
def test_training_curves_are_drawn_and_labelled(best_iter):
    display = TrainingCurveDisplay(HISTORY, best_iter=best_iter, name="MRL (ribosomes)").plot()
    rewards, divergence = display.axes_
    for line, column in zip(rewards.lines, ("mean", "lower", "judge"), strict=False):
        assert list(line.get_xdata()) == HISTORY["iteration"]
        assert list(line.get_ydata()) == HISTORY[column]
    assert list(divergence.lines[0].get_ydata()) == HISTORY["kl"]
    assert rewards.get_ylabel() == "MRL (ribosomes)"
    assert divergence.get_ylabel() == "path KL (nats)"
    assert divergence.get_xlabel() == "fine-tuning updates"
    assert set(texts(rewards)) == {"mean", "lower bound", "judge", f"kept: {best_iter}"}
    # Labels of curves that end close together are moved apart; none leaves the figure.
    display.figure_.canvas.draw()
    frame = display.figure_.bbox
    boxes = [text.get_window_extent() for text in rewards.texts]
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(MissingExtraError, match=r"pip install 'braidkit\[plots\]'"):
        TrainingCurveDisplay(HISTORY).plot()
