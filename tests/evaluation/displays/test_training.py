import builtins

import pytest
from matplotlib import pyplot

from braidkit.evaluation.displays import TrainingCurveDisplay
from braidkit.exceptions import MissingExtraError

HISTORY = {
    "iteration": [0, 10, 20],
    "mean": [1.0, 2.0, 3.0],
    "lower": [0.5, 1.0, 1.5],
    "judge": [1.0, 1.6, 1.4],
    "penalty": [0.5, 1.0, 1.5],
    "kl": [0.0, 2.0, 5.0],
}


def test_training_curves_from_an_estimator(run, texts):
    display = TrainingCurveDisplay.from_estimator(run.finetuner, name="MRL").plot()
    assert list(display.axes_[1].lines[0].get_ydata()) == run.finetuner.history_["kl"]
    assert f"kept: {run.finetuner.best_iter_}" in texts(display.axes_[0])


@pytest.mark.parametrize("best_iter", [0, 10, 20])
def test_training_curves_are_drawn_and_labelled(best_iter, texts):
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


def test_the_curve_of_an_oracle_is_drawn_if_there_is_one(texts, check_nothing_is_cut_off):
    display = TrainingCurveDisplay(HISTORY | {"oracle": [1.0, 1.7, 1.2]}, best_iter=10).plot()
    assert list(display.axes_[0].lines[3].get_ydata()) == [1.0, 1.7, 1.2]
    assert set(texts(display.axes_[0])) == {"mean", "lower bound", "judge", "oracle", "kept: 10"}
    check_nothing_is_cut_off(display.figure_)


def test_training_display_draws_on_given_axes():
    figure, axes = pyplot.subplots(2)
    display = TrainingCurveDisplay(HISTORY).plot(axes)
    assert list(display.axes_) == list(axes)
    assert display.figure_ is figure


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(MissingExtraError, match=r"pip install 'braidkit\[plots\]'"):
        TrainingCurveDisplay(HISTORY).plot()
