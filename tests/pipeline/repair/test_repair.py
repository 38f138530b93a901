"""DVC's records after a kill at any moment: what is restored, and what a person did stays."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import dumps_yaml, loads_yaml

from pipeline.repair.dvc_lock import BEFORE, COPY, repair_lock
from pipeline.repair.guard import dvc_of_stage, guard
from pipeline.repair.locks import GUARDS
from pipeline.repair.repair import repair
from pipeline.repair.run_cache import RUNS
from pipeline.repair.rwlock import RWLOCK
from tests.helpers.paths import ROOT

NAMES = ("code", "download@isic17", "train@a-1", "evaluate@a-1", "tables")


def entry(name: str, version: int) -> dict:
    md5 = f"{version}{name}".encode().hex()
    out = {"path": f"data/{name}", "hash": "md5", "md5": md5, "size": 12345, "nfiles": 3}
    return {
        "cmd": f"python -m stages.{name}",
        "deps": [out | {"path": f"in/{name}"}],
        "params": {"params.yaml": {"cell": {"rate": 0.1 * version, "sizes": [1, 2]}, "name": None}},
        "outs": [out, out | {"path": f"more/{name}"}],
    }


def lock_of(**versions: int) -> str:
    stages = {name: entry(name, versions.get(name, 1)) for name in NAMES}
    new = {name: entry(name, version) for name, version in versions.items()}
    return dumps_yaml({"schema": "2.0", "stages": stages | new})


OLD = lock_of()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose dvc.lock was copied."""
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    lock(tmp_path, OLD)
    assert repair(tmp_path) == []
    assert (tmp_path / COPY).read_text() == OLD
    return tmp_path


def lock(root: Path, text: str | None = None) -> str:
    if text is not None:
        (root / "dvc.lock").write_text(text)
    return (root / "dvc.lock").read_text()


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


@pytest.mark.parametrize("recorded", ["download@isic17", "tables", "added"])
def test_a_lock_that_is_cut_anywhere_is_one_that_dvc_reads(root: Path, recorded: str) -> None:
    new = lock_of(**{recorded: 2})
    before, after = loads_yaml(OLD)["stages"], loads_yaml(new)["stages"]
    for length in range(0, len(new), 67):
        (root / COPY).write_text(OLD)
        lock(root, new[:length])
        line = repair_lock(root, interrupted=True)
        healed = COMPILED_LOCKFILE_SCHEMA(loads_yaml(lock(root)))["stages"]
        assert before.keys() <= healed.keys(), length
        part = (
            {"tables"} if len(new) - length < 250 else set()
        )  # DVC sees that an output is missing
        for name in before.keys() - part:
            assert healed[name] in (before[name], after[name]), (length, name)
        if length < len(OLD) - 200:
            assert "restored" in line
            assert (root / BEFORE).read_text() == new[:length]
    lock(root, new)
    assert repair_lock(root, interrupted=True) == ""
    assert lock(root) == (root / COPY).read_text() == new


def test_without_a_copy_the_entries_of_the_last_commit_are_taken(root: Path) -> None:
    git(root, "init", "-q")
    git(root, "add", "dvc.lock")
    git(root, "commit", "-qm", "lock")
    (root / COPY).unlink()
    lock(root, lock_of(code=2)[:900])
    (line,) = repair(root)
    assert "5 entries, of which 1 were whole" in line
    assert lock(root) == lock_of(code=2)


def test_without_copy_and_commit_the_whole_entries_stay(root: Path) -> None:
    (root / COPY).unlink()
    lock(root, OLD[:900])
    repair(root)
    assert list(loads_yaml(lock(root))["stages"]) == ["code"]
    for text in ("", "schema: '2.0'\nstages:\n", "\0" * 900):
        (root / COPY).unlink(missing_ok=True)
        lock(root, text)
        assert repair(root)
        assert not (root / "dvc.lock").exists()  # DVC refuses a file without entries
        assert repair(root) == []


def test_entries_that_a_person_removed_stay_removed(root: Path) -> None:
    shorter = OLD[: OLD.index("  evaluate@a-1")]
    lock(root, shorter)
    (line,) = repair(root)
    assert "2 entries fewer than before, from evaluate@a-1 on" in line
    assert lock(root) == shorter
    assert (root / BEFORE).read_text() == OLD  # the line names it
    assert repair(root) == []
    middle = OLD[: OLD.index("  train@a-1")] + OLD[OLD.index("  tables") :]
    lock(root, OLD)
    repair(root)
    lock(root, middle)
    assert repair(root, interrupted=True) == []
    assert lock(root) == middle


