"""Tables of designs that are pictures."""

import numpy as np
import pytest

from braidkit import ConservativeDiffusionFinetuner, GPBonusReward, ImageSpace, PixelDiffusion
from braidkit.evaluation import (
    CalibrationReport,
    RewardDistributionDisplay,
    picture_table,
    report,
    write_images,
)
from braidkit.evaluation.picture_designs import _best_of_each, prompts_in_turn
from braidkit.exceptions import IncompatibleModelError, InvalidParameterError

pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def measured():
    pixels = np.random.default_rng(0).random((60, 4, 6)) * np.linspace(0.2, 1, 60)[:, None, None]
    X = np.round(255 * pixels).astype(np.uint8)
    return X, X.mean(axis=(1, 2)) / 255


@pytest.fixture(scope="module")
def finetuner(measured):
    chain = PixelDiffusion(ImageSpace(4, 6, 1), n_steps=3, n_channels=8).fit(measured[0], max_iter=2, random_state=0)
    settings = {"reward": GPBonusReward(max_iter=2), "max_iter": 2, "batch_size": 8, "random_state": 0}
    return ConservativeDiffusionFinetuner(chain, **settings).fit(*measured)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_best_bounds_of_the_candidates_are_given_with_their_figures(finetuner, measured):
    X, y = measured
    some = picture_table(finetuner, X, y, n_designs=4, n_candidates=12, random_state=0)
    every = picture_table(finetuner, X, y, n_designs=12, n_candidates=12, random_state=0)
    table = every.table
    assert table["lower"].is_monotonic_decreasing
    np.testing.assert_array_equal(some.images, every.images[:4])
    np.testing.assert_allclose(table["lower"], finetuner.reward_.predict_lower(every.images), rtol=1e-5)
    apart = np.sqrt(((every.images[:, None] / 255.0 - X[None] / 255.0) ** 2).mean(axis=(2, 3)))
    np.testing.assert_allclose(table["distance"], apart.min(axis=1), rtol=1e-4)
    assert table["nearest"].tolist() == [str(i) for i in apart.argmin(axis=1)]
    assert (table["kl"] >= 0).all() and "prompt" not in table
    contrast = (every.images / 255.0).reshape(12, -1).std(axis=1)
    low, high = np.quantile((X / 255.0).reshape(60, -1).std(axis=1), [0.005, 0.995])
    flagged = table["flags"].str.contains("contrast outside that of 99 % of measured ones")
    assert flagged.tolist() == ((contrast < low) | (contrast > high)).tolist()


def test_each_prompt_has_as_many_designs_or_one_more():
    lower = np.array([5.0, 4, 3, 2, 1, 0])
    assert _best_of_each(lower, None, 3).tolist() == [0, 1, 2]
    assert _best_of_each(lower, ["a", "a", "a", "b", "b", "b"], 4).tolist() == [0, 1, 3, 4]
    assert _best_of_each(lower[::-1], ["a", "b"] * 3, 3).tolist() == [5, 4, 3]
    assert prompts_in_turn(object(), 3) is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_report_shows_the_designs_that_were_chosen(finetuner, measured, tmp_path):
    designs = picture_table(finetuner, *measured, n_designs=3, random_state=0)
    report(finetuner, *measured, path=tmp_path / "page.html", designs=designs, random_state=0)
    page = (tmp_path / "page.html").read_text()
    assert "Grid of the designs" in page and "design_3" in page and "edit distance" not in page
    assert write_images(designs.images, tmp_path) == ["design_1.png", "design_2.png", "design_3.png"]
    broken = designs._replace(table=designs.table.drop(columns="mean"))
    with pytest.raises(InvalidParameterError, match="designs has no column 'mean'"):
        report(finetuner, *measured, path=tmp_path / "page.html", designs=broken)
    with pytest.raises(InvalidParameterError, match="rewards must be a RewardDistributionDisplay"):
        report(finetuner, *measured, path=tmp_path / "page.html", rewards=3)


def test_few_pictures_are_drawn_where_many_sequences_would_be(finetuner, measured, monkeypatch):
    drawn = []
    sample = PixelDiffusion.sample

    def counted(self, n_samples=1, *args, **options):
        drawn.append(n_samples)
        return sample(self, n_samples, *args, **options)

    monkeypatch.setattr(PixelDiffusion, "sample", counted)
    RewardDistributionDisplay.from_estimator(finetuner, *measured, random_state=0)
    CalibrationReport.from_estimator(finetuner, *measured, backtest=False, random_state=0)
    assert drawn == [50, 50, 50]


def test_wrong_arguments_are_refused_by_name(finetuner, measured, run):
    with pytest.raises(IncompatibleModelError, match="picture_table is for pictures"):
        picture_table(run.finetuner, run.X, run.y)
    with pytest.raises(InvalidParameterError, match="n_designs"):
        picture_table(finetuner, *measured, n_designs=0)
    with pytest.raises(InvalidParameterError, match="files has 1 names for 60 pictures"):
        picture_table(finetuner, *measured, n_designs=1, files=["a.png"])
