"""Where official files come from: a folder on this machine, or the internet.

Nothing carries a file's own name before it is complete and checked: against the published
SHA-256, or else against the one seen at the first download (`vmunet.data.checksums`), which must
be whole by the zip's own checksums. What does not match is removed and the next address is asked;
no address left is an error. Mirrors are asked before the publisher, but only for files whose
checksum is known: a mirror is never the first to say what a file holds.
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

PATIENCE = 2.0  # seconds that the other downloads get to end by themselves when one fails


@dataclass(frozen=True)
class Provided:
    """An archive on this machine: its official facts, path, SHA-256 and size in bytes."""

    archive: Archive
    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Wanted:
    """A published zip (a `.pth` is one too).

    Attributes:
        url: the publisher's address.
        place: `<folder>/<name>`, its path below the folder of downloads and below a mirror.
        sha256: the published checksum, None where none is.
    """

    url: str
    place: str
    sha256: str | None = None


@dataclass(frozen=True)
class Internet:
    """How files are downloaded.

    Attributes:
        downloads: folder that keeps them.
        mirrors: base addresses that are asked first, in order (`mirror_urls`).
        record: the file of checksums seen first.
        wait: seconds before the first retry; doubles with each one in a row.
    """

    downloads: Path = Path("data/downloads")
    mirrors: tuple[str, ...] = ()
    record: Path = RECORD
    wait: float = 1.0


def mirror_urls(text: str | None) -> tuple[str, ...]:
    """The base addresses in VMUNET_MIRROR_URLS, separated by spaces; none where it is not set.

    Raises:
        InputError: one is not an http or https address.
    """
    urls = tuple((text or "").split())
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise InputError(
                f"VMUNET_MIRROR_URLS: {url!r} is not an address; expected http:// or https:// "
                "addresses separated by spaces (a folder belongs into VMUNET_MIRROR)"
            )
    return urls


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


def from_internet(dataset: IsicDataset, internet: Internet) -> list[Provided]:
    """The dataset's archives from the challenge's server, kept in `<downloads>/<dataset>/`.

    Raises:
        InputError: see `fetch`.
    """
    wanted = [Wanted(a.url, f"{dataset.name}/{a.name}", a.sha256) for a in dataset.archives]
    sums = fetch_all(wanted, internet)
    paths = [internet.downloads / item.place for item in wanted]
    return [
        Provided(archive, path, sha256, path.stat().st_size)
        for archive, path, sha256 in zip(dataset.archives, paths, sums, strict=True)
    ]


def fetch_all(wanted: Sequence[Wanted], internet: Internet) -> list[str]:
    """`fetch` for a few files side by side; returns their SHA-256.

    The first failure, or Ctrl-C, stops the others; what they have is resumed by the next start.
    One that waits for a silent server is not waited for: its thread ends with the process, or
    when the server speaks again.

    Raises:
        InputError: see `fetch`.
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
    """Download a zip to `<downloads>/<place>` unless it is there already; either way check it.

    Of two processes that want the same file the second waits, and finds it there.

    Args:
        together: shared with the downloads beside this one.

    Returns:
        The file's SHA-256.

    Raises:
        InputError: no address gives the file, its checksum is wrong, or the disk is full.
        StoppedError: a download beside this one failed.
    """
    together = together or Together()
    target = internet.downloads / wanted.place
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target.with_name(f".{target.name}.lock"), target.name, together):
        expected = wanted.sha256 or recorded(internet.record, wanted.url)
        if not target.exists():
            part = target.with_name(target.name + ".part")
            found = _from_some_address(wanted, part, expected, internet, together)
            if not expected:
                remember(internet.record, wanted.url, found)
            os.replace(part, target)
            discard(part)
            return found
        found = sha256_of(target)
        if expected and found != expected:
            raise InputError(
                f"{target}: its sha256 is {found}, expected {expected}; "
                "the file was changed or damaged: delete it and run again to download it"
            )
        if not expected and not is_whole_zip(target):
            raise InputError(f"{target}: not a whole zip; delete it and run again to download it")
        if not expected:  # put there by hand
            remember(internet.record, wanted.url, found)
        return found


@contextmanager
def alone(path: Path, name: str, together: Together | None = None) -> Iterator[None]:
    """Hold the lock file `path`; a second process waits for it, and a killed one loses its own.

    Args:
        name: what is made under it, for the one that waits.

    Raises:
        StoppedError: another of the downloads `together` failed meanwhile.
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
            return _checked(part, url, expected, recorded_in=None if wanted.sha256 else internet)
        except SourceError as error:
            failed.append(str(error))
    if internet.mirrors and not expected:
        failed.append("mirrors were not asked, for no checksum of this file is known yet")
    raise InputError("; ".join(failed))


def _checked(part: Path, url: str, expected: str | None, recorded_in: Internet | None) -> str:
    """The complete download's SHA-256; a wrong one is removed, for it cannot be resumed."""
    found = sha256_of(part)
    if expected and found != expected:
        problem = f"its sha256 is {found}, expected {expected}"
        if recorded_in:
            problem += f" (the first download's, in {recorded_in.record})"
    elif not expected and not is_whole_zip(part):  # what is recorded must be right
        problem = "the server sent something that is not a whole zip"
    else:
        return found
    discard(part)
    advice = "fetch the file by hand and use the source 'file'"
    if recorded_in and expected:
        advice = f"and you trust the new file, remove its entry from {recorded_in.record}"
    raise SourceError(
        f"{url}: {problem}; the download was removed: run again, and if it repeats, {advice}"
    )
