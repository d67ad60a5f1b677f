import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture
def texts():
    """What is written on axes."""
    return lambda ax: [text.get_text() for text in ax.texts]


@pytest.fixture
def check_nothing_is_cut_off():
    """Draw a figure; all its text must lie inside it."""

    def check(figure):
        figure.canvas.draw()
        frame = figure.bbox.padded(1)
        for ax in figure.axes:
            legend = ax.get_legend()
            labels = [*ax.texts, ax.xaxis.label, ax.yaxis.label, ax.title, *(legend.get_texts() if legend else [])]
            ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
            for text in [*labels, *ticks]:
                box = text.get_window_extent()
                if text.get_text() and text.get_visible() and text not in ticks:
                    assert frame.x0 <= box.x0 and box.x1 <= frame.x1, text
                    assert frame.y0 <= box.y0 and box.y1 <= frame.y1, text

    return check
