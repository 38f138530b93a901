"""A local store whose clone was moved or copied: its files belong into the clone of now.

MLflow stores a folder for each experiment, run and model, and makes every path absolute. A relative
one would be read from wherever a notebook or a server stands. So the paths are absolute, and the
start of the folder that the clone had is replaced.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

# The columns that hold the folder of an artifact, those of experiments first.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
BUSY_SECONDS = 5.0


def bring_home(store: Path, artifacts: Path) -> None:
    """Let the entries of a store name this clone's folders instead of those of an earlier place.

    If the store cannot be read or written, nothing happens: whoever uses it next reports that.

    Args:
        store: the SQLite file, in the clone's root.
        artifacts: the folder of the clone's artifacts, beside it. If it does not exist, earlier
            runs keep the place that they have.
    """
    with suppress(sqlite3.Error, OSError), closing(_open(store)) as database, database:
        root = store.absolute().parent
        found = database.execute("SELECT DISTINCT artifact_location FROM experiments")
        earlier = {_root_of(place or "", artifacts.name) for (place,) in found}
        for old in earlier - {None, root}:
            assert old is not None
            if _is_elsewhere(old, root, store.name, artifacts.name):
                _replace(database, old, root, artifacts)


def _open(store: Path) -> sqlite3.Connection:
    # Not by its address, in which a % or a ? of a folder has a meaning.
    return sqlite3.connect(store, timeout=BUSY_SECONDS)


def _root_of(place: str, artifacts: str) -> Path | None:
    """The root of the clone that wrote an experiment's folder; None if no clone did."""
    path = Path(unquote(urlsplit(place).path) if place.startswith("file:") else place)
    if path.is_absolute() and path.name == artifacts:
        return path.parent
    if path.is_absolute() and path.parts[-2:] == ("mlruns", "0"):  # MLflow's own experiment
        return path.parents[1]
    return None


def _is_elsewhere(old: Path, root: Path, store: str, artifacts: str) -> bool:
    """Whether that was a clone: not a folder of artifacts that a person chose, nor this folder."""
    # os.path takes a folder that may not be read for one that does not exist
    if os.path.exists(old / artifacts) and not os.path.exists(old / store):
        return False
    return not (os.path.exists(old) and old.samefile(root))


def _replace(database: sqlite3.Connection, old: Path, root: Path, artifacts: Path) -> None:
    for table, column in COLUMNS if artifacts.is_dir() else COLUMNS[:1]:
        for before, after in ((old.as_uri(), root.as_uri()), (str(old), str(root))):
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ?",
                (after, len(before) + 1, len(before) + 1, f"{before}/"),
            )
