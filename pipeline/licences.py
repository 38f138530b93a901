"""List the installed packages that this project brings, with their licences: `make licences`.

It ends with status 1 if the library brings a package under a copyleft licence, or the pipeline one
that is not in `KNOWN`; docs/install.md says what the known ones mean. The tests' packages are only
listed.
"""

import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from importlib.metadata import Distribution, PackageNotFoundError

from packaging.requirements import Requirement

COPYLEFT = re.compile(r"\b[AL]?GPL|GNU ", re.IGNORECASE)
# Packages under a copyleft licence that parts of the pipeline bring: DVC the first four, Prefect
# the last. Each is used as it is, by a program of its own or by import, and none is shipped by us.
KNOWN = {"asyncssh", "dulwich", "grandalf", "pygit2", "text-unidecode"}


distribution = cache(metadata.distribution)  # it looks through folders each time


def main() -> int:
    """Print the table, and return the exit status."""
    library = brought("vmunet", ())
    pipeline = brought("vmunet", ("pipeline", "export", "serve", "cluster"))
    tests = brought("vmunet", ("test",))
    for name in sorted(tests - {"vmunet"}):
        part = "library" if name in library else "pipeline" if name in pipeline else "tests"
        found = distribution(name)
        print(f"{part:<9} {name:<32} {found.version:<18} {licence(found)}")
    wrong = {name for name in library if copyleft(name)}
    wrong |= {name for name in pipeline - KNOWN if copyleft(name)}
    for name in sorted(wrong):
        print(f"error: {name} is under a copyleft licence", file=sys.stderr)
    return 1 if wrong else 0


def brought(package: str, extras: Iterable[str]) -> set[str]:
    """The names of the installed packages that `package` needs with these extras, itself too."""
    seen: set[tuple[str, str]] = set()
    names: set[str] = set()
    wanted = [(normal(package), extra) for extra in ("", *extras)]
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:  # of another platform, or torch's libraries for a GPU
            continue
        names.add(name)
        for line in requires:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                wanted += [(normal(needed.name), one) for one in ("", *needed.extras)]
    return names


def licence(found: Distribution) -> str:
    """The licence that a package names for itself, or '?'."""
    told = found.metadata
    classifiers = [line for line in told.get_all("Classifier") or [] if line.startswith("License")]
    names = [line.rpartition(" :: ")[2] for line in classifiers]
    named = "; ".join(name for name in names if name != "OSI Approved")
    (expression, *_), (words, *_) = (
        told.get_all(key) or [""] for key in ("License-Expression", "License")
    )
    return expression or named or words.strip().partition("\n")[0][:60] or "?"


def copyleft(name: str) -> bool:
    """Whether the licence that a package names for itself is a GNU licence."""
    return bool(COPYLEFT.search(licence(distribution(name))))


def normal(name: str) -> str:
    """A package's name as an index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
