"""Repair all records of a repository."""

import os
from pathlib import Path

from pipeline.repair.dvc_lock import repair_lock
from pipeline.repair.locks import GUARDS, held, try_lock
from pipeline.repair.run_cache import repair_run_cache
from pipeline.repair.rwlock import repair_rwlock


def repair(root: Path = Path("."), interrupted: bool = False) -> list[str]:
    """Repair DVC's records, unless another process is changing them; copy dvc.lock if it is whole.

    Args:
        root: the repository's root.
        interrupted: whether a dvc process has ended just now. Otherwise entries that dvc.lock has
            lost are only restored if a dvc process ended together with its guard, because a person
            may have removed them.

    Returns:
        A line for each thing that was repaired or that a person should know.
    """
    if os.name != "posix" or not (root / ".dvc").is_dir():
        return []
    with held(root / ".dvc/tmp/lock") as free:
        if not free:
            return []
        interrupted |= dead_guards_removed(root)
        lines = [repair_lock(root, interrupted), repair_run_cache(root)]
        with held(root / ".dvc/tmp/rwlock.lock") as also_free:
            lines += [repair_rwlock(root)] if also_free else []
    return [line for line in lines if line]


def dead_guards_removed(root: Path) -> bool:
    """Remove the files of guards that were killed; return whether there were any."""
    dead = False
    for path in (root / GUARDS).glob("*"):
        with open(path, "r+") as file:
            if try_lock(file):
                path.unlink(missing_ok=True)
                dead = True
    return dead
