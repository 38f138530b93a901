"""DVC's run-cache after a kill: what earlier runs of a stage gave, a file for each in a folder.

DVC makes the folder, writes a temporary file and moves it. If a kill leaves the folder empty, or
with the temporary file alone, every later start of the stage fails.
"""

from collections.abc import Iterator
from pathlib import Path

RUNS = Path(".dvc/cache/runs")


def repair_run_cache(root: Path) -> str:
    """Remove empty folders and temporary files; return a line on it, or ''.

    A folder has the name of a stage's inputs, in a folder named by its first two digits.
    """
    unfinished = {folder.name for folder in folders(root) if is_unfinished(folder)}
    if not unfinished:
        return ""
    return f"DVC's run-cache had {len(unfinished)} unfinished entries, which are removed"


def is_unfinished(folder: Path) -> bool:
    """Whether a folder held a temporary or empty file, which is removed, or nothing."""
    files = list(folder.iterdir())
    parts = [file for file in files if file.suffix == ".tmp" or not file.stat().st_size]
    for file in parts:
        file.unlink()
    if len(parts) == len(files):
        folder.rmdir()
    return bool(parts) or not files


def folders(root: Path) -> Iterator[Path]:
    """The folders of stages' inputs."""
    for first in (root / RUNS).glob("??"):
        yield from (folder for folder in first.iterdir() if folder.is_dir())
