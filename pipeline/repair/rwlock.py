"""DVC's rwlock after a kill: which process reads and writes which path, as JSON."""

import json
from pathlib import Path
from typing import Any

from vmunet.files import whole_file

RWLOCK = Path(".dvc/tmp/rwlock")


def repair_rwlock(root: Path) -> str:
    """Remove a file that DVC cannot read, and entries of processes that have ended.

    DVC asks only whether there is a process of this number. After a restart, in a container above
    all, another process has it. A process that began after the file was written did not enter it.

    Returns:
        What was done, in a line, or an empty string.
    """
    path = root / RWLOCK
    try:
        written = path.stat().st_mtime
        content = json.loads(path.read_bytes())
        entries = [(kind, place, one) for kind, place, ones in rows(content) for one in ones]
        pids = {int(entry["pid"]) for _, _, entry in entries}
    except FileNotFoundError:
        return ""
    except (ValueError, TypeError, KeyError, AttributeError):
        path.unlink()
        return "DVC's rwlock was cut off by a kill and is removed"
    dead = {pid for pid in pids if not ran(pid, written)}
    if not dead:
        return ""
    left: dict[str, dict[str, Any]] = {"write": {}, "read": {}}
    for kind, place, entry in entries:
        if int(entry["pid"]) not in dead:
            if kind == "write":
                left[kind][place] = entry
            else:
                left[kind].setdefault(place, []).append(entry)
    with whole_file(path) as part:
        part.write_text(json.dumps(left))
    return f"DVC's rwlock named {len(dead)} processes that have ended; they are removed"


def rows(content: Any) -> list[tuple[str, str, list[Any]]]:
    """(write or read, path, entries) of the file's content."""
    writes = [("write", place, [entry]) for place, entry in content.get("write", {}).items()]
    return writes + [("read", place, entries) for place, entries in content.get("read", {}).items()]


def ran(pid: int, when: float) -> bool:
    """Whether the process of this number runs and had begun at that time (s since 1970)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return process.create_time() <= when + 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
