"""A sweep: the stages that are not up to date, each as soon as its needs are met, so many at once.

DVC alone says what is up to date (`pipeline/sweep/record.py`); nothing here remembers it. A
`Runner` runs stages side by side: threads of this process, or Prefect's (`pipeline/sweep/flow.py`).

`kill -9` of a sweep leaves nothing in the way of the next: its commands are killed by a watchdog
(`pipeline/sweep/processes.py`), and until the last of them is gone they keep the clone's lock, for
which the next sweep waits; a training goes on from its checkpoint.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from pipeline.sweep.cells import CellError, Cells, Elsewhere, Outcome
from pipeline.sweep.devices import Devices
from pipeline.sweep.processes import Processes
from pipeline.sweep.record import Record, Verdict
from pipeline.sweep.schedule import ALONE, Schedule, estimate, read_json
from pipeline.sweep.selection import Options, Selection, select

FOLDER = Path(".sweep")
FIRST_DELAY = 5.0  # seconds before the second attempt; doubled before each further one


class Runner(Protocol):
    """Runs jobs side by side, each again where it raises a CellError that is not final."""

    def submit(self, name: str, job: Callable[[], Outcome], done: Callable[[], None]) -> None:
        """Start a stage's job; call `done` when it has ended, well or not."""

    def show(self, sweep: "Sweep") -> None:
        """The outcomes have changed."""

    def shut_down(self) -> None:
        """Wait for the jobs that run."""


@dataclass
class Sweep:
    """A sweep that has been planned.

    Attributes:
        selection: what was asked for.
        to_run: stages that are out of date or come after such a stage, with their needs.
        out_of_date: those that are out of date for certain.
        seconds: estimates.
        left_out: cells outside the selection that keep the tables from being made.
        outcomes: how each stage ended so far.
    """

    record: Record
    selection: Selection
    to_run: dict[str, set[str]]
    out_of_date: set[str]
    seconds: dict[str, float]
    left_out: list[str]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def up_to_date(self) -> int:
        """How many of the selected stages were up to date from the start."""
        return len(self.selection.stages - self.to_run.keys())

    def in_order(self) -> list[str]:
        """The stages in the order in which one worker would run them."""
        schedule, names = Schedule(self.to_run, self.seconds), []
        while name := schedule.next():
            names.append(name)
            schedule.done(name)
        return names

    def ended(self, *states: str) -> list[Outcome]:
        """The outcomes in one of these states."""
        return [outcome for outcome in list(self.outcomes.values()) if outcome.state in states]


def plan(options: Options, root: Path, say: Callable[[str], None]) -> Sweep:
    """Ask DVC what the selected stages need.

    Raises:
        InputError: the options, params.yaml or dvc.yaml have a mistake.
    """
    record = Record(root, say)
    record.heal()
    selection = select(record, options)
    changed = record.changed(record.stages if selection.last else selection.stages)
    left_out = []
    if selection.last:
        others = record.with_ancestors(selection.last) - selection.stages - selection.last
        left_out = sorted(others & after(changed, record))
        if not left_out:
            selection.stages.update(record.with_ancestors(selection.last))
    stale = after(changed & selection.stages, record) & selection.stages
    # in the order of declaration, which the schedule keeps among equals
    to_run = {name: record.needs(name) & stale for name in record.stages if name in stale}
    seconds = estimate(record, to_run, measured(root))
    return Sweep(record, selection, to_run, changed & stale, seconds, left_out)


def after(names: set[str], record: Record) -> set[str]:
    """These stages and all that need them, directly or not."""
    needed_by: dict[str, set[str]] = {}
    for name in record.stages:
        for needed in record.needs(name):
            needed_by.setdefault(needed, set()).add(name)
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(needed_by.get(name, ()))
    return found


