import builtins
from types import SimpleNamespace

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


def test_rewards_from_an_estimator_are_all_predicted_by_the_judge():
    # Designs are numbers here, and the judge says ten times the number.
    estimator = SimpleNamespace(
        pretrained_=SimpleNamespace(sample=lambda n, random_state: np.full(n, 2.0)),
        judge_=SimpleNamespace(predict=lambda X: 10 * np.asarray(X)),
        sample=lambda n, random_state: np.full(n, 3.0),
    )
    display = RewardDistributionDisplay.from_estimator(
        estimator, [1.0] * 50, np.arange(50.0), n_samples=20, random_state=0, name="MRL"
    )
    means = {group: values.mean() for group, values in display.values.items()}
    assert means == {"offline data": 10, "pretrained": 20, "fine-tuned": 30}
    assert {len(values) for values in display.values.values()} == {20}
    assert display.reference == 49
    assert display.name == "MRL, predicted by the judge"


@pytest.mark.parametrize("best_iter", [0, 10, 20])
def test_training_curves_are_those_of_the_estimator(best_iter):
    estimator = SimpleNamespace(history_=HISTORY, best_iter_=best_iter)
    display = TrainingCurveDisplay.from_estimator(estimator, name="MRL (ribosomes)").plot()
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
