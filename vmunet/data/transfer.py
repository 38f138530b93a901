"""Download one file from one address: resumed, retried, and refused if the disk has no room.

A transfer can be interrupted at any byte: the bytes so far are in `<name>.part`, and the server's
validator is beside it in `<name>.part.json`. The next try asks for the rest only if the file is
still the same (RFC 9110, Range and If-Range).
"""

import json
import shutil
import threading
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vmunet.errors import InputError
from vmunet.files import whole_file

if TYPE_CHECKING:
    import requests

NET_BLOCK = 1 << 16  # bytes; a lost connection loses at most so many
TIMEOUT = (10, 30)  # seconds to connect, and between two blocks
ATTEMPTS = 5  # in a row without one new byte
MOST_BACKOFF = 60.0  # seconds between two attempts
MOST_WAIT = 600.0  # the longest wait, in seconds, that a server may ask for (Retry-After)
STARTS = (b"PK", b"\x80")  # of a zip, and of a pickle, which PyTorch's older files are
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class SourceError(InputError):
    """This address cannot provide the file; another one may."""


class StoppedError(Exception):
    """A transfer ended because another one failed; the next start resumes it."""


class _AgainError(Exception):
    """The server asks to try again, or sent less than it announced."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds  # the wait that the server asks for


class Together:
    """The state that parallel transfers share: a stop signal, and the room on the disk."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._totals: dict[Path, int] = {}

    def wait(self, seconds: float = 0.0) -> None:
        """Sleep, unless the transfers stop.

        Raises:
            StoppedError: the transfers stop.
        """
        if self.stop.wait(seconds):
            raise StoppedError

    def claim(self, part: Path, total: int) -> None:
        """Announce that `part` will grow to `total` bytes.

        Raises:
            InputError: the disk has no room for the bytes that all transfers still need.
        """
        with self._lock:
            self._totals[part] = total
            needed = sum(max(0, size - size_of(path)) for path, size in self._totals.items())
            free = shutil.disk_usage(part.parent).free
        if needed > free:
            subject = "and the downloads beside it need" if len(self._totals) > 1 else "needs"
            raise InputError(
                f"{part.parent}: {part.stem} {subject} {needed:,} more bytes, {free:,} are free; "
                "make room and run again"
            )

    def release(self, part: Path) -> None:
        """Say that `part` no longer grows: it is complete, or the transfer ended."""
        with self._lock:
            self._totals.pop(part, None)


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def discard(part: Path) -> None:
    """Remove a part that cannot be resumed, and its validator."""
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def bring(url: str, part: Path, together: Together, wait: float) -> None:
    """Bring `part` to the full length of the zip at `url`, resuming and retrying.

    Args:
        url: http or https address.
        part: the file that grows.
        together: shared with the parallel transfers.
        wait: seconds before the first retry; doubles with each further retry.

    Raises:
        SourceError: the server refuses, cannot be reached or sends something that is not a zip.
        InputError: the disk is full or cannot be written.
        StoppedError: another transfer failed.
    """
    import requests

    failures = 0
    # A part from another address is not continued.
    most = size_of(part) if _known(part).get("url") == url else 0
    with requests.Session() as session:
        while True:
            together.wait()
            reason: requests.RequestException | _AgainError
            try:
                _request(session, url, part, together)
                return
            except (requests.TooManyRedirects, ValueError) as error:  # ValueError: not an address
                raise SourceError(f"{url}: cannot be downloaded ({error})") from error
            except (requests.RequestException, _AgainError) as error:
                reason = error
            except OSError as error:
                raise InputError(
                    f"{part}: cannot be written ({error.strerror}); make room and run again: "
                    f"{size_of(part):,} bytes are kept and the next start resumes them"
                ) from error
            finally:
                together.release(part)
            failures = 0 if size_of(part) > most else failures + 1
            most = max(most, size_of(part))
            seconds = reason.seconds if isinstance(reason, _AgainError) else 0.0
            if failures >= ATTEMPTS or seconds > MOST_WAIT:
                raise SourceError(
                    f"{url}: cannot be downloaded ({reason}); check the connection and run again: "
                    f"{size_of(part):,} bytes are kept and the next start resumes them"
                ) from reason
            together.wait(max(seconds, min(wait * 2 ** max(0, failures - 1), MOST_BACKOFF)))


def _request(session: "requests.Session", url: str, part: Path, together: Together) -> None:
    """Make one request for the missing bytes of `part` and append them."""
    have, known = size_of(part), _known(part)
    headers = {"Accept-Encoding": "identity"}
    if have and known.get("url") == url and known.get("validator"):
        headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 and known.get("total") == have:
            return
        if response.status_code == 416:  # our part is not a part of that file
            discard(part)
            raise _AgainError("the server cannot continue from here")
        if response.status_code in TRANSIENT:
            seconds = _retry_after(response)
            asked = f", wait {seconds:.0f} s" if seconds else ""
            raise _AgainError(f"status {response.status_code}{asked}", seconds)
        if response.status_code not in (200, 206):
            raise SourceError(
                f"{url}: the server answers {response.status_code} {response.reason}; check the "
                "address, or fetch the file by hand and use the source 'file'"
            )
        start = have if response.status_code == 206 else 0
        span = response.headers.get("Content-Range", "")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        if start:
            if not span.startswith(f"bytes {have}-"):
                discard(part)
                raise _AgainError("the server sent another range than the one asked for")
            whole = span.rpartition("/")[2]
            total = int(whole) if whole.isdigit() else total
        if total:
            together.claim(part, total)
        blocks = response.iter_content(NET_BLOCK)
        first = next(blocks, b"")
        if not start:
            if not any(known.startswith(first[: len(known)]) for known in STARTS):
                # checked before the old bytes are removed
                raise SourceError(_not_a_zip(response, first))
            # First the old bytes go, because they must never be beside a new validator. Only a 200
            # has one for certain: a 206 need not repeat it.
            discard(part)
            _remember(part, url, response, total)
        _stream(chain([first], blocks), part, start, total, together)
    if total and size_of(part) != total:
        raise _AgainError(f"{size_of(part):,} of {total:,} bytes came")


def _stream(
    blocks: Iterable[bytes], part: Path, start: int, total: int | None, together: Together
) -> None:
    with (
        part.open("ab") as sink,
        tqdm(
            desc=f"downloading {part.stem}",
            total=total,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=None,
            leave=False,
        ) as bar,
    ):
        for block in blocks:
            sink.write(block)
            bar.update(len(block))
            together.wait()


def _not_a_zip(response: "requests.Response", block: bytes) -> str:
    page = block.lstrip()[:1] == b"<"
    content = "a web page, perhaps a sign-in page" if page else f"it begins with {block[:8]!r}"
    first = response.history[0].url if response.history else response.url
    led = f" and leads to {response.url}" if response.history else ""
    return (
        f"{first}: the server sent something that is not a zip ({content}){led}; none of it "
        "was kept: fetch the file by hand and use the source 'file'"
    )


def _retry_after(response: "requests.Response") -> float:
    """The wait in seconds that the server asks for, as a number or a date; 0 if it does not."""
    value = response.headers.get("Retry-After", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _known(part: Path) -> dict[str, Any]:
    try:
        return json.loads(_validator(part).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _remember(part: Path, url: str, response: "requests.Response", total: int | None) -> None:
    """Keep what `If-Range` needs: a strong ETag, otherwise the date (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else None
    validator = validator or response.headers.get("Last-Modified")
    with whole_file(_validator(part)) as file:
        file.write_text(json.dumps({"url": url, "validator": validator, "total": total}))
