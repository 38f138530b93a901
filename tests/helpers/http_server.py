"""A real HTTP server on this machine with faults: cut answers, false headers, delays, redirects."""

import hashlib
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

LOGIN = b"<!DOCTYPE html><html>Please sign in</html>"
BLOCK = 1 << 16
DATE = "Wed, 01 Feb 2017 12:00:00 GMT"


def zip_bytes(seed: int = 0, size: int = 400_000) -> bytes:
    """A zip of about `size` bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/noise.bin", np.random.default_rng(seed).bytes(size))
    return out.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` by path, and `content` at any other path.

    Attributes:
        content, etag: the served bytes and their ETag.
        cuts: the numbers of bytes after which the next answers break off.
        failures: status codes of the next answers; `retry_after` becomes their Retry-After.
        broken: paths, each with the status that it always answers.
        redirects: paths, each with the address that it leads to.
        silent: paths whose answer stops after its first block, until the server ends.
        dated: whether a 200 has a date instead of an ETag as validator, and a 206 neither.
        resumes: whether the header Range is followed.
        pause: seconds before every block of 64 KiB.
        announced: a false Content-Length.
        paths, ranges, times: the paths, Range headers and times of the requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = zip_bytes(), '"one"'
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.failures: list[int] = []
        self.retry_after: str | None = None
        self.broken: dict[str, int] = {}
        self.redirects: dict[str, str] = {}
        self.silent: set[str] = set()
        self.ended = threading.Event()
        self.dated = False
        self.resumes = True
        self.pause = 0.0
        self.announced: int | None = None
        self.paths: list[str] = []
        self.ranges: list[str | None] = []
        self.times: list[float] = []

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.base}/x.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.paths.append(self.path)
        server.ranges.append(asked)
        server.times.append(time.monotonic())
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = server.broken.get(self.path) or (server.failures and server.failures.pop(0))
        if status:
            self.send_response(status)
            if server.retry_after:
                self.send_header("Retry-After", server.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.headers.get("If-None-Match") == server.etag:
            self.send_response(304)
            self.end_headers()
            return
        content = server.files.get(self.path, server.content)
        start = 0
        validator = DATE if server.dated else server.etag
        if asked and server.resumes and self.headers.get("If-Range") == validator:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "application/zip")
        self.send_header("Content-Length", str(server.announced or len(body)))
        if not server.dated:
            self.send_header("ETag", server.etag)
        elif not start:
            self.send_header("Last-Modified", DATE)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        body = body[:cut]
        try:
            for first in range(0, len(body), BLOCK):
                time.sleep(server.pause)
                self.wfile.write(body[first : first + BLOCK])
                if self.path in server.silent:
                    server.ended.wait()
        except OSError:  # the client has closed the connection
            self.close_connection = True
        if cut is not None or server.announced:
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Server]:
    """A running server, stopped at the end."""
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield running
    finally:
        running.ended.set()
        running.shutdown()
        thread.join()
        running.server_close()
