"""Pictures from files."""

import numpy as np
import pytest

from braidkit.datasets import read_images
from braidkit.exceptions import InvalidDesignError, InvalidParameterError

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def files(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, size=(3, 8, 6, 3), dtype=np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths, pixels


def test_files_and_open_pictures_are_read_alike(files):
    paths, pixels = files
    assert np.array_equal(read_images(paths), pixels)
    assert np.array_equal(read_images([str(path) for path in paths]), pixels)
    assert np.array_equal(read_images([Image.open(path) for path in paths]), pixels)
    assert read_images(paths, channels=1).shape == (3, 8, 6)


def test_grey_pictures_become_colour_ones(tmp_path):
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / "grey.png")
    assert read_images([tmp_path / "grey.png"]).tolist() == np.full((1, 4, 4, 3), 7).tolist()


def test_sizes_must_agree_unless_one_is_asked_for(files, tmp_path):
    paths, _ = files
    Image.new("RGB", (20, 10)).save(tmp_path / "large.png")
    with pytest.raises(InvalidDesignError, match=r"row 3: .*large.png is 10 x 20 pixels, and row 0 is 8 x 6"):
        read_images([*paths, tmp_path / "large.png"])
    assert read_images([*paths, tmp_path / "large.png"], size=(5, 4)).shape == (4, 5, 4, 3)


def test_broken_files_are_named(files, tmp_path):
    paths, _ = files
    whole = paths[1].read_bytes()
    for content in (b"", b"no picture", whole[: len(whole) // 2]):
        paths[1].write_bytes(content)
        with pytest.raises(InvalidDesignError, match=r"row 1: .*1\.png cannot be read as a picture"):
            read_images(paths)
    with pytest.raises(InvalidDesignError, match=r"row 0: .*nowhere\.png cannot be read"):
        read_images([tmp_path / "nowhere.png"])
    with pytest.raises(InvalidDesignError, match="no files"):
        read_images([])
    with pytest.raises(InvalidParameterError, match="channels must be 1 or 3; got 4"):
        read_images(paths, channels=4)


def test_transparent_pictures_are_put_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "hidden.png")
    indexed = Image.new("P", (2, 2))
    indexed.putpalette([0, 0, 0, 255, 255, 255])
    indexed.save(tmp_path / "indexed.png", transparency=0)
    assert (read_images([tmp_path / "hidden.png", tmp_path / "indexed.png"]) == 255).all()


def test_photographs_are_turned_upright(tmp_path):
    photograph = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned to the left
    photograph.save(tmp_path / "turned.png", exif=exif)
    assert read_images([tmp_path / "turned.png"], channels=1)[0].tolist() == [[3, 0], [4, 1], [5, 2]]


def test_sixteen_bits_become_eight_and_floats_are_refused(tmp_path):
    levels = np.array([[0, 257 * 7], [257 * 200, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert read_images([tmp_path / "deep.png"], channels=1)[0].tolist() == [[0, 7], [200, 255]]
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(InvalidDesignError, match=r"floats.tiff cannot be read .*its pixels are floats"):
        read_images([tmp_path / "floats.tiff"])
