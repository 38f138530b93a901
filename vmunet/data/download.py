"""Where an official archive comes from: a local mirror, or the internet.

A download can be interrupted at any byte: what has come lies in `<name>.part`, with the server's
validator beside it, and the next try asks for the rest only if the file is still the same
(RFC 9110, Range and If-Range). Nothing carries the archive's own name before it is complete and
checked. Archives without a published checksum get theirs recorded in `<name>.sha256` at the first
download, and are held to it ever after.
"""

import json
import os
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vmunet.data.archives import sha256_of
from vmunet.data.isic import Archive, IsicDataset
from vmunet.errors import InputError

if TYPE_CHECKING:
    import requests

NET_BLOCK = 1 << 16  # bytes; what a cut connection loses at most
TIMEOUT = (10, 60)  # seconds to connect, and between two blocks
ATTEMPTS = 5  # in a row without one new byte
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Provided:
    """An archive on this machine: its official facts, path, SHA-256 and size in bytes."""

    archive: Archive
    path: Path
    sha256: str
    bytes: int


def provided(archive: Archive, path: Path) -> Provided:
    """The archive at `path`, with its checksum computed."""
    return Provided(archive, path, sha256_of(path), path.stat().st_size)


def from_mirror(dataset: IsicDataset, mirror: str | None) -> list[Provided]:
    """The dataset's archives in `<mirror>/<dataset>/`, used in place.

    Checksums are recorded, not compared with the official ones: a mirror may hold smaller images.

    Args:
        mirror: the value of VMUNET_MIRROR, None where it is not set.

    Raises:
        InputError: no mirror is set, or an archive is not in it.
    """
    if not mirror:
        raise InputError(
            f"{dataset.name}: source is 'file' but VMUNET_MIRROR is not set; set it to a folder "
            f"that holds {dataset.name}/{dataset.archives[0].name} and the other three archives"
        )
    folder = Path(mirror) / dataset.name
    for archive in dataset.archives:
        if not (folder / archive.name).is_file():
            raise InputError(
                f"{folder / archive.name}: not in the mirror; put the archive there "
                f"(from {archive.url}), or set VMUNET_MIRROR to the folder that holds it"
            )
    return [provided(archive, folder / archive.name) for archive in dataset.archives]


def from_internet(dataset: IsicDataset, downloads: Path) -> list[Provided]:
    """The dataset's archives from the challenge's server, kept in `downloads`/<dataset>/.

    Raises:
        InputError: see `fetch`.
    """
    folder = downloads / dataset.name
    return [
        Provided(archive, path, fetch(archive.url, path, archive.sha256), path.stat().st_size)
        for archive in dataset.archives
        for path in [folder / archive.name]
    ]


def fetch(url: str, target: Path, sha256: str | None = None, wait: float = 1.0) -> str:
    """Download a zip to `target` unless it is there already; either way check it.

    Args:
        url: http or https address.
        target: final path; `<target>.part` and its validator lie beside it meanwhile.
        sha256: the published checksum; without one, that of the first download is used.
        wait: seconds before the first retry; doubles with each one in a row.

    Returns:
        The file's SHA-256.

    Raises:
        InputError: the server refuses or cannot be reached, or the checksum is wrong.
    """
    record = target.with_name(target.name + ".sha256")
    expected = sha256 or _recorded(record)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        _fetch_part(url, part, wait)
        found = _checked(part, url, expected)
        record.write_text(f"{found}  {target.name}\n")
        os.replace(part, target)
        _validator(part).unlink(missing_ok=True)
        return found
    found = sha256_of(target)
    if not expected:  # put there by hand
        record.write_text(f"{found}  {target.name}\n")
    elif found != expected:
        raise InputError(
            f"{target}: its sha256 is {found}, expected {expected}; "
            "the file was changed or damaged: delete it and run again to download it"
        )
    return found


def _recorded(record: Path) -> str | None:
    return record.read_text().split()[0] if record.exists() else None


def _validator(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _checked(part: Path, url: str, expected: str | None) -> str:
    """The complete download's SHA-256; a wrong one is removed, for it cannot be resumed."""
    found = sha256_of(part)
    problem = ""
    if expected and found != expected:
        problem = f"its sha256 is {found}, expected {expected}"
    elif not zipfile.is_zipfile(part):
        problem = "the server sent something that is not a zip (perhaps a web page)"
    if problem:
        part.unlink()
        _validator(part).unlink(missing_ok=True)
        raise InputError(
            f"{url}: {problem}; the download was removed: run again, and if it repeats, "
            "fetch the archive by hand into a folder and use the source 'file'"
        )
    return found


def _fetch_part(url: str, part: Path, wait: float) -> None:
    """Bring `part` to its full length, resuming and retrying."""
    import requests

    failures = 0
    with requests.Session() as session:
        while True:
            before = _size(part)
            try:
                _request(session, url, part)
                return
            except (requests.RequestException, _TransientError) as error:
                reason = error
            failures = 0 if _size(part) > before else failures + 1
            if failures >= ATTEMPTS:
                raise InputError(
                    f"{url}: cannot be downloaded ({reason}); check the connection and run again: "
                    f"{_size(part):,} bytes are kept and resumed from"
                ) from reason
            time.sleep(wait * 2**failures)


class _TransientError(Exception):
    """The server asks to try again, or sent less than it announced."""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _request(session: "requests.Session", url: str, part: Path) -> None:
    """One request for what is missing of `part`, streamed onto its end."""
    have = _size(part)
    known: dict[str, Any] = {}
    if have and _validator(part).exists():
        known = json.loads(_validator(part).read_text())
    headers = {"Accept-Encoding": "identity"}
    if known.get("url") == url and known.get("validator"):
        headers |= {"Range": f"bytes={have}-", "If-Range": known["validator"]}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 and known.get("total") == have:
            return
        if response.status_code == 416:  # what we hold is not a part of that file
            part.unlink()
            raise _TransientError("the server cannot continue from here")
        if response.status_code in TRANSIENT:
            raise _TransientError(f"status {response.status_code}")
        if response.status_code not in (200, 206):
            raise InputError(
                f"{url}: the server answers {response.status_code} {response.reason}; check the "
                "address, or fetch the archive by hand and use the source 'file'"
            )
        resumed = response.status_code == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise _TransientError("the server sent another range than the one asked for")
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _remember(part, url, response, total)
        with (
            part.open("ab" if resumed else "wb") as sink,
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
            for block in response.iter_content(NET_BLOCK):
                sink.write(block)
                bar.update(len(block))
    if total and _size(part) != total:
        raise _TransientError(f"{_size(part):,} of {total:,} bytes came")


def _remember(part: Path, url: str, response: "requests.Response", total: int | None) -> None:
    """Keep what `If-Range` needs: a strong ETag or else the date (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else None
    validator = validator or response.headers.get("Last-Modified")
    known = {"url": url, "validator": validator, "total": total}
    _validator(part).write_text(json.dumps(known))
