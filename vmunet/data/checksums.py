"""The SHA-256 of files whose publisher states none: recorded at the first download, kept in git.

`checksums.json` is beside dvc.lock and is committed, so that everybody who runs the project gets
the bytes of the first download. It maps the publisher's address to the SHA-256. A file that differs
from its entry is never used; a person who trusts the new file removes the entry by hand.
"""

import json
from pathlib import Path

from filelock import FileLock

from vmunet.errors import InputError
from vmunet.files import whole_file

RECORD = Path("checksums.json")  # from the repository's root, where stages run


def recorded(record: Path, url: str) -> str | None:
    """The recorded SHA-256 of the file published at `url`, None if there is none.

    Raises:
        InputError: the record is damaged.
    """
    return _read(record).get(url)


def remember(record: Path, url: str, sha256: str) -> None:
    """Record the SHA-256 of the file published at `url`, unless one is recorded already.

    Raises:
        InputError: the record is damaged.
    """
    with FileLock(record.with_name(f".{record.name}.lock")):  # other processes may write it too
        sums = {url: sha256} | _read(record)
        with whole_file(record) as part:
            part.write_text(json.dumps(sums, indent=1, sort_keys=True) + "\n")


def _read(record: Path) -> dict[str, str]:
    if not record.exists():
        return {}
    try:
        sums = json.loads(record.read_text())
    except ValueError:
        sums = None
    if not isinstance(sums, dict) or not all(isinstance(value, str) for value in sums.values()):
        raise InputError(
            f"{record}: expected a JSON object of addresses and SHA-256; restore it from git"
        )
    return sums
