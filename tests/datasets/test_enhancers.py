import numpy as np
import pandas as pd
import pytest

from braidkit.datasets import fetch_enhancers
from braidkit.datasets.enhancers import FILE_NAME
from braidkit.exceptions import DownloadError, InvalidParameterError


@pytest.fixture
def table():
    """Forty rows with the columns of the published table, and three that are left out."""
    rng = np.random.RandomState(0)
    sequences = ["".join(row) for row in rng.choice(list("ACGT"), size=(40, 200))]
    frame = pd.DataFrame({"IDs": np.arange(40), "chr": "7", "data_project": "UKBB", "OL": 15, "class": "BMI,BFP"})
    for cell in ("K562", "HepG2", "SKNSH"):
        frame[f"{cell}_log2FC"], frame[f"{cell}_lfcSE"] = rng.normal(size=40), rng.uniform(0.1, 0.9, size=40)
    frame["sequence"] = sequences
    frame.loc[3, "sequence"] = "ACGT"
    frame.loc[5, "SKNSH_lfcSE"] = 1.5
    frame.loc[7, "HepG2_log2FC"] = np.nan
    return frame


def publish(archive, table):
    archive.files[f"/{FILE_NAME}"] = table.to_csv(sep="\t", index=False, na_rep="NA").encode()
    return archive.url


def test_enhancers_of_a_cell_type(archive, table, tmp_path):
    found = fetch_enhancers(tmp_path, base_url=publish(archive, table))
    kept = table.drop([3, 5, 7])
    assert found.data.tolist() == kept["sequence"].tolist()
    np.testing.assert_allclose(found.target, kept["HepG2_log2FC"])
    np.testing.assert_allclose(found.target_error, kept["HepG2_lfcSE"])
    assert list(found.frame) == ["sequence", "hepg2", "k562", "sknsh", "hepg2_se", "k562_se", "sknsh_se"]
    X, y = fetch_enhancers(tmp_path, cell="SK-N-SH", max_error=None, return_X_y=True, download_if_missing=False)
    assert archive.requests == [f"/{FILE_NAME}"]
    kept = table.drop(3)
    assert X.tolist() == kept["sequence"].tolist()
    np.testing.assert_allclose(y, kept["SKNSH_log2FC"])
    assert "10698014" in found.DESCR


@pytest.mark.parametrize("column", ["sequence", "HepG2_log2FC", "SKNSH_lfcSE"])
def test_enhancers_of_other_columns_are_named_and_nothing_is_kept(archive, table, tmp_path, column):
    url = publish(archive, table.rename(columns={column: "other"}))
    with pytest.raises(DownloadError, match=f"no column '{column}'.*other.*nothing was kept"):
        fetch_enhancers(tmp_path, base_url=url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>sorry</html>", b"", b"\x1f\x8b\x00\xff"], ids=["page", "empty", "gzip"])
def test_a_download_of_no_enhancers(archive, tmp_path, content):
    archive.files[f"/{FILE_NAME}"] = content
    with pytest.raises(DownloadError, match="nothing was kept"):
        fetch_enhancers(tmp_path, base_url=archive.url)
    assert list(tmp_path.iterdir()) == []


def test_a_download_of_enhancers_that_breaks_off_is_not_kept(archive, table, tmp_path):
    url = publish(archive, table)
    archive.sent = 0.5
    with pytest.raises(DownloadError):
        fetch_enhancers(tmp_path, base_url=url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "HeLa"}, 'cell must be "HepG2", "K562" or "SK-N-SH"; got'),
        ({"max_error": 0}, "max_error must be a number above 0; got 0"),
        ({"max_error": "low"}, "max_error must be a number above 0"),
        ({"max_error": 1e-9}, "no row of .* has errors below max_error=1e-09"),
    ],
)
def test_wrong_arguments_for_enhancers(archive, table, tmp_path, options, message):
    with pytest.raises(InvalidParameterError, match=message):
        fetch_enhancers(tmp_path, base_url=publish(archive, table), **options)
