"""Downloads from a server on this machine that can cut, lie, and forget."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from vmunet.data import download
from vmunet.data.isic import ISIC17
from vmunet.errors import InputError


def zip_bytes(seed: int = 0) -> bytes:
    """A zip of about 400 kB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/noise.bin", np.random.default_rng(seed).bytes(400_000))
    return out.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `content`; `cuts` are byte counts after which the next answers break off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = zip_bytes(), '"one"'
        self.cuts: list[int] = []
        self.failures: list[int] = []
        self.ranges: list[str | None] = []
        self.resumes = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/x.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.ranges.append(asked)
        if server.failures:
            self.send_error(server.failures.pop(0))
            return
        start = 0
        if asked and server.resumes and self.headers.get("If-Range") == server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        body = server.content[start:]
        if asked and start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.etag)
        if start:
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{last + 1}")
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_complete_checked_and_recorded(server, tmp_path):
    target = tmp_path / "deep" / "x.zip"
    assert download.fetch(server.url, target) == digest(server.content)
    assert target.read_bytes() == server.content
    assert names(target.parent) == ["x.zip", "x.zip.sha256"]
    assert digest(server.content) in (target.parent / "x.zip.sha256").read_text()


def test_a_finished_download_is_not_fetched_again(server, tmp_path):
    for _ in range(2):
        download.fetch(server.url, tmp_path / "x.zip", digest(server.content))
    assert len(server.ranges) == 1


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cuts = [150_000, 150_000]
    download.fetch(server.url, tmp_path / "x.zip", digest(server.content), wait=0)
    assert (tmp_path / "x.zip").read_bytes() == server.content
    starts = [int(r[6:-1]) for r in server.ranges[1:]]
    assert server.ranges[0] is None
    assert 0 < starts[0] <= 150_000 < starts[1] <= 300_000


def test_a_later_run_resumes_what_an_earlier_one_left(server, tmp_path):
    server.cuts = [200_000] + [0] * download.ATTEMPTS
    with pytest.raises(InputError, match=r"x\.zip: cannot be downloaded.*kept and resumed"):
        download.fetch(server.url, tmp_path / "x.zip", wait=0)
    assert names(tmp_path) == ["x.zip.part", "x.zip.part.json"]
    server.cuts, server.ranges = [], []
    download.fetch(server.url, tmp_path / "x.zip", digest(server.content), wait=0)
    assert len(server.ranges) == 1
    assert server.ranges[0] != "bytes=0-"
    assert names(tmp_path) == ["x.zip", "x.zip.sha256"]


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server, tmp_path):
    server.cuts = [200_000] + [0] * download.ATTEMPTS
    with pytest.raises(InputError):
        download.fetch(server.url, tmp_path / "x.zip", wait=0)
    server.cuts, server.content, server.etag = [], zip_bytes(seed=1), '"two"'
    download.fetch(server.url, tmp_path / "x.zip", digest(server.content), wait=0)
    assert (tmp_path / "x.zip").read_bytes() == server.content


def test_a_server_without_ranges_is_asked_again_from_the_start(server, tmp_path):
    server.resumes, server.cuts = False, [150_000]
    download.fetch(server.url, tmp_path / "x.zip", digest(server.content), wait=0)
    assert (tmp_path / "x.zip").read_bytes() == server.content


def test_a_complete_part_is_only_checked_and_renamed(server, tmp_path):
    download.fetch(server.url, tmp_path / "x.zip", wait=0)
    part = tmp_path / "x.zip.part"
    (tmp_path / "x.zip").rename(part)
    known = f'{{"url": "{server.url}", "validator": "\\"one\\"", "total": {len(server.content)}}}'
    (tmp_path / "x.zip.part.json").write_text(known)
    download.fetch(server.url, tmp_path / "x.zip", wait=0)
    assert server.ranges[-1] == f"bytes={len(server.content)}-"
    assert names(tmp_path) == ["x.zip", "x.zip.sha256"]


def test_a_busy_server_is_tried_again(server, tmp_path):
    server.failures = [503, 500]
    download.fetch(server.url, tmp_path / "x.zip", wait=0)
    assert (tmp_path / "x.zip").exists()


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(
        InputError, match=f"sha256 is {digest(server.content)}, expected {'0' * 64}"
    ):
        download.fetch(server.url, tmp_path / "x.zip", "0" * 64, wait=0)
    assert names(tmp_path) == []


def test_a_web_page_is_not_recorded_as_an_archive(server, tmp_path):
    server.content = b"<html>Please sign in</html>"
    with pytest.raises(InputError, match="not a zip"):
        download.fetch(server.url, tmp_path / "x.zip", wait=0)
    assert names(tmp_path) == []


def test_an_archive_without_a_published_sum_is_held_to_its_first(server, tmp_path):
    first = download.fetch(server.url, tmp_path / "x.zip", wait=0)
    (tmp_path / "x.zip").unlink()
    server.content, server.etag = zip_bytes(seed=1), '"two"'
    with pytest.raises(InputError, match=f"expected {first}"):
        download.fetch(server.url, tmp_path / "x.zip", wait=0)


def test_a_finished_file_that_was_changed_is_named(server, tmp_path):
    download.fetch(server.url, tmp_path / "x.zip", wait=0)
    (tmp_path / "x.zip").write_bytes(zip_bytes(seed=2))
    with pytest.raises(InputError, match=r"x\.zip: its sha256 is .* delete it and run again"):
        download.fetch(server.url, tmp_path / "x.zip", wait=0)


def test_a_missing_file_is_said_at_once(server, tmp_path):
    server.failures = [404]
    with pytest.raises(InputError, match=r"x\.zip: the server answers 404"):
        download.fetch(server.url, tmp_path / "x.zip")
    assert len(server.ranges) == 1
    assert names(tmp_path) == []


def test_an_unset_mirror_says_what_to_set():
    with pytest.raises(InputError, match=r"VMUNET_MIRROR is not set.*isic17/ISIC-2017_Training"):
        download.from_mirror(ISIC17, None)


def test_an_archive_missing_from_the_mirror_is_named(tmp_path):
    (tmp_path / "isic17").mkdir()
    (tmp_path / "isic17" / ISIC17.archives[0].name).write_bytes(zip_bytes())
    with pytest.raises(InputError, match=r"isic17/ISIC-2017_Training_Part1_GroundTruth\.zip: not"):
        download.from_mirror(ISIC17, str(tmp_path))
