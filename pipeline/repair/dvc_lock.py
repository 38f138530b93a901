"""dvc.lock after a kill: `dvc repro` rewrites the whole file for each stage, in 1 to 3 s.

A process that ends at this moment leaves an empty file or its first part; the part may be valid
YAML that lacks entries. A copy of the last whole file lies in .dvc/tmp. Entries are facts (such
inputs gave such outputs), which DVC compares with the files. So an entry that is older than the
lost one makes no result wrong: its stage comes from DVC's cache, or runs again.
"""

import subprocess
from pathlib import Path

from pipeline.repair.lock_text import LockText, is_whole, lost_entries, split
from vmunet.files import whole_file

LOCK = Path("dvc.lock")
COPY = Path(".dvc/tmp/dvc.lock.copy")
BEFORE = Path(".dvc/tmp/dvc.lock.before")  # the file before a repair
CONFLICT = "<<<<<<< "  # git's, which a person resolves


def repair_lock(root: Path, interrupted: bool) -> str:
    """Restore dvc.lock if it is damaged; copy it if it is whole.

    Entries that are missing at the end of a file that DVC can read are restored only if dvc was
    interrupted, and never in a file that git has: a person may have removed them, or chosen it.

    Args:
        root: the repository's root.
        interrupted: whether a dvc process ended while it may have written the file.

    Returns:
        What was done, in a line, or an empty string.
    """
    if not (root / LOCK).is_file():
        return ""
    text, copy = read(root / LOCK), read(root / COPY)
    if text and text == copy:
        return ""
    if CONFLICT in text:
        return f"{LOCK} has conflicts of a merge: resolve them, or take one side by git checkout"
    known = split(copy if is_whole(copy) else committed(root)) or LockText()
    found = split(text) or LockText()
    if not is_whole(text):
        return restore(root, text, found, known)
    lost = lost_entries(found, known)
    if not lost or is_in_git(root):
        write(root / COPY, text)
        return ""
    if interrupted:
        return restore(root, text, found, known)
    write(root / BEFORE, str(known))
    write(root / COPY, text)
    return (
        f"{LOCK} has {len(lost)} entries fewer than before, from {lost[0]} on; if you did not "
        f"remove them: cp {BEFORE} {LOCK}"
    )


def restore(root: Path, text: str, found: LockText, known: LockText) -> str:
    """Write the known entries, with those of the damaged text that are certainly whole."""
    whole = dict(list(found.entries.items())[:-1])  # the file ends in the last one
    merged = LockText(known.head, known.entries | whole, known.rest)
    write(root / BEFORE, text)
    if merged.entries:
        write(root / LOCK, str(merged))
        write(root / COPY, str(merged))
    else:
        (root / LOCK).unlink()  # DVC refuses a file without entries
    count = len(merged.entries)
    return (
        f"{LOCK} was cut off by a kill and is restored: {count} entries, of which {len(whole)} "
        f"were whole; the damaged file is {BEFORE}"
    )


def committed(root: Path) -> str:
    """dvc.lock in git's last commit; '' without one."""
    return git(root, "show", f"HEAD:./{LOCK}") or ""


def is_in_git(root: Path) -> bool:
    """Whether git has this very file in a commit or in its index, as after `git checkout`."""
    sha1 = git(root, "hash-object", str(LOCK))
    return bool(sha1) and git(root, "cat-file", "-e", str(sha1).strip()) is not None


def git(root: Path, *arguments: str) -> str | None:
    """What a command of git prints; None if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="surrogateescape")


def read(path: Path) -> str:
    """The text of a file, of whatever bytes; '' if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


def write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape")
