"""The process that an entry on a tracker's page belongs to, and whether that process is dead.

A process is known by its machine and by its id with its start: ids are given again, also after a
restart of the machine. Only a process of this machine can be found dead.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

HOST, PROCESS = "host", "process"
FIRST_NAMESPACE = "pid:[4026531836]"  # of process ids, outside of containers
START = 19  # the field of /proc/<id>/stat after the process's name: ticks since the machine's start


def owner() -> dict[str, str]:
    """The tags of what belongs to this process."""
    return {HOST: machine(), PROCESS: process(os.getpid())}


def is_dead(tags: Mapping[str, str]) -> bool:
    """Whether the owner was a process of this machine and has ended."""
    known = tags.get(PROCESS, "")
    number = known.partition(" ")[0]
    if tags.get(HOST) != machine() or not number.isdecimal():
        return False
    return process(int(number)) != known


def machine() -> str:
    """The machine's name. A container is another machine: it cannot see the others' processes."""
    name = socket.gethostname()
    with suppress(OSError):  # only Linux has namespaces
        space = os.readlink("/proc/self/ns/pid")
        return name if space == FIRST_NAMESPACE else f"{name} {space}"
    return name


def process(number: int) -> str:
    """The id of a running process with its start; '' if there is no such process."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{number}/stat").read_text(errors="replace")
        except OSError:
            return ""
        state, *fields = stat.rpartition(")")[2].split()
        # No wall clock: it may be set while the process runs.
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return "" if state in "ZX" else f"{number} {boot}-{fields[START - 1]}"
    import psutil

    try:
        found = psutil.Process(number)
        is_over = found.status() == psutil.STATUS_ZOMBIE
        return "" if is_over else f"{number} {found.create_time():.2f}"
    except psutil.Error:
        return ""
