"""Weights from an address of the web: one safetensors file, downloaded once.

A file is kept in `$VMUNET_CACHE`, or in `vmunet` in the user's cache folder, with the validator
that the server gave. The next time the server is asked whether the file is still the same (RFC
9110, 13.1); if it does not answer, the kept file is used. Only safetensors are taken,
because other formats may run code.
"""

import hashlib
import http.client
import json
import os
import tempfile
import warnings
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from vmunet.errors import InputError

CACHE = "VMUNET_CACHE"
MOST_BYTES = 2 * 1024**3  # the paper's model has 110 MB
SECONDS = 30  # to connect, and between two blocks
BLOCK = 1 << 20
# What a server says of a file's version, and how it is asked whether it is still the same.
VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
MOST_HEADER = 100_000_000  # bytes, as safetensors itself allows


def cache_folder() -> Path:
    """The folder of downloaded weights; it need not exist."""
    if own := os.environ.get(CACHE):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmunet"


def download(url: str) -> Path:
    """The file of an address, downloaded if it is not there or has changed.

    Args:
        url: https or http; its path ends with `.safetensors`.

    Raises:
        InputError: another suffix, the server cannot be reached or refuses, or what it sends is no
            safetensors file, is cut short or has more than 2 GiB. Nothing of it is kept.
    """
    name = Path(unquote(urlsplit(url).path)).name
    if not name.endswith(".safetensors"):
        raise InputError(
            f"{url}: not the address of a .safetensors file; other formats are not loaded from the "
            "web, because they may run code: download it yourself if you trust it"
        )
    kept = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    validator = kept.with_name("validator.txt")
    headers = {"User-Agent": "vmunet"}
    if kept.is_file() and validator.is_file():
        field, value = validator.read_text().split("\n", 1)
        headers[field] = value
    try:
        with urlopen(Request(url, headers=headers), timeout=SECONDS) as answer:
            _check_answer(url, answer)
            kept.parent.mkdir(parents=True, exist_ok=True)
            # in a folder of its own, because two processes may load the same address at once
            with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
                part = Path(folder, name)
                _receive(url, answer, part)
                validator.unlink(missing_ok=True)
                os.replace(part, kept)
                for field, asked in VALIDATORS.items():
                    if value := answer.headers.get(field):
                        validator.write_text(f"{asked}\n{value}")
                        break
    except HTTPError as error:
        if error.code != 304:  # not modified
            raise InputError(
                f"{url}: the server answers {error.code} {error.reason}; check the address"
            ) from None
    except (URLError, OSError, ValueError, http.client.HTTPException) as error:
        if not kept.is_file():
            reason = getattr(error, "reason", None) or error
            raise InputError(
                f"{url}: cannot be downloaded ({reason or type(error).__name__}); check the "
                "address and the connection"
            ) from None
        warnings.warn(f"{url}: no answer; the copy of an earlier download is used", stacklevel=3)
    return kept


def _check_answer(url: str, answer: http.client.HTTPResponse) -> None:
    if urlsplit(answer.url).scheme not in ("https", urlsplit(url).scheme):
        raise InputError(f"{url}: leads to {answer.url}, which is not https; give another address")
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > MOST_BYTES:
        raise InputError(_too_large(url))


def _receive(url: str, answer: http.client.HTTPResponse, part: Path) -> None:
    """Write the answer's body, which must be a whole safetensors file."""
    received = 0
    with part.open("wb") as file:
        while block := answer.read(BLOCK):
            if not received:
                _check_beginning(url, block)
            received += len(block)
            if received > MOST_BYTES:
                raise InputError(_too_large(url))
            file.write(block)
    if received != _promised(part):
        raise InputError(
            f"{url}: {received:,} bytes came, and that is no whole safetensors file; try again"
        )


def _check_beginning(url: str, block: bytes) -> None:
    if not (block[8:9] == b"{" and int.from_bytes(block[:8], "little") <= MOST_HEADER):
        page = " but a web page, perhaps a sign-in page" if block.lstrip()[:1] == b"<" else ""
        raise InputError(f"{url}: the server sent no safetensors file{page}; check the address")


def _promised(part: Path) -> int:
    """The length of a safetensors file that its header states; 0 if it states none."""
    with part.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length))
            ends = [e["data_offsets"][1] for key, e in header.items() if key != "__metadata__"]
            return 8 + length + max(ends)
        except (
            *(ValueError, TypeError, KeyError, IndexError, AttributeError),
            RecursionError,
        ):
            return 0


def _too_large(url: str) -> str:
    return f"{url}: more than {MOST_BYTES / 1024**3:g} GiB; expected the weights of one model"
