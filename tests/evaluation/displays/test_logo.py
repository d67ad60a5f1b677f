import numpy as np
import pytest
from matplotlib import pyplot

from braidkit.evaluation.displays import SequenceLogoDisplay
from braidkit.exceptions import InvalidDesignError


def letters_at(display, place):
    """Boxes (x0, y0, x1, y1) of the letters drawn at a position, from the bottom."""
    paths = [path.get_extents() for ax in display.axes_ for path in ax.collections[0].get_paths()]
    return sorted((box for box in paths if abs((box.x0 + box.x1) / 2 - place) < 0.5), key=lambda box: box.y0)


def test_letters_are_as_tall_as_their_share_of_the_information(check_nothing_is_cut_off):
    display = SequenceLogoDisplay(np.array([[0.75, 0.25, 0, 0], [1, 0, 0, 0], [0.25] * 4]), "ACGT").plot()
    bits = 2 + 0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)
    assert display.information == pytest.approx([bits, 2, 0])
    small, tall = letters_at(display, 1)
    assert (small.y0, small.y1) == pytest.approx((0, 0.25 * bits))
    assert (tall.y0, tall.y1) == pytest.approx((0.25 * bits, bits))
    (whole,) = letters_at(display, 2)
    assert (whole.x0, whole.x1) == pytest.approx((1.55, 2.45))
    assert (whole.y0, whole.y1) == pytest.approx((0, 2), abs=1e-6)
    assert letters_at(display, 3) == []
    check_nothing_is_cut_off(display.figure_)


def test_few_sequences_are_corrected_for_chance():
    rows = ["AC", "AG", "AT"]
    display = SequenceLogoDisplay.from_sequences(rows)
    assert display.letters == "ACGT" and display.shares[0].tolist() == [1, 0, 0, 0]
    chance = 3 / (2 * np.log(2) * 3)
    assert display.information == pytest.approx([2 - chance, 0])


def test_long_sequences_are_wrapped(rng, check_nothing_is_cut_off):
    rows = ["".join(row) for row in rng.choice(list("ACGT"), (40, 120), p=[0.7, 0.1, 0.1, 0.1])]
    display = SequenceLogoDisplay.from_sequences(rows, start=-119).plot()
    assert len(display.axes_) == 3
    assert [ax.get_xlim()[0] for ax in display.axes_] == pytest.approx([-119.6, -69.6, -19.6])
    assert {round(np.ptp(ax.get_xlim()), 6) for ax in display.axes_} == {50.2}
    assert letters_at(display, -119) and letters_at(display, 0)
    check_nothing_is_cut_off(display.figure_)


def test_other_alphabets_and_given_axes():
    _, ax = pyplot.subplots()
    display = SequenceLogoDisplay.from_sequences(["MILV"] * 30, letters="protein").plot(ax)
    assert list(display.axes_) == [ax]
    assert [len(letters_at(display, place)) for place in range(1, 5)] == [1] * 4
    narrow, wide = letters_at(display, 2)[0], letters_at(display, 1)[0]
    assert narrow.x1 - narrow.x0 < wide.x1 - wide.x0


@pytest.mark.parametrize(
    ("rows", "message"), [([], "list of sequences is empty"), (["ACG", "AC"], "row 1 has 2 letters")]
)
def test_logo_refuses_unequal_or_empty_sequences(rows, message):
    with pytest.raises(InvalidDesignError, match=message):
        SequenceLogoDisplay.from_sequences(rows)
