"""A fork of the warm process does what a new interpreter would do."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.sweep.processes import Processes
from pipeline.sweep.warm import client, server
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks only on Linux")

STAGE = '''
"""A stage that tells what it sees, and ends as it is told."""
import os, signal, sys, threading
from pathlib import Path
from pipeline.stage import run_stage
from vmunet.errors import InputError

def main():
    kind, *rest = sys.argv[1:]
    print(Path(sys.argv[0]).name, rest, __name__, os.getcwd(), os.environ["DVC_STAGE"])
    print(sys.stdin.read() == "", sorted(name for name in os.environ if name.startswith("DVC")))
    print("error stream", file=sys.stderr)
    if kind == "wrong":
        raise InputError("a.png: no image")
    if kind == "bug":
        raise ValueError("a mistake")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "threads":
        threading.Thread(target=lambda: print("at the end")).start()
    if kind == "behind":
        if os.fork() == 0:
            Path("behind").write_text(str(os.getpid()))
            signal.pause()
        while not Path("behind").exists():
            pass
    if kind == "wait":
        Path("pid").write_text(str(os.getpid()))
        signal.pause()
    if kind == "version":
        from vmunet.version_of_test import VERSION
        print(VERSION)

if __name__ == "__main__":
    run_stage(main)
'''
IMPORTS = '("pipeline.stage", "vmunet.version_of_test")'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Sources whose only stage is `probe`, and whose warm process imports almost nothing."""
    for name in ("pipeline/stage.py", "pipeline/fingerprint.py", "vmunet/errors.py"):
        copy(name, tmp_path)
    for name in ("vmunet/files.py", "vmunet/utf8.py", "pipeline/sweep/warm/server.py"):
        copy(name, tmp_path)
    for path in ("pipeline/install.py", *sorted(Path(ROOT, "pipeline/repair").glob("*.py"))):
        copy(Path(ROOT, path).relative_to(ROOT).as_posix(), tmp_path)
    for folder in ("pipeline", "pipeline/sweep", "pipeline/sweep/warm", "vmunet", "stages"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "vmunet/version_of_test.py").write_text("VERSION = 'first'\n")
    path = tmp_path / "pipeline/sweep/warm/server.py"
    text = re.sub(r"IMPORTS = \(.*?\n\)", f"IMPORTS = {IMPORTS}", path.read_text(), flags=re.DOTALL)
    text = text.replace('importlib.import_module("vmunet.scan.cpu").warm_up()', "")
    path.write_text(text)
    (tmp_path / "stages/probe.py").write_text(STAGE)
    return tmp_path


def copy(name: str, root: Path) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text((ROOT / name).read_text())


@pytest.fixture
def processes() -> Iterator[Processes]:
    made = Processes()
    yield made
    made.stop()
    made.close()


def options(root: Path, **more: str) -> dict[str, Any]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH",)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"cwd": str(root), "env": kept | {"PATH": path, "DVC_STAGE": "", **more}}


def command(*words: str) -> list[list[str] | str]:
    return [["/bin/sh", "-c", f"python -m stages.probe {' '.join(words)}"]]


def cold(root: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "stages.probe", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        **options(root, PYTHONUNBUFFERED="1"),
    )
    return done.returncode, done.stdout


def warm(processes: Processes, root: Path, *words: str) -> tuple[int, str]:
    log = root / f"{words[0]}.log"
    with open(log, "ab") as file:
        status = processes.run(command(*words), options(root, PYTHONUNBUFFERED="1"), file)
    return status, log.read_text()


@pytest.mark.parametrize("kind", ["well", "wrong", "killed", "threads"])
def test_the_same_messages_and_exit_status(root: Path, processes: Processes, kind: str) -> None:
    words = (kind, "a/b", "x=1")
    assert warm(processes, root, *words) == cold(root, *words)
    assert (root / client.LOG).exists()  # there is a warm process


def test_a_traceback_starts_in_the_stage(root: Path, processes: Processes) -> None:
    status, text = warm(processes, root, "bug")
    expected, other = cold(root, "bug")
    assert status == expected == 1
    shown = text.partition("Traceback")[2].split("\n")[1:]
    assert shown[0].endswith('stages/probe.py", line 35, in <module>')
    assert other.endswith("\n".join(shown))


def test_what_a_stage_leaves_behind_is_killed(root: Path, processes: Processes) -> None:
    assert warm(processes, root, "behind")[0] == 0
    left = int((root / "behind").read_text())
    deadline = time.monotonic() + 20
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_changed_code_runs_in_a_new_warm_process(root: Path, processes: Processes) -> None:
    assert warm(processes, root, "version")[1].endswith("first\n")
    (root / "vmunet/version_of_test.py").write_text("VERSION = 'second'\n")
    assert warm(processes, root, "version")[1].endswith("second\n")


def test_a_warm_process_that_was_killed_is_replaced(root: Path, processes: Processes) -> None:
    assert warm(processes, root, "well")[0] == 0
    first = processes._warm._process
    assert first is not None
    first.kill()
    first.wait()
    assert warm(processes, root, "well")[0] == 0
    assert processes._warm._process is not first


def test_one_that_cannot_start_leaves_new_interpreters(root: Path, processes: Processes) -> None:
    (root / "pipeline/sweep/warm/server.py").write_text("raise SystemExit(3)\n")
    assert warm(processes, root, "well", "x") == cold(root, "well", "x")


def test_stop_ends_a_fork(root: Path, processes: Processes) -> None:
    child = start(processes, root, "wait")
    assert child is not None
    while not (root / "pid").exists():
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGTERM)
    child.wait_for_end()
    assert child.status() == -signal.SIGTERM


def test_another_number_of_threads_needs_a_new_interpreter(
    root: Path, processes: Processes
) -> None:
    assert warm(processes, root, "well")[0] == 0
    other = options(root, PYTHONUNBUFFERED="1", OMP_NUM_THREADS="63")
    with open(root / "log", "wb") as log:
        assert processes._warm.start(command("well")[0], other, log) is None
        assert processes._warm.start(["/bin/sh", "-c", "echo a && echo b"], other, log) is None


def test_a_fork_holds_the_lock_that_it_inherits(root: Path) -> None:
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        processes = Processes([lock.fileno()])
        child = start(processes, root, "wait")
        assert child is not None
        processes.close()
    with open(root / "lock", "w") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.killpg(child.pid, signal.SIGKILL)
        fcntl.flock(lock, fcntl.LOCK_EX)
    child.status()


def start(processes: Processes, root: Path, *words: str) -> client.WarmChild | None:
    with open(root / "start.log", "wb") as log:
        return processes._warm.start(command(*words)[0], options(root), log)


def test_every_import_exists_and_starts_no_thread() -> None:
    lines = (
        "import os; from pipeline.sweep.warm import server",
        "os.environ.update(server.NO_THREADS); server.import_all()",
        "print(len(os.listdir('/proc/self/task')))",
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "1", done.stderr
    assert server.IMPORTS
