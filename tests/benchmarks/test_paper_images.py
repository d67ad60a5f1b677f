"""The parts of the experiment on pictures that its numbers rest on."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

pytest.importorskip("diffusers")

from paper_images_tables import judged
from paper_images_world import ANIMALS, JUNK, aesthetic, junk

from braidkit.oracles import PromptCheck


def test_the_aesthetic_counts_brightness_and_symmetry():
    white = np.full((1, 32, 32, 3), 255, np.uint8)
    half = white.copy()
    half[:, :, :16] = 0
    centred = white.copy()
    centred[:, :, :8] = centred[:, :, 24:] = 0
    np.testing.assert_allclose(aesthetic(np.concatenate([white, half, centred])), [12, 5, 7])
    np.testing.assert_allclose(aesthetic(white[..., 0]), 12)


def test_a_picture_without_its_animal_has_the_reward_0():
    images = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (0, 255, 255)])

    def scores(images):
        return np.eye(len(ANIMALS) + 1)[np.where(images.mean(axis=(1, 2, 3)) > 0, ANIMALS.index("cat"), len(ANIMALS))]

    check = PromptCheck.from_classifier(scores, [*ANIMALS, JUNK])
    reward, seen = judged(images, ["cat", "cat", "dog"], check)
    assert reward.tolist() == [0, 12, 0] and seen.tolist() == [False, True, False]


def test_junk_is_of_eight_kinds_and_none_is_the_picture():
    images = np.zeros((400, 32, 32), np.uint8)
    images[:, 8:20, 6:22] = 255
    wrong = junk(images, np.random.default_rng(0))
    assert wrong.shape == images.shape and wrong.dtype == np.uint8
    assert (wrong != images).any(axis=(1, 2)).mean() > 0.85
    assert len(np.unique(wrong.reshape(400, -1), axis=0)) > 100