def test_a_lock_from_git_stays(root: Path) -> None:
    git(root, "init", "-q")
    shorter = OLD[: OLD.index("  evaluate@a-1")]
    lock(root, shorter)
    git(root, "add", "dvc.lock")
    git(root, "commit", "-qm", "lock")
    lock(root, OLD)
    assert repair(root) == []
    git(root, "checkout", "dvc.lock")
    assert repair(root, interrupted=True) == []
    assert lock(root) == shorter == (root / COPY).read_text()


def test_a_merge_is_left_to_the_person(root: Path) -> None:
    text = OLD.replace("  train@a-1", "<<<<<<< HEAD\n  train@a-1")
    lock(root, text)
    assert "conflicts" in repair(root, interrupted=True)[0]
    assert lock(root) == text


def test_no_lock_is_no_damage(root: Path) -> None:
    (root / "dvc.lock").unlink()
    assert repair(root, interrupted=True) == []
    assert not (root / "dvc.lock").exists()


def test_a_guard_that_was_killed_tells_of_the_interruption(root: Path) -> None:
    (root / GUARDS).mkdir()
    (root / GUARDS / "77").touch()
    lock(root, OLD[: OLD.index("  evaluate@a-1")])
    assert "restored" in repair(root)[0]
    assert lock(root) == OLD
    assert not list((root / GUARDS).iterdir())


def test_another_process_that_changes_the_records_is_left_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zc.lockfile

    monkeypatch.setattr("pipeline.repair.locks.PATIENCE_SECONDS", 0.1)
    lock(root, OLD[:500])
    held = zc.lockfile.LockFile(str(root / ".dvc/tmp/lock"))
    assert repair(root, interrupted=True) == []
    assert lock(root) == OLD[:500]
    held.close()
    assert repair(root)


def test_the_guard_repairs_when_dvc_is_killed(root: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as dvc:
        (root / GUARDS).mkdir()
        guards = [threading.Thread(target=guard, args=(dvc.pid, root)) for _ in range(2)]
        for one in guards:
            one.start()
        deadline = time.monotonic() + 10
        while all(one.is_alive() for one in guards) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sum(one.is_alive() for one in guards) == 1  # a second one ends at once
        lock(root, OLD[:500])
        dvc.kill()  # and not yet waited for: a zombie has ended
        for one in guards:
            one.join(timeout=10)
    assert lock(root) == OLD
    assert not (root / GUARDS / str(dvc.pid)).exists()


def test_the_guard_finds_dvc_above_the_shell() -> None:
    code = "from pipeline.repair.guard import dvc_of_stage; print(dvc_of_stage().pid)"
    shell = f"true; {sys.executable} -c '{code}'; true"  # the shell stays, a process between
    variables = os.environ | {"DVC_STAGE": "train", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", shell], env=variables, capture_output=True, check=True)
    assert int(done.stdout) == os.getpid() == dvc_of_stage().pid


def test_the_run_cache_keeps_whole_entries_alone(root: Path) -> None:
    names = {"empty": [], "part": [".a.tmp"], "both": [".b.tmp", "1"], "zero": ["2"], "good": ["3"]}
    for name, files in names.items():
        (root / RUNS / name[:2] / name).mkdir(parents=True)
        for file in files:
            (root / RUNS / name[:2] / name / file).write_text("" if file == "2" else "cmd: true\n")
    assert repair(root) == ["DVC's run-cache had 4 unfinished entries, which are removed"]
    left = [path.relative_to(root / RUNS).as_posix() for path in (root / RUNS).glob("*/*/*")]
    assert sorted(left) == ["bo/both/1", "go/good/3"]
    assert not (root / RUNS / "em/empty").exists()
    assert repair(root) == []


@pytest.mark.parametrize("text", ["", "{", '{"write": [1]}', '{"read": {"a": [{}]}}'])
def test_an_rwlock_that_dvc_cannot_read_is_removed(root: Path, text: str) -> None:
    (root / RWLOCK).write_text(text)
    assert repair(root) == ["DVC's rwlock was cut off by a kill and is removed"]
    assert not (root / RWLOCK).exists()


def test_the_rwlock_keeps_the_entries_of_processes_that_run(root: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    mine, theirs = ({"pid": pid, "cmd": "repro"} for pid in (os.getpid(), ended.pid))
    content = {"write": {"a": mine, "b": theirs}, "read": {"c": [mine, theirs], "d": [theirs]}}
    (root / RWLOCK).write_text(json.dumps(content))
    assert "named 1 processes that have ended" in repair(root)[0]
    assert json.loads((root / RWLOCK).read_text()) == {"write": {"a": mine}, "read": {"c": [mine]}}
    os.utime(root / RWLOCK, (1e9, 1e9))  # before a restart: the number is another process's now
    assert repair(root)
    assert json.loads((root / RWLOCK).read_text()) == {"write": {}, "read": {}}
