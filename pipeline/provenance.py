"""The origin of a result: hashes of data, the code's revision, versions of packages."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.fingerprint import PACKAGES, ROOT

RECORDED = (
    "torch",
    "numpy",
    "scipy",
    "numba",
    "albumentations",
    "opencv-python-headless",
    "dvc",
    "mlflow",
)


def hash_files(paths: Iterable[Path], root: Path = Path(".")) -> str:
    """SHA-256 over the names and contents of files, and of all files in folders."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        full = root / path
        files = sorted(p for p in full.rglob("*") if p.is_file()) if full.is_dir() else [full]
        for file in files:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0")
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def hash_json(content: Any) -> str:
    """SHA-256 of a JSON value; the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def git_revision(root: Path = ROOT) -> str:
    """The commit, with `+changes` if the sources differ from it; `unknown` without git.

    Sources are the packages and the profiles, but not dvc.lock and params.yaml, which change with
    every switch of the profile.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", *PACKAGES, "profiles")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    by_package = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            by_package[name] = version(name)
        except PackageNotFoundError:
            continue
    return by_package
