import json
import socket
import sys
from pathlib import Path

import pytest

from braidkit.datasets._fetch import data_folder, fetch_file
from braidkit.exceptions import DownloadError, MissingExtraError

CONTENT = bytes(range(256)) * 40


def accept(path: Path) -> None:
    pass


@pytest.fixture
def url(archive) -> str:
    archive.files["/suppl/table.gz"] = CONTENT
    return f"{archive.url}/suppl/table.gz"


def test_download_is_kept_with_its_checksum(archive, url, tmp_path):
    seen = []
    path = fetch_file(url, tmp_path / "new" / "folder", check=lambda fresh: seen.append(fresh.read_bytes()))
    assert path == tmp_path / "new" / "folder" / "table.gz"
    assert path.read_bytes() == CONTENT and seen == [CONTENT]
    record = json.loads((path.parent / "table.gz.json").read_text())
    assert record == {
        "url": url,
        "sha256": "e96760a87768717bcebcfd25ddc7d46b4dbc95a4b0014def080c08539f7d90d0",
        "bytes": len(CONTENT),
    }
    assert {p.name for p in path.parent.iterdir()} == {"table.gz", "table.gz.json"}


def test_fetch_downloads_once(archive, url, tmp_path):
    for _ in range(2):
        fetch_file(url, tmp_path, check=accept)
    assert archive.requests == ["/suppl/table.gz"]


def test_broken_download_leaves_nothing(archive, url, tmp_path):
    archive.sent = 0.5
    with pytest.raises(DownloadError, match=r"table\.gz could not be downloaded .*check the connection"):
        fetch_file(url, tmp_path, check=accept)
    assert list(tmp_path.iterdir()) == []
    archive.sent = 1.0
    assert fetch_file(url, tmp_path, check=accept).read_bytes() == CONTENT


def test_download_that_fails_its_check_leaves_nothing(url, tmp_path):
    def refuse(path: Path) -> None:
        raise DownloadError("not what was expected")

    with pytest.raises(DownloadError, match="not what was expected"):
        fetch_file(url, tmp_path, check=refuse)
    assert list(tmp_path.iterdir()) == []


def test_later_download_is_held_against_the_first(archive, url, tmp_path):
    path = fetch_file(url, tmp_path, check=accept)
    path.unlink()
    archive.files["/suppl/table.gz"] = CONTENT[::-1]
    with pytest.raises(DownloadError, match=r"not the file that was downloaded before .*delete .*table\.gz\.json"):
        fetch_file(url, tmp_path, check=accept)
    assert not path.exists()
    archive.files["/suppl/table.gz"] = CONTENT
    assert fetch_file(url, tmp_path, check=accept).read_bytes() == CONTENT


def test_changed_cache_is_refused(url, tmp_path):
    path = fetch_file(url, tmp_path, check=accept)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match="SHA-256 checksum differs .*delete both files"):
        fetch_file(url, tmp_path, check=accept)


def test_no_server(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match=r"could not be downloaded .*put table\.gz into"):
        fetch_file(f"http://127.0.0.1:{port}/table.gz", tmp_path, check=accept)
    assert list(tmp_path.iterdir()) == []


def test_file_that_the_server_does_not_have(archive, tmp_path):
    with pytest.raises(DownloadError, match="404"):
        fetch_file(f"{archive.url}/other.gz", tmp_path, check=accept)


def test_download_not_allowed(archive, url, tmp_path):
    with pytest.raises(DownloadError, match="download_if_missing=False"):
        fetch_file(url, tmp_path, check=accept, download_if_missing=False)
    assert archive.requests == []


def test_missing_pooch_is_named(url, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'braidkit\[data\]'"):
        fetch_file(url, tmp_path, check=accept)


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAIDKIT_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder("here") == Path("here")
    monkeypatch.delenv("BRAIDKIT_DATA")
    assert data_folder() == Path.home() / "braidkit_data"


def test_a_download_without_end_is_ended(url, tmp_path, monkeypatch):
    monkeypatch.setattr("braidkit.datasets._streams.MAX_DOWNLOAD", 1000)
    with pytest.raises(DownloadError, match=r"table\.gz sends more than .* nothing was kept"):
        fetch_file(url, tmp_path, check=accept)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["ftp://example.org/table.gz", "file:///etc/table.gz", "table.gz"])
def test_fetch_refuses_other_url_schemes(tmp_path, address):
    with pytest.raises(DownloadError, match="is no address to download from"):
        fetch_file(address, tmp_path, check=accept)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_damaged_record_is_named(url, tmp_path, text):
    fetch_file(url, tmp_path, check=accept)
    (tmp_path / "table.gz.json").write_text(text)
    with pytest.raises(DownloadError, match=r"table\.gz\.json is damaged"):
        fetch_file(url, tmp_path, check=accept)


def test_downloads_show_no_bar_in_a_log_file(archive, tmp_path, capfd):
    archive.files["/t.bin"] = b"x" * 100_000
    fetch_file(f"{archive.url}/t.bin", tmp_path, check=lambda path: None)
    assert capfd.readouterr().err == ""
