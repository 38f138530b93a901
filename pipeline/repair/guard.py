"""Repair DVC's records as soon as `dvc repro` or `vmunet sweep` has ended, for whatever reason.

A stage that `dvc repro` runs calls `guard_stage`: dvc.lock is whole at this moment and is copied.
It starts this file as a process of its own session, which a kill of dvc's group does not reach. It
waits until dvc has ended, and then restores what dvc left half written.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.repair.locks import GUARDS, try_lock
from pipeline.repair.repair import repair

if TYPE_CHECKING:
    import psutil

STAGE = "DVC_STAGE"  # DVC sets it for a stage's command
RECORDED = "VMUNET_RECORDED"  # `pipeline/dvc` sets it: not DVC but a sweep records the stage
POLL_SECONDS = 0.1


def guard_stage(root: Path = Path(".")) -> None:
    """Guard the dvc process that runs this stage, if there is one that is not guarded."""
    if STAGE in os.environ and RECORDED not in os.environ and os.name == "posix":
        with suppress(OSError):  # a full disk is reported by the stage itself
            repair(root)
            pid = dvc_of_stage().pid
            if pid != 1:  # otherwise dvc has ended already
                start_guard(pid, root)


def start_guard(pid: int, root: Path = Path(".")) -> None:
    """Start a process that waits for the end of another one and then repairs DVC's records."""
    if not (root / ".dvc").is_dir():  # the command itself says so
        return
    path = root / GUARDS / str(pid)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        if not try_lock(file):  # its guard holds it
            return
    subprocess.Popen(
        [sys.executable, "-m", "pipeline.repair.guard", str(pid)],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def dvc_of_stage() -> "psutil.Process":
    """The nearest process above this one that is not part of a stage's command."""
    import psutil

    process = psutil.Process()
    with suppress(psutil.Error):
        while STAGE in process.environ() and (parent := process.parent()):
            process = parent
    return process


def guard(pid: int, root: Path = Path(".")) -> None:
    """Wait for the end of the process, then repair; return at once if it has a guard."""
    path = root / GUARDS / str(pid)
    with open(path, "a") as file:
        if not try_lock(file):
            return
        while is_running(pid):
            time.sleep(POLL_SECONDS)
        repair(root, interrupted=True)
        path.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether there is a process of this number that has not ended."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    guard(int(sys.argv[1]))
