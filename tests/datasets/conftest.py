"""A data archive on this machine: an HTTP server that counts requests and can break a download off."""

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest


@dataclass
class Archive:
    """Files by path; `sent` is the share of each file's bytes that the server sends."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sent: float = 1.0


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    archive = Archive()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            archive.requests.append(self.path)
            content = archive.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: int(archive.sent * len(content))])

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    archive.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield archive
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def geo_table() -> pd.DataFrame:
    """Sixty rows with the columns of GEO's table, in no order of reads."""
    rng = np.random.RandomState(0)
    return pd.DataFrame(
        {
            "utr": ["".join(row) for row in rng.choice(list("ACGT"), size=(60, 50))],
            "0": rng.uniform(size=60),
            "total_reads": rng.permutation(60) + 100.0,
            "rl": rng.uniform(2, 9, size=60),
        }
    )
