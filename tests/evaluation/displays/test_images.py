import numpy as np
import pytest

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, ImageSpace, PixelDiffusion
from braidkit.evaluation import ImageGridDisplay, report
from braidkit.exceptions import IncompatibleModelError, InvalidDesignError, InvalidParameterError


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).random((60, 4, 6))
    return pixels * np.linspace(0.2, 1, 60)[:, None, None]


@pytest.fixture(scope="module")
def finetuner(images):
    pytest.importorskip("diffusers")
    chain = PixelDiffusion(ImageSpace(4, 6, 1), n_steps=3, n_channels=8).fit(images, max_iter=2, random_state=0)
    settings = {"reward": GPBonusReward(max_iter=2), "max_iter": 2, "batch_size": 8, "random_state": 0}
    return ConservativeDiffusionFinetuner(chain, **settings).fit(images, images.mean(axis=(1, 2)))


def cells(ax):
    """The pixels of each drawn image, with its left and upper end."""
    return [(*(round(end, 2) for end in (image.get_extent()[0], image.get_extent()[3])), image) for image in ax.images]


def test_every_image_is_in_its_cell_with_its_number(images, texts, check_nothing_is_cut_off):
    groups = {"grey": images[:5], "other $name$": images[5:7]}
    numbers = {"grey": np.arange(5), "other $name$": [0.25, 0.5]}
    display = ImageGridDisplay(groups, numbers, name="score", n_columns=3).plot()
    drawn = cells(display.ax_)
    # Five images of the first group take two rows, then the second group begins.
    assert [left for left, _, _ in drawn] == [0, 1, 2, 0, 1, 0, 1]
    tops = [top for _, top, _ in drawn]
    assert tops[0] == tops[2] > tops[3] == tops[4] > tops[5] == tops[6]
    for (_, _, image), expected in zip(drawn, images[:7], strict=True):
        assert np.array_equal(image.get_array(), expected) and image.get_clim() == (0, 1)
    assert texts(display.ax_) == ["0", "1", "2", "3", "4", "0.25", "0.5"]
    assert display.ax_.get_xlabel() == "score"
    check_nothing_is_cut_off(display.figure_)


def test_coloured_images_of_8_bits_without_numbers(texts):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    display = ImageGridDisplay({"colours": pixels}).plot()
    assert texts(display.ax_) == [] and np.array_equal(display.ax_.images[1].get_array(), pixels[1])


def test_an_estimators_grid_has_the_best_measured_and_the_same_noise(finetuner, images):
    y = images.mean(axis=(1, 2))
    display = ImageGridDisplay.from_estimator(finetuner, images, y, n_designs=4, random_state=0)
    assert list(display.images) == ["best measured", "pretrained", "fine-tuned"]
    assert np.array_equal(display.images["best measured"], images[np.argsort(-y)[:4]])
    before, after = display.images["pretrained"], display.images["fine-tuned"]
    apart = np.abs(before[:, None] - after[None]).mean(axis=(2, 3))
    assert (apart.argmin(axis=1) == np.arange(4)).all()
    np.testing.assert_allclose(display.numbers["fine-tuned"], finetuner.judge_.predict(after))
    assert list(ImageGridDisplay.from_estimator(finetuner, n_designs=2).images) == ["pretrained", "fine-tuned"]


def test_the_report_of_images_shows_a_grid(finetuner, images, tmp_path):
    report(finetuner, path=tmp_path / "page.html", random_state=0)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<h2>Before and after</h2>") == 1 and 'alt="Grid of images"' in page


def test_what_is_no_grid_of_images_is_refused(images):
    with pytest.raises(InvalidDesignError, match=r"'a' must have images of shape .* got \(60, 24\)"):
        ImageGridDisplay({"a": images.reshape(60, 24)})
    with pytest.raises(InvalidDesignError, match="must have images of shape"):
        ImageGridDisplay({"a": images[:0]})
    with pytest.raises(InvalidDesignError, match=r"all images must have the same size; got \[\(3, 6\), \(4, 6\)\]"):
        ImageGridDisplay({"a": images, "b": images[:, :3]})
    with pytest.raises(InvalidParameterError, match="numbers must have 2 for 'a', one for each image"):
        ImageGridDisplay({"a": images[:2]}, {"a": [1.0]})
    with pytest.raises(InvalidParameterError, match="images is empty"):
        ImageGridDisplay({})
    X = np.random.default_rng(0).normal(size=(60, 2))
    settings = {"reward": GPBonusReward(max_iter=2), "max_iter": 1, "batch_size": 8, "random_state": 0}
    vectors = ConservativeDiffusionFinetuner(**settings).fit(X, X[:, 0])
    with pytest.raises(IncompatibleModelError, match="which are no images"):
        ImageGridDisplay.from_estimator(vectors)
