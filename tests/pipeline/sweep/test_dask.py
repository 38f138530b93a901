"""Sweeps on a real Dask cluster of this machine: two workers, each in its own clone."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers.sweep import (
    NAME,
    ONE,
    add_code,
    environment,
    make_project,
    ran,
    start,
    sweep,
    tool,
)
from vmunet.errors import InputError

pytestmark = pytest.mark.slow  # a cluster's schedulers and workers start for each test

Client = pytest.importorskip("distributed").Client

IGNORED = """\
/.sweep/
/arrays
/runs/
/scores/
/tables.txt
/ran.txt
/pid
/environment
/.fingerprints/
/code.txt
"""
CLEAN = "Data and pipelines are up to date.\n"


@dataclass
class Machines:
    """A project, its remote, and workers in clones."""

    folder: Path
    address: str
    project: Path = field(init=False)
    workers: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def make(self, code: bool = False, **options) -> None:
        """Make a committed project with a remote, and with a stage `code` if `code`."""
        self.project = self.folder / "own"
        self.project.mkdir()
        make_project(self.project, **options)
        if code:
            add_code(self.project)
        (self.project / ".gitignore").write_text(IGNORED)
        tool(
            self.project, "dvc", "remote", "add", "-q", "-d", "shared", str(self.folder / "remote")
        )
        self.commit()

    def commit(self) -> None:
        who = ("-c", "user.name=tests", "-c", "user.email=tests@localhost")
        tool(self.project, "git", "add", "-A")
        tool(self.project, "git", *who, "commit", "-q", "-m", "project")

    def change(self, path: str, text: str) -> None:
        """Commit a change of a file, and pull it into the workers' clones."""
        (self.project / path).write_text(text)
        self.commit()
        for name in self.workers:
            tool(self.folder / name, "git", "pull", "-q")

    def clone(self, name: str) -> Path:
        tool(self.folder, "git", "clone", "-q", "own", name)
        return self.folder / name

    def work(self, *clones: Path, **more: str) -> None:
        """Start a worker in each clone, and wait for them."""
        options = ["--host", "127.0.0.1", "--no-dashboard", "--no-nanny", "--nthreads", "2"]
        for clone in clones:
            self.workers[clone.name] = dask("worker", clone, self.address, *options, **more)
        self._wait()

    def end(self, *names: str) -> None:
        """Kill these workers."""
        for name in names:
            process = self.workers.pop(name)
            process.kill()
            process.wait()
        self._wait()

    def _wait(self) -> None:
        """Wait until the scheduler knows exactly these workers."""
        with Client(self.address, set_as_default=False) as client:
            wait_until(lambda: len(client.nthreads()) == len(self.workers))

    def sweep(self, *arguments: str, **more: str) -> "subprocess.Popen[str]":
        options = ("--runner", "dask", "--address", self.address)
        return start(self.project, *options, *arguments, **more)

    def ran(self) -> list[str]:
        """The lines that the commands wrote, in all clones."""
        clones = [self.project, *(self.folder / name for name in self.workers)]
        return sorted(line for clone in clones for line in ran(clone))


