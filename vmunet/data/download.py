"""Get official files from a folder on this machine, or from the internet.

A file gets its own name only when it is complete and checked: against the published SHA-256, or,
if there is none, against that of the first download (`vmunet.data.checksums`). The first download
must be whole by the zip's own checksums. A file that does not match is removed, and the next
address is tried; if no address is left, that is an error. Mirrors are tried before the publisher,
but only for files with a known checksum: a mirror never decides what a file should hold.
"""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from vmunet.data.archives import is_whole_zip, sha256_of
from vmunet.data.checksums import RECORD, recorded, remember
from vmunet.data.isic.official import Archive, IsicDataset
from vmunet.data.transfer import SourceError, StoppedError, Together, bring, discard
from vmunet.errors import InputError

PATIENCE = 2.0  # seconds that the other downloads have to end by themselves when one fails


@dataclass(frozen=True)
class Provided:
    """An archive on this machine: its official facts, path, SHA-256 and size in bytes."""

    archive: Archive
    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Wanted:
    """A published zip (a `.pth` is one too, and an `.npz`).

    Attributes:
        url: the publisher's address.
        place: `<folder>/<name>`, its path in the folder of downloads and in a mirror.
        sha256: the published checksum, None if there is none.
        begins: the first digits of a checksum whose other digits are not published. The first
            download must have them, and need not be a zip: PyTorch's older files are none.
    """

    url: str
    place: str
    sha256: str | None = None
    begins: str = ""


@dataclass(frozen=True)
class Internet:
    """How files are downloaded.

    Attributes:
        downloads: the folder that keeps them.
        mirrors: base addresses that are tried first, in order (`mirror_urls`).
        record: the file with the checksums of first downloads.
        wait: seconds before the first retry; doubles with each further retry.
    """

    downloads: Path = Path("data/downloads")
    mirrors: tuple[str, ...] = ()
    record: Path = RECORD
    wait: float = 1.0


def mirror_urls(text: str | None) -> tuple[str, ...]:
    """The base addresses in VMUNET_MIRROR_URLS, separated by spaces; none if it is not set.

    Raises:
        InputError: one is not an http or https address.
    """
    urls = tuple((text or "").split())
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise InputError(
                f"VMUNET_MIRROR_URLS: {url!r} is not an address; expected http:// or https:// "
                "addresses separated by spaces (for a folder set VMUNET_MIRROR)"
            )
    return urls


def provided(archive: Archive, path: Path) -> Provided:
    """The archive at `path`, with its checksum computed."""
    return Provided(archive, path, sha256_of(path), path.stat().st_size)


