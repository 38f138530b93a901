"""In which order stages run: what they need first, evaluations at once, longest cells first.

What measures time (`ALONE`) comes before all, and nothing runs beside it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.sweep.record import Record
from pipeline.sweep.selection import CELL
from vmunet.errors import InputError

UNKNOWN_SECONDS = 1.0
ALONE = "speed@"  # how the names of stages begin that anything beside them would falsify


class Schedule:
    """Hands out stages whose needs are met; the caller says how each ended.

    Args:
        needs: what each stage to run needs; needs that are no keys are met already.
        seconds: how long each takes, roughly.
    """

    def __init__(self, needs: Mapping[str, set[str]], seconds: Mapping[str, float]) -> None:
        self._waiting = {name: needed & needs.keys() for name, needed in needs.items()}
        self._needed_by: dict[str, set[str]] = {name: set() for name in needs}
        for name, needed in self._waiting.items():
            for other in needed:
                self._needed_by[other].add(name)
        self._ranks = {name: self._rank(name, seconds) for name in needs}

    def next(self) -> str | None:
        """The stage to start now, or None where every stage that is left waits for another."""
        ready = [name for name, needed in self._waiting.items() if not needed]
        if not ready:
            return None
        name = min(ready, key=self._ranks.__getitem__)
        del self._waiting[name]
        return name

    def done(self, name: str) -> None:
        """The stage has ended well."""
        for other in self._needed_by[name]:
            if other in self._waiting:
                self._waiting[other].discard(name)

    def failed(self, name: str) -> list[str]:
        """The stage failed: these cannot run, and are not handed out any more."""
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
        """Stages not handed out, in the order of their declaration."""
        return list(self._waiting)

    def _rank(self, name: str, seconds: Mapping[str, float]) -> tuple[int, float]:
        """Measurements of time, prerequisites, evaluations, trainings, reports."""
        longest_first = -seconds.get(name, UNKNOWN_SECONDS)
        if name.startswith(ALONE):
            return -1, longest_first
        if match := CELL.fullmatch(name):
            return (1 if match[1] == "evaluate" else 2), longest_first
        return (0 if self._needed_by[name] else 3), longest_first


def estimate(
    record: Record, names: Iterable[str], measured: Mapping[str, float]
) -> dict[str, float]:
    """Seconds that each stage may take.

    As measured in an earlier sweep; else as the run.json of an earlier run says; else by the
    pixels and blocks of the cell, scaled to those that are known.
    """
    names = list(names)
    costs = run_costs(record.root)
    known = {name: measured[name] for name in names if name in measured}
    for name in names:
        trains = name not in known and name.startswith("train")
        if trains and (seconds := run_json(record, name).get("seconds")):
            known[name] = float(seconds)
    of = {name: costs.get(name.partition("@")[2], UNKNOWN_SECONDS) for name in names}
    scaled = [known[name] / of[name] for name in known if name.startswith("train")]
    scale = sum(scaled) / len(scaled) if scaled else 1.0
    return {name: known.get(name, of[name] * scale) for name in names}


def run_costs(root: Path) -> dict[str, float]:
    """Pixels times blocks of each declared run, by its name: its cost, in no unit."""
    from pipeline.config.params import load_params
    from pipeline.config.runs import own_runs, runs

    try:
        params = load_params(root)
    except InputError:
        return {}
    costs = {}
    for run in [*runs(params), *own_runs(params)]:
        cell = params.cell(run.cell)
        blocks = sum(cell.depths) + sum(cell.depths_decoder)
        costs[run.name] = float(params.view(run.view).size ** 2 * blocks)
    return costs


def run_json(record: Record, name: str) -> dict[str, Any]:
    """The run.json of a training, as it was last written; empty where there is none."""
    paths = [record.root / out for out in record.outputs(name) if out.name == "run.json"]
    return read_json(paths[0]) if paths else {}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's mapping, empty where there is none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
