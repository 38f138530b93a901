"""Where a result came from: hashes of data and code, the revision, the versions.

The code of a stage is the set of modules that its script imports, found by reading the sources:
the same set that dvc.yaml lists as the stage's dependencies, and that a resume point is keyed by.
"""

import ast
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("vmunet", "pipeline", "stages", "reports")
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


def modules_of(script: Path, root: Path = ROOT) -> list[Path]:
    """The project's files that a script imports, itself included, directly or not, sorted.

    Reads the import statements, those inside functions too, and runs nothing. An imported
    package counts with its `__init__.py`.
    """
    found: set[Path] = set()
    waiting = [*files_of(".".join(script.with_suffix("").parts), root)]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in imported_names((root / path).read_text()):
            waiting.extend(files_of(name, root))
    return sorted(found)


def imported_names(source: str) -> Iterator[str]:
    """Dotted names of everything that a source may import while it runs."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and str(node.value).startswith("vmunet.scan."):
            yield str(node.value)  # backends are named in a table and imported when needed


def files_of(name: str, root: Path) -> Iterator[Path]:
    """The files that importing `name` runs, if it is one of the project's."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return
    for depth in range(1, len(parts) + 1):
        base = Path(*parts[:depth])
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if (root / path).is_file():
                yield path


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
    """SHA-256 of anything JSON holds, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def git_revision(root: Path = ROOT) -> str:
    """The commit, with `+changes` where the sources differ from it; `unknown` without git.

    Sources are the packages and the profiles: dvc.lock and params.yaml change with every switch.
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
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
