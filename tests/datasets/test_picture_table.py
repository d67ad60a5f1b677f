"""Tables of measured pictures."""

import numpy as np
import pytest

from braidkit import ImageSpace
from braidkit.datasets import read_pictures
from braidkit.datasets.picture_table import read_picture_files
from braidkit.exceptions import InvalidDesignError, InvalidParameterError, InvalidTargetError

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def table(tmp_path):
    """Three colour pictures and a grey one, of 4 x 6 pixels; one is measured twice, one not at all."""
    pixels = np.random.default_rng(0).integers(0, 256, size=(4, 4, 6, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image[..., 0] if i == 2 else image).save(tmp_path / f"{i}.png")
    path = tmp_path / "t.csv"
    path.write_text("image,y\n0.png,1\n1.png,2\n0.png,3\n2.png,5\n3.png,NA\n")
    return path, pixels


def test_pictures_are_read_from_paths_relative_to_the_table_with_their_measurements(table):
    path, pixels = table
    read = read_pictures(path, target="y")
    assert read.files == ["0.png", "1.png", "2.png"] and read.y.tolist() == [2, 2, 5]
    assert np.array_equal(read.X[:2], pixels[:2])
    assert read.X[2].tolist() == np.repeat(pixels[2, ..., :1], 3, axis=2).tolist()
    assert read.space.to_config() == ImageSpace(4, 6, 3).to_config()
    assert read.describe().startswith(
        "read 5 rows: 3 kept (1 duplicate averaged, 1 without y dropped, 1 grey, such as 2.png, read as colour); "
        "colour pictures of 4 x 6 pixels; target 5/50/95 %"
    )
    other = read_pictures(path, target="y", space=ImageSpace(4, 6, 1))
    assert other.X.shape == (3, 4, 6) and "2 in colour, such as 0.png, read as grey" in other.describe()
    assert other.digest() != read.digest()


def test_other_sizes_are_refused_or_cut_and_scaled(table, tmp_path):
    path, _ = table
    Image.new("RGB", (30, 20), "red").save(tmp_path / "1.png")
    with pytest.raises(InvalidDesignError, match=r"line 3 of .*: 1.png has 20 x 30 pixels, not 4 x 6, the commonest"):
        read_pictures(path, target="y")
    read = read_pictures(path, target="y", resize=True)
    assert read.X[1].tolist() == np.broadcast_to([255, 0, 0], (4, 6, 3)).tolist()
    assert "1 cut and scaled" in read.describe()
    with pytest.raises(InvalidDesignError, match=r"not 8 x 8, what is wanted here, grey pictures of 8 x 8.*4 rows"):
        read_pictures(path, target="y", space=ImageSpace(8, 8, 1))


def test_unreadable_pictures_are_named_and_dropped_on_demand(table, tmp_path):
    path, _ = table
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    with pytest.raises(InvalidDesignError, match=r"line 2 of .*: 0.png cannot be read \(no picture: .*\(2 rows are so"):
        read_pictures(path, target="y")
    (tmp_path / "0.png").unlink()
    with pytest.raises(InvalidDesignError, match=r"0.png cannot be read \(there is no such file\)"):
        read_pictures(path, target="y")
    read = read_pictures(path, target="y", on_broken="drop")
    assert read.files == ["1.png", "2.png"]
    assert "2 whose picture cannot be read (0.png) dropped" in read.describe()
    for i in (1, 2):
        (tmp_path / f"{i}.png").unlink()
    with pytest.raises(InvalidDesignError, match="no row to learn from"):
        read_pictures(path, target="y", on_broken="drop")


def test_pictures_of_rows_without_a_measurement_are_not_read(table, tmp_path):
    path, _ = table
    (tmp_path / "3.png").unlink()
    assert len(read_pictures(path, target="y").files) == 3


def test_wrong_tables_of_pictures_are_refused(table, tmp_path):
    path, _ = table
    with pytest.raises(InvalidParameterError, match="has no column 'picture'"):
        read_pictures(path, target="y", image="picture")
    with pytest.raises(InvalidParameterError, match="cannot be the pictures and the target"):
        read_pictures(path, target="y", image="y")
    with pytest.raises(InvalidParameterError, match="on_broken must be"):
        read_pictures(path, target="y", on_broken="skip")
    path.write_text("image,y\n0.png,1\n,2\n")
    with pytest.raises(InvalidDesignError, match="line 3 of .*: 'image' is empty"):
        read_pictures(path, target="y")
    path.write_text("image,y\n0.png,1\n1.png,1\n")
    with pytest.raises(InvalidTargetError, match="constant target"):
        read_pictures(path, target="y")


def test_pictures_without_measurements_are_read_in_their_order(table):
    path, pixels = table
    names, X = read_picture_files(path, ImageSpace(4, 6, 3))
    assert names == ["0.png", "1.png", "0.png", "2.png", "3.png"]
    assert np.array_equal(X[[0, 1, 2, 4]], pixels[[0, 1, 0, 3]])