def run(
    sweep: Sweep,
    runner: Runner,
    devices: Devices,
    lock: int,
    retries: int,
    say: Callable[[str], None],
    elsewhere: Elsewhere | None = None,
) -> None:
    """Run what the plan says; `sweep.outcomes` tells how it went.

    Ctrl-C, or any other end of this process but `kill -9`, ends the commands first; what had not
    ended is not recorded.

    Args:
        lock: file descriptor of the clone's lock, which the commands share.
        retries: further attempts for a stage that fails.
        elsewhere: other machines, for the trainings and evaluations.
    """
    processes = Processes([lock])
    cells = Cells(sweep.record, processes, devices, say, elsewhere)
    cells.outcomes = sweep.outcomes
    schedule = Schedule(sweep.to_run, sweep.seconds)
    ended: SimpleQueue[str] = SimpleQueue()
    running: set[str] = set()

    def free() -> bool:
        """Whether another stage may start; those that run alone are handed out first."""
        alone = any(name.startswith(ALONE) for name in running)
        return len(running) < devices.width and not alone

    def start() -> None:
        while free() and (name := schedule.next()):
            if name not in sweep.out_of_date and not sweep.record.changed([name]):
                sweep.outcomes[name] = Outcome(name, Verdict.UNCHANGED.value)
                schedule.done(name)
                continue
            running.add(name)
            runner.submit(
                name,
                lambda name=name: cells.attempt(name, retries),  # type: ignore[misc]
                lambda name=name: ended.put(name),  # type: ignore[misc]
            )

    def settle(name: str) -> None:
        outcome = sweep.outcomes.get(name) or Outcome(name, "failed", reason="it never started")
        if outcome.state in ("running", "retrying"):  # its runner gave it up
            outcome = Outcome(name, "failed", reason="its runner ended it")
        sweep.outcomes[name] = outcome
        if outcome.state in ("failed", "stopped"):
            state = "not run" if outcome.state == "failed" else "stopped"
            for other in schedule.failed(name):
                sweep.outcomes[other] = Outcome(other, state, reason=f"needs {name}")
        else:
            schedule.done(name)
        say(told(outcome, sweep))

    try:
        start()
        runner.show(sweep)
        while running:
            name = ended.get()
            running.discard(name)
            settle(name)
            start()
            runner.show(sweep)
    except BaseException:
        cells.stop()
        raise
    finally:
        runner.shut_down()
        while not ended.empty():
            settle(ended.get())
        for name in schedule.left:
            sweep.outcomes.setdefault(name, Outcome(name, "stopped"))
        processes.close()
        keep_measured(sweep)
        sweep.record.close()


class Threads:
    """Runs jobs in threads of this process, and each again where it fails."""

    def __init__(self, width: int, retries: int) -> None:
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="cell")
        self._retries = retries
        self._closing = threading.Event()

    def submit(self, name: str, job: Callable[[], Outcome], done: Callable[[], None]) -> None:
        self._pool.submit(self._repeat, job).add_done_callback(lambda _: done())

    def show(self, sweep: Sweep) -> None:
        """The lines on the terminal tell it all."""

    def shut_down(self) -> None:
        self._closing.set()
        self._pool.shutdown()

    def _repeat(self, job: Callable[[], Outcome]) -> Outcome:
        for attempt in range(self._retries + 1):
            try:
                return job()
            except CellError as error:
                if error.final or attempt == self._retries:
                    raise
            if self._closing.wait(FIRST_DELAY * 2**attempt):
                break
        raise CellError("stopped", final=True)


@contextmanager
def one_at_a_time(root: Path, say: Callable[[str], None]) -> Iterator[int]:
    """The clone's lock, a file descriptor; waits while another sweep of the clone has it."""
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            say(f"another sweep of this clone runs (process {file.read().strip()}): waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def measured(root: Path) -> dict[str, float]:
    """Seconds that stages took in earlier sweeps."""
    content = read_json(root / FOLDER / "seconds.json")
    return {name: float(value) for name, value in content.items() if isinstance(value, int | float)}


def keep_measured(sweep: Sweep) -> None:
    """Remember the seconds of the stages that ran to their end in one attempt."""
    seconds = measured(sweep.record.root)
    seconds |= {o.name: round(o.seconds, 1) for o in sweep.ended("done") if o.attempts == 1}
    path = sweep.record.root / FOLDER / "seconds.json"
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(seconds, indent=1))
    os.replace(temporary, path)


def told(outcome: Outcome, sweep: Sweep) -> str:
    """A line on a stage that has ended."""
    ended = len(sweep.outcomes) - len(sweep.ended("running", "retrying"))
    line = f"{outcome.name}  {outcome.state}"
    if outcome.state == "done":
        line += f" in {outcome.seconds:.1f} s"
    if outcome.loss is not None:
        line += f", epoch {outcome.epoch}, loss {outcome.loss:.4f}"
    if outcome.reason:
        line += f": {outcome.reason}"
    return f"{line}  [{ended}/{len(sweep.to_run)}]"


def summary(sweep: Sweep) -> str:
    """What is left to say at the end: what failed, with its last lines, and the counts."""
    lines = []
    for outcome in sweep.ended("failed"):
        lines.append(f"{outcome.name}: failed after {outcome.attempts} attempts: {outcome.reason}")
        lines += [f"    {line}" for line in outcome.lines]
    counts: Mapping[str, int] = {
        state: len(sweep.ended(state))
        for state in ("done", "restored", "unchanged", "failed", "not run", "stopped")
    }
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    lines.append(f"{sweep.up_to_date} stages up to date{', ' + said if said else ''}")
    if sweep.left_out:
        lines.append(
            f"tables and report not made: {len(sweep.left_out)} stages outside this selection are "
            "not up to date; `vmunet sweep` runs all"
        )
    return "\n".join(lines)
