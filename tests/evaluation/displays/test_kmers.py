import numpy as np
import pytest

from braidkit.evaluation import kmer_jensen_shannon, kmer_pearson
from braidkit.evaluation.displays import KmerScatterDisplay


def test_every_kmer_has_its_two_shares(texts, check_nothing_is_cut_off):
    reference, designs = ["AAAC", "CCAA"], ["CCCC", "ACCC"]
    display = KmerScatterDisplay.from_sequences(designs, reference, k=2).plot()
    assert display.kmers == ["AA", "AC", "CA", "CC"]
    assert display.reference.tolist() == pytest.approx([3 / 6, 1 / 6, 1 / 6, 1 / 6])
    assert display.designs.tolist() == pytest.approx([0, 1 / 6, 0, 5 / 6])
    assert display.pearson == kmer_pearson(designs, reference, k=2)
    assert display.divergence == kmer_jensen_shannon(designs, reference, k=2)
    points = display.ax_.lines[1]
    assert points.get_xdata() == pytest.approx(100 * display.reference)
    assert points.get_ydata() == pytest.approx(100 * display.designs)
    # Furthest from the diagonal first; what lies on it has no name.
    assert texts(display.ax_) == ["CC", "AA", "CA"]
    check_nothing_is_cut_off(display.figure_)


def test_names_do_not_cover_each_other(rng):
    rows = ["".join(row) for row in rng.choice(list("ACGT"), (50, 20))]
    display = KmerScatterDisplay.from_sequences(["A" * 20, "T" * 20, *rows[:25]], rows[25:], k=3).plot()
    display.figure_.canvas.draw()
    boxes = [text.get_window_extent() for text in display.ax_.texts]
    assert 2 <= len(boxes) <= 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_equal_sets_lie_on_the_diagonal(texts):
    display = KmerScatterDisplay.from_sequences(["ACGT"], ["ACGT"], k=1).plot()
    assert np.array_equal(display.reference, display.designs) and texts(display.ax_) == []