def from_mirror(dataset: IsicDataset, mirror: str | None) -> list[Provided]:
    """The dataset's archives in `<mirror>/<dataset>/`, without copying them.

    Checksums are recorded, not compared with the official ones: a mirror may hold smaller images.

    Args:
        mirror: the value of VMUNET_MIRROR, None if it is not set.

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


def from_internet(dataset: IsicDataset, internet: Internet) -> list[Provided]:
    """The dataset's archives from the challenge's server, kept in `<downloads>/<dataset>/`.

    Raises:
        InputError: as `fetch`.
    """
    wanted = [Wanted(a.url, f"{dataset.name}/{a.name}", a.sha256) for a in dataset.archives]
    sums = fetch_all(wanted, internet)
    paths = [internet.downloads / item.place for item in wanted]
    return [
        Provided(archive, path, sha256, path.stat().st_size)
        for archive, path, sha256 in zip(dataset.archives, paths, sums, strict=True)
    ]


def fetch_all(wanted: Sequence[Wanted], internet: Internet) -> list[str]:
    """`fetch` for a few files in parallel; returns their SHA-256.

    The first failure, or Ctrl-C, stops the others; the next start resumes them. This function does
    not wait for a download whose server is silent: its thread ends with the process, or when the
    server answers again.

    Raises:
        InputError: as `fetch`.
    """
    together = Together()
    futures: list[Future[str]] = [Future() for _ in wanted]

    def run(item: Wanted, future: Future[str]) -> None:
        try:
            future.set_result(fetch(item, internet, together))
        except BaseException as error:
            future.set_exception(error)

    for pair in zip(wanted, futures, strict=True):
        threading.Thread(target=run, args=pair, daemon=True).start()
    try:
        wait_for(futures, return_when=FIRST_EXCEPTION)
    finally:
        together.stop.set()
        wait_for(futures, timeout=PATIENCE)
    errors = [future.exception() for future in futures if future.done()]
    for error in errors:
        if error and not isinstance(error, StoppedError):
            raise error
    return [future.result() for future in futures]


def fetch(wanted: Wanted, internet: Internet, together: Together | None = None) -> str:
    """Download a zip to `<downloads>/<place>` unless it is there already; check it in both cases.

    If two processes want the same file, the second waits until the first has it.

    Args:
        together: shared with the downloads that run in parallel.

    Returns:
        The file's SHA-256.

    Raises:
        InputError: no address gives the file, its checksum is wrong, or the disk is full.
        StoppedError: a parallel download failed.
    """
    together = together or Together()
    target = internet.downloads / wanted.place
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock"), target.name, together):
        expected = wanted.sha256 or recorded(internet.record, wanted.url)
        if not target.exists():
            part = target.with_name(target.name + ".part")
            sha256 = _from_some_address(wanted, part, expected, internet, together)
            if not expected:
                remember(internet.record, wanted.url, sha256)
            os.replace(part, target)
            discard(part)
            return sha256
        sha256 = sha256_of(target)
        if expected and sha256 != expected:
            raise InputError(
                f"{target}: its sha256 is {sha256}, expected {expected}; "
                "the file was changed or damaged: delete it and run again to download it"
            )
        if not expected and (problem := _problem(target, sha256, wanted.begins)):
            raise InputError(f"{target}: {problem}; delete it and run again to download it")
        if not expected:  # a person put it there
            remember(internet.record, wanted.url, sha256)
        return sha256


@contextmanager
def locked(path: Path, name: str, together: Together | None = None) -> Iterator[None]:
    """Hold the lock file `path`; a second process waits for it. A killed process loses its lock.

    Args:
        name: the thing that the lock protects, for the message of a process that waits.

    Raises:
        StoppedError: a parallel download failed meanwhile.
    """
    together = together or Together()
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{name}: waiting for another process that works on it", file=sys.stderr)
        while not lock.is_locked:
            together.wait()
            try:
                lock.acquire(timeout=0.5)
            except Timeout:
                continue
    try:
        yield
    finally:
        lock.release()


def _from_some_address(
    wanted: Wanted, part: Path, expected: str | None, internet: Internet, together: Together
) -> str:
    """Fill `part` from the first address that has the right file; returns its SHA-256."""
    urls = [wanted.url]
    if expected:
        urls = [f"{base.rstrip('/')}/{wanted.place}" for base in internet.mirrors] + urls
    failed: list[str] = []
    for url in urls:
        try:
            bring(url, part, together, internet.wait)
            recorded_in = None if wanted.sha256 else internet
            return _checked(part, url, expected, wanted.begins, recorded_in)
        except SourceError as error:
            failed.append(str(error))
    if internet.mirrors and not expected:
        failed.append("mirrors were not tried, because no checksum of this file is known yet")
    raise InputError("; ".join(failed))


def _problem(path: Path, sha256: str, begins: str) -> str:
    """What is wrong with a file whose whole checksum nobody knows; '' if nothing is."""
    if begins:
        return "" if sha256.startswith(begins) else f"its sha256 is {sha256}, expected {begins}..."
    return "" if is_whole_zip(path) else "not a whole zip"


def _checked(
    part: Path, url: str, expected: str | None, begins: str, recorded_in: Internet | None
) -> str:
    """The SHA-256 of a complete download; a wrong file is removed, because it cannot be resumed."""
    sha256 = sha256_of(part)
    if expected and sha256 != expected:
        problem = f"its sha256 is {sha256}, expected {expected}"
        if recorded_in:
            problem += f" (the first download's, in {recorded_in.record})"
    elif expected or not (problem := _problem(part, sha256, begins)):
        return sha256  # what is recorded must be right
    discard(part)
    advice = "fetch the file by hand and use the source 'file'"
    if recorded_in and expected:
        advice = f"and you trust the new file, remove its entry from {recorded_in.record}"
    raise SourceError(
        f"{url}: {problem}; the download was removed: run again, and if it repeats, {advice}"
    )