def dask(kind: str, folder: Path, *options: str, **more: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
    with open(folder.parent / f"{folder.name}.log", "w") as log:
        return subprocess.Popen(
            command, cwd=folder, env=environment(**more), stdout=log, stderr=log
        )


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("scheduler")
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"]
    process = dask("scheduler", folder, *options, "--scheduler-file", "address.json")
    try:
        wait_until((folder / "address.json").exists)
        yield json.loads((folder / "address.json").read_text())["address"]
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def machines(tmp_path: Path, scheduler: str) -> Iterator[Machines]:
    made = Machines(tmp_path, scheduler)
    yield made
    made.end(*made.workers)


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_workers_run_each_cell_once(machines: Machines) -> None:
    where = "echo $VMUNET_THREADS $MLFLOW_TRACKING_URI > environment"
    machines.make(seeds=6, train=f"{ONE} && {where} && sleep 0.5")
    machines.work(machines.clone("one"), machines.clone("two"))
    process = machines.sweep(MLFLOW_TRACKING_URI="http://127.0.0.1:5000")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert "14 stages to run, 0 up to date; 2 Dask workers" in output
    assert machines.ran() == sorted([*(f"{NAME}{seed}" for seed in range(1, 7)), "preprocess"])
    assert ran(machines.project) == ["preprocess"]
    for name in ("one", "two"):
        clone = machines.folder / name
        assert ran(clone)
        assert (clone / "environment").read_text().split() == ["2", "http://127.0.0.1:5000"]
        assert not (clone / "dvc.lock").exists()
    assert tool(machines.project, "dvc", "status") == CLEAN
    assert "Running stage" not in tool(machines.project, "dvc", "repro")
    # another clone gets all outputs from the remote and needs only the committed files
    machines.commit()
    third = machines.clone("third")
    tool(third, "dvc", "pull", "-q", "--run-cache", *(f"evaluate@{NAME}{s}" for s in range(1, 7)))
    assert (third / f"scores/{NAME}3").read_text() == f"{NAME}3\n"
    # stages in the remote's run-cache are fetched and do not run
    (machines.project / "dvc.lock").unlink()
    for made in ("runs", "scores", ".dvc/cache"):
        tool(machines.project, "rm", "-rf", made)
    machines.change("reason", "")
    process = machines.sweep()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert "1 done, 13 restored" in output
    assert len(machines.ran()) == 7
    # stages with other params run, although the clones have outputs
    machines.change("params.yaml", "rate: 2\n")
    process = machines.sweep()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert len(machines.ran()) == 13


def test_a_worker_makes_the_fingerprints_of_its_own_clone(machines: Machines) -> None:
    machines.make(seeds=2, code=True)
    clone = machines.clone("one")
    machines.work(clone)
    process = machines.sweep()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert "0 stages up to date, 6 done" in output
    assert (clone / "code.txt").read_text() == "code\n"  # once for its four cells
    assert not (clone / "dvc.lock").exists()
    own, made = (folder / ".fingerprints/train" for folder in (machines.project, clone))
    assert own.read_text() == made.read_text()
    assert list(json.loads(tool(machines.project, "dvc", "status", "--json"))) == ["code"]


WAITS = f"{ONE} && echo $$ > pid && until [ -f ../go ]; do sleep 0.1; done"


def test_killing_a_worker_loses_nothing(machines: Machines) -> None:
    machines.make(seeds=4, train=WAITS)
    clones = [machines.clone(name) for name in ("one", "two")]
    machines.work(*clones)
    process = machines.sweep()
    wait_until(lambda: all((clone / "pid").exists() for clone in clones))
    (lost,) = ran(clones[0])
    machines.workers["one"].send_signal(signal.SIGKILL)
    wait_until(lambda: not lives(clones[0] / "pid"), 5)
    assert lives(clones[1] / "pid")
    (machines.folder / "go").touch()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert f"train@{lost}  its worker tcp://127.0.0.1:" in output
    assert "was lost; trying again" in output
    assert "was lost, 1 left" in output
    counts = {name: machines.ran().count(name) for name in set(machines.ran())}
    assert counts.pop(lost) == 2
    assert list(counts.values()) == [1, 1, 1, 1]
    assert tool(machines.project, "dvc", "status") == CLEAN


def test_commands_end_with_the_sweep(machines: Machines) -> None:
    machines.make(seeds=2, train=WAITS)
    clone = machines.clone("one")
    machines.work(clone)
    for number in (signal.SIGINT, signal.SIGKILL):
        process = machines.sweep()
        wait_until(lambda: lives(clone / "pid"))
        process.send_signal(number)
        process.communicate(timeout=30)
        wait_until(lambda: not lives(clone / "pid"), 5)
    (machines.folder / "go").touch()
    process = machines.sweep()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert len(machines.ran()) == 5  # preprocess, two cells, and the two that were ended
    assert tool(machines.project, "dvc", "status") == CLEAN


def test_a_clone_that_differs_is_refused(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.make(seeds=1)
    monkeypatch.chdir(machines.project)
    clone = machines.clone("one")
    (clone / "params.yaml").write_text("rate: 2\n")
    machines.work(clone)
    assert f"{clone} has other uncommitted changes than the sweep's clone" in refusal(
        machines.address
    )
    tool(clone, "git", "checkout", "-q", "params.yaml")
    (machines.project / "new").touch()
    machines.commit()
    assert f"{clone} is at " in refusal(machines.address)
    tool(machines.project, "dvc", "remote", "default", "-q", "--unset")
    assert refusal(machines.address).startswith(
        "no default DVC remote, through which the clones share"
    )
    assert machines.ran() == []


def test_a_worker_without_a_clone_is_refused(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.make(seeds=1)
    monkeypatch.chdir(machines.project)
    machines.work(machines.project)
    assert "is the clone that the sweep runs in: give the worker its own clone" in refusal(
        machines.address
    )
    machines.end("own")
    elsewhere = machines.folder / "elsewhere"
    elsewhere.mkdir()
    machines.work(elsewhere, VMUNET_CLONE=str(machines.folder / "none"))
    assert "none is not a clone of this repository: start the worker in a clone" in refusal(
        machines.address
    )


def test_a_wrong_address_is_one_sentence() -> None:
    began = time.monotonic()
    assert refusal("tcp://127.0.0.1:9") == (
        "--address tcp://127.0.0.1:9: no Dask scheduler answers there; expected tcp://HOST:8786"
    )
    assert time.monotonic() - began < 15
    assert refusal("nonsense").startswith("--address nonsense: no ")
    assert refusal("").startswith("--runner dask needs the scheduler's address")


def refusal(address: str) -> str:
    """The message of a sweep of the current folder's project that refuses its input."""
    with pytest.raises(InputError) as error:
        sweep(runner="dask", address=address)
    return str(error.value)


def lives(path: Path) -> bool:
    """Whether the process whose number is in a file runs."""
    try:
        return "Z" not in Path(f"/proc/{int(path.read_text())}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
