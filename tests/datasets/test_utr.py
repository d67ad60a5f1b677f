import gzip

import numpy as np
import pandas as pd
import pytest

from braidkit.datasets import fetch_utr
from braidkit.datasets.utr import FILE_NAME
from braidkit.exceptions import DownloadError, InvalidParameterError


def gzipped(table: pd.DataFrame) -> bytes:
    return gzip.compress(table.to_csv().encode())


def publish(archive, table: pd.DataFrame) -> str:
    archive.files[f"/{FILE_NAME}"] = gzipped(table)
    return archive.url


def test_rows_with_most_reads_first(archive, geo_table, tmp_path):
    utr = fetch_utr(tmp_path, n_rows=20, base_url=publish(archive, geo_table))
    best = geo_table.sort_values("total_reads", ascending=False).head(20)
    assert utr.data.tolist() == best["utr"].tolist()
    np.testing.assert_array_equal(utr.target, best["rl"])
    assert utr.frame.columns.tolist() == ["sequence", "mrl", "total_reads"]
    assert utr.frame["total_reads"].is_monotonic_decreasing
    assert "GSM3130435" in utr.DESCR


def test_fetch_utr_reads_its_cache(archive, geo_table, tmp_path):
    url = publish(archive, geo_table)
    first = fetch_utr(tmp_path, n_rows=60, base_url=url)
    X, y = fetch_utr(tmp_path, n_rows=None, return_X_y=True, base_url=f"{url}/", download_if_missing=False)
    assert archive.requests == [f"/{FILE_NAME}"]
    np.testing.assert_array_equal(first.data, X)
    np.testing.assert_array_equal(first.target, y)


def test_fetch_utr_knows_both_names_of_the_read_count(archive, geo_table, tmp_path):
    url = publish(archive, geo_table.rename(columns={"total_reads": "total"}))
    assert fetch_utr(tmp_path, n_rows=5, base_url=url).frame["total_reads"].iloc[0] == 159


def test_unusable_rows_are_left_out(archive, geo_table, tmp_path):
    geo_table.loc[3, "utr"] = "ACGT"
    geo_table.loc[5, "utr"] = "N" * 50
    geo_table.loc[7, "rl"] = np.nan
    utr = fetch_utr(tmp_path, n_rows=None, base_url=publish(archive, geo_table))
    assert set(utr.data) == set(geo_table["utr"].drop([3, 5, 7]))


@pytest.mark.parametrize("column", ["utr", "rl", "total_reads"])
def test_wrong_columns_are_named_and_nothing_is_kept(archive, geo_table, tmp_path, column):
    url = publish(archive, geo_table.rename(columns={column: "other"}))
    with pytest.raises(DownloadError, match=f"no column '{column}'.*other.*nothing was kept"):
        fetch_utr(tmp_path, base_url=url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>sorry</html>", b""], ids=["a page", "empty"])
def test_download_that_is_no_table(archive, tmp_path, content):
    archive.files[f"/{FILE_NAME}"] = content
    with pytest.raises(DownloadError, match="not a complete gzipped CSV file .*nothing was kept"):
        fetch_utr(tmp_path, base_url=archive.url)
    assert list(tmp_path.iterdir()) == []


def test_cut_file_put_there_by_hand(geo_table, tmp_path):
    content = gzipped(geo_table)
    (tmp_path / FILE_NAME).write_bytes(content[: len(content) // 2])
    with pytest.raises(DownloadError, match="not a complete gzipped CSV file .*delete it from"):
        fetch_utr(tmp_path)


def test_too_many_rows_asked_for(archive, geo_table, tmp_path):
    with pytest.raises(InvalidParameterError, match="n_rows=280,000, but .* has 60 usable rows"):
        fetch_utr(tmp_path, base_url=publish(archive, geo_table))


@pytest.mark.parametrize("n_rows", [0, 1.5, "all"])
def test_bad_n_rows(n_rows, tmp_path):
    with pytest.raises(InvalidParameterError, match="n_rows must be a whole number"):
        fetch_utr(tmp_path, n_rows=n_rows)


def test_prepared_table_is_read_without_a_download(archive, geo_table, tmp_path):
    prepared = pd.DataFrame({"sequence": geo_table["utr"], "mrl": geo_table["rl"]})
    (tmp_path / "utr_mrl.csv.gz").write_bytes(gzipped(prepared))
    utr = fetch_utr(tmp_path, n_rows=10, base_url=archive.url)
    pd.testing.assert_frame_equal(utr.frame, prepared.head(10))
    assert archive.requests == []


def test_prepared_table_with_other_columns(geo_table, tmp_path):
    (tmp_path / "utr_mrl.csv.gz").write_bytes(gzipped(geo_table))
    with pytest.raises(DownloadError, match="no column 'sequence'.*replace it"):
        fetch_utr(tmp_path)


@pytest.mark.data
def test_measured_table(data_dir):
    X, y = fetch_utr(data_dir, return_X_y=True)
    assert X.shape == y.shape == (280_000,)
    assert y.mean() == pytest.approx(6.474, abs=5e-4)
    assert np.quantile(y, 0.6) == pytest.approx(7.460, abs=5e-4)
