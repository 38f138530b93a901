"""The stages that a sweep runs, and their order.

DVC decides which stages are up to date (`pipeline/dvc/record.py`); this module stores nothing
about it. Of the stages that can start, those that measure time (`ALONE`) come first, and no other
stage runs meanwhile. Then come prerequisites, evaluations, trainings, and reports; among equals
the longest comes first.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.dvc.record import Record
from pipeline.sweep.options import SweepOptions
from pipeline.sweep.selection import CELL, Selection, select
from pipeline.sweep.stage_runner import ALONE, StageOutcome, read_json, run_json
from vmunet.errors import InputError

UNKNOWN_SECONDS = 1.0
PAPER_BLOCKS = 15
MEASURED = Path(".sweep") / "seconds.json"  # durations of stages in earlier sweeps


@dataclass
class Sweep:
    """The plan of a sweep, and how each stage has ended so far.

    Attributes:
        record: DVC's record of the stages.
        selection: the stages that the options select.
        needs: the stages to run (those that are out of date and those that need them), each with
            the other stages to run that it needs.
        out_of_date: the stages that are certainly out of date.
        seconds: the estimated duration of each stage.
        left_out: stages outside the selection that are out of date, so that no tables are made.
        outcomes: how each stage ended, or its present state.
    """

    record: Record
    selection: Selection
    needs: dict[str, set[str]]
    out_of_date: set[str]
    seconds: dict[str, float]
    left_out: list[str]
    outcomes: dict[str, StageOutcome] = field(default_factory=dict)

    @property
    def up_to_date(self) -> int:
        """The number of selected stages that were up to date at the start."""
        return len(self.selection.stages - self.needs.keys())

    def in_order(self) -> list[str]:
        """The stages in the order in which a sweep with one stage at a time would run them."""
        schedule, names = Schedule(self.needs, self.seconds), []
        while name := schedule.next():
            names.append(name)
            schedule.done(name)
        return names

    def outcomes_in(self, *states: str) -> list[StageOutcome]:
        """The outcomes that are in one of these states."""
        return [outcome for outcome in list(self.outcomes.values()) if outcome.state in states]

    @property
    def ended(self) -> int:
        """The number of stages that have ended."""
        return len(self.outcomes) - len(self.outcomes_in("running", "retrying"))

    @property
    def incomplete(self) -> bool:
        """Whether a stage did not end well."""
        return bool(self.outcomes_in("failed", "not run", "stopped"))


def plan_sweep(options: SweepOptions, root: Path, say: Callable[[str], None]) -> Sweep:
    """Ask DVC which of the selected stages have to run.

    Raises:
        InputError: the options, params.yaml or dvc.yaml have a mistake, or the stage `code` fails.
    """
    record = Record(root, say)
    selection = select(record, options)
    changed = record.changed(record.stages if selection.last else selection.stages)
    left_out = []
    if selection.last:
        others = record.with_ancestors(selection.last) - selection.stages - selection.last
        left_out = sorted(others & record.with_dependents(changed))
        if not left_out:
            selection.stages.update(record.with_ancestors(selection.last))
    stale = record.with_dependents(changed & selection.stages) & selection.stages
    # In the order of declaration, which the schedule keeps among equal stages.
    needs = {name: record.needs(name) & stale for name in record.stages if name in stale}
    seconds = estimate(record, needs, measured_seconds(root))
    return Sweep(record, selection, needs, changed & stale, seconds, left_out)


class Schedule:
    """Gives out the stages whose needs are fulfilled; the caller reports how each ended.

    Args:
        needs: the stages that each stage to run needs. Those that are not among the keys are done
            already.
        seconds: the estimated duration of each stage.
    """

    def __init__(self, needs: Mapping[str, set[str]], seconds: Mapping[str, float]) -> None:
        self._waiting = {name: needed & needs.keys() for name, needed in needs.items()}
        self._needed_by: dict[str, set[str]] = {name: set() for name in needs}
        for name, needed in self._waiting.items():
            for other in needed:
                self._needed_by[other].add(name)
        self._ranks = {name: self._rank(name, seconds) for name in needs}

    def next(self) -> str | None:
        """The stage to start now, or None if every remaining stage waits for another."""
        ready = [name for name, needed in self._waiting.items() if not needed]
        if not ready:
            return None
        name = min(ready, key=self._ranks.__getitem__)
        del self._waiting[name]
        return name

    def done(self, name: str) -> None:
        """Report that a stage has ended well."""
        for other in self._needed_by[name]:
            if other in self._waiting:
                self._waiting[other].discard(name)

    def failed(self, name: str) -> list[str]:
        """Report that a stage failed; return the stages that therefore cannot run."""
        lost: list[str] = []
        reached = [name]
        while reached:
            for other in sorted(self._needed_by[reached.pop()]):
                if self._waiting.pop(other, None) is not None:
                    lost.append(other)
                    reached.append(other)
        return lost

    @property
    def left(self) -> list[str]:
        """The stages that were not started, in the order of their declaration."""
        return list(self._waiting)

    def _rank(self, name: str, seconds: Mapping[str, float]) -> tuple[int, float]:
        """The order: measurements of time, prerequisites, evaluations, trainings, reports."""
        longest_first = -seconds.get(name, UNKNOWN_SECONDS)
        if name.startswith(ALONE):
            return -1, longest_first
        if match := CELL.fullmatch(name):
            return (2 if match["kind"] == "train" else 1), longest_first
        return (0 if self._needed_by[name] else 3), longest_first


def estimate(
    record: Record, names: Iterable[str], measured: Mapping[str, float]
) -> dict[str, float]:
    """The estimated seconds of each stage.

    They come from an earlier sweep; otherwise from the run.json of an earlier run; otherwise from
    the pixels and blocks of the cell, scaled to the durations that are known. Another model than
    VM-UNet counts as the paper's VM-UNet.
    """
    names = list(names)
    costs_of_runs = run_costs(record.root)
    costs = {name: costs_of_runs.get(name.partition("@")[2], UNKNOWN_SECONDS) for name in names}
    known = {name: measured[name] for name in names if name in measured}
    for name in names:
        trains = name not in known and name.startswith("train")
        if trains and (seconds := run_json(record, name).get("seconds")):
            known[name] = float(seconds)
    scales = [known[name] / costs[name] for name in known if name.startswith("train")]
    scale = sum(scales) / len(scales) if scales else 1.0
    return {name: known.get(name, costs[name] * scale) for name in names}


def run_costs(root: Path) -> dict[str, float]:
    """The cost of each declared run, by its name: pixels times blocks, without a unit."""
    from pipeline.config.params import load_params
    from pipeline.config.runs import own_runs, runs

    try:
        params = load_params(root)
    except InputError:
        return {}
    costs = {}
    for run in [*runs(params), *own_runs(params)]:
        cell = params.cell(run.cell)
        blocks = sum(map(sum, cell.blocks)) or PAPER_BLOCKS
        costs[run.name] = float(params.view(run.view).size ** 2 * blocks)
    return costs


def measured_seconds(root: Path) -> dict[str, float]:
    """Seconds that stages took in earlier sweeps."""
    content = read_json(root / MEASURED)
    return {name: float(value) for name, value in content.items() if isinstance(value, int | float)}
