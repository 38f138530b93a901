"""Unpack a zip of unknown origin: only inside the target folder, completely or not at all."""

import hashlib
import lzma
import shutil
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from vmunet.errors import InputError
from vmunet.files import whole_folder

BLOCK = 1 << 20
MOST_BYTES = 200 * 2**30  # the largest official archive unpacks to about 11 GiB
MOST_RATIO = 200  # photographs hardly compress, and an empty mask's PNG is already compressed
RATIO_FROM = 64 * 2**20  # bytes; for smaller files the ratio is not checked
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)  # errors of a damaged zip


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hex digits."""
    digest = hashlib.sha256()
    total = path.stat().st_size
    with path.open("rb") as stream, _bar(f"checking {path.name}", total) as bar:
        while block := stream.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def is_whole_zip(path: Path) -> bool:
    """Whether the file is a zip whose members all have the checksums that it declares.

    A member that only a password or another program can unpack is not checked.
    """
    try:
        with zipfile.ZipFile(path) as opened:
            members = opened.infolist()
            with _bar(f"checking {path.name}", sum(member.file_size for member in members)) as bar:
                for member in members:
                    with opened.open(member) as source:
                        while block := source.read(BLOCK):
                            bar.update(len(block))
    except (*DAMAGE, OSError):  # OSError: a damaged offset points before the file's start
        return False
    except RuntimeError:  # a password is needed: `extract` says so
        pass
    return True


def extract(archive: Path, target: Path, most_bytes: int = MOST_BYTES) -> None:
    """Unpack the zip `archive` into the new folder `target`.

    Args:
        archive: the zip file.
        target: written under a temporary name and renamed when complete.
        most_bytes: refuse to unpack more than this.

    Raises:
        InputError: the file is not a zip, truncated or damaged; or it would write outside the
            target or unpack to far more than it should; or the disk is full.
    """
    try:
        with zipfile.ZipFile(archive) as opened, whole_folder(target) as folder:
            members = [member for member in opened.infolist() if not member.is_dir()]
            for member in opened.infolist():
                _check_member(archive, member)
            _check_names_differ(archive, members)
            total = sum(member.file_size for member in members)
            _check_size(archive, members, most_bytes)
            _check_room(archive, folder, total)
            with _bar(f"unpacking {archive.name}", total) as bar:
                for member in members:
                    _write_member(archive, opened, member, folder, bar)
    except DAMAGE as error:
        raise InputError(f"{archive.name}: {_what_is_wrong(archive, error)}") from error
    except (NotImplementedError, RuntimeError, FileExistsError, NotADirectoryError) as error:
        # encrypted, compressed by an unknown method, or one path is both a file and a folder
        raise InputError(f"{archive.name}: cannot be unpacked: {error}") from error
    except OSError as error:  # a full disk, or a damaged offset in the zip
        raise InputError(
            f"{archive.name}: cannot be unpacked into {target.parent} ({error.strerror or error}); "
            "nothing was kept: make room, or download it again if there is room"
        ) from error


def _bar(title: str, total: int) -> tqdm:
    return tqdm(desc=title, total=total, unit="B", unit_scale=True, disable=None, leave=False)


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    """Refuse a member that would land outside the target, or is a link."""
    name = member.filename
    path = PurePosixPath(name.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or ":" in name.split("/")[0]
    if outside or not path.parts:
        raise InputError(
            f"{archive.name}: member {name!r} points outside the folder it is unpacked into; "
            "this is not the official archive: download it again"
        )
    if "\\" in name:
        raise InputError(
            f"{archive.name}: member {name!r} has \\ in its name in place of /, as some programs "
            "on Windows write it; make the zip again with another program, such as 7-Zip"
        )
    mode = member.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(
            f"{archive.name}: member {name!r} is a link or a device, not a file; "
            "this is not the official archive: download it again"
        )


def _check_names_differ(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse names that are one file on a disk that ignores case or the form of accents."""
    known: dict[str, str] = {}
    for member in members:
        key = unicodedata.normalize("NFC", str(PurePosixPath(member.filename)).casefold())
        if (other := known.setdefault(key, member.filename)) != member.filename:
            raise InputError(
                f"{archive.name}: members {other!r} and {member.filename!r} are one file on some "
                "disks; this is not the official archive: download it again"
            )


def _check_size(archive: Path, members: list[zipfile.ZipInfo], most_bytes: int) -> None:
    """Check the sizes that the zip declares; the zip reader lets no member exceed its own."""
    total = sum(member.file_size for member in members)
    if total > most_bytes:
        raise InputError(
            f"{archive.name}: unpacks to {total:,} bytes, more than the {most_bytes:,} allowed; "
            "this is not the official archive: download it again"
        )
    packed = sum(member.compress_size for member in members)
    if total > max(RATIO_FROM, MOST_RATIO * packed):
        raise InputError(
            f"{archive.name}: unpacks from {packed:,} to {total:,} bytes, as a zip bomb would; "
            "this is not the official archive: download it again"
        )
    for member in members:
        if member.file_size > max(RATIO_FROM, MOST_RATIO * member.compress_size):
            raise InputError(
                f"{archive.name}: member {member.filename!r} unpacks from "
                f"{member.compress_size:,} to {member.file_size:,} bytes, as a zip bomb would; "
                "this is not the official archive: download it again"
            )


def _check_room(archive: Path, folder: Path, total: int) -> None:
    free = shutil.disk_usage(folder).free
    if total > free:
        raise InputError(
            f"{archive.name}: unpacks to {total:,} bytes but {folder.parent} has {free:,} free; "
            "make room and run again"
        )


def _write_member(
    archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, bar: tqdm
) -> None:
    path = folder / PurePosixPath(member.filename)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise InputError(f"{archive.name}: holds {member.filename!r} twice; download it again")
    with opened.open(member) as source, path.open("wb") as sink:
        # The zip reader stops at the declared size and checks the CRC there, so that no member
        # can write more than `_check_size` allows.
        while block := source.read(BLOCK):
            sink.write(block)
            bar.update(len(block))


def _what_is_wrong(archive: Path, error: Exception) -> str:
    with archive.open("rb") as stream:
        head = stream.read(512)
    size = archive.stat().st_size
    if head.lstrip()[:1] == b"<":
        return (
            "a web page saved under a zip's name (perhaps a sign-in or error page); "
            "delete it and download the archive itself"
        )
    if head[:4] != b"PK\x03\x04":
        return f"not a zip file ({size:,} bytes); delete it and download it again"
    return f"truncated or damaged ({error}; {size:,} bytes); delete it and download it again"
