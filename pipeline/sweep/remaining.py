"""The time that a sweep still needs, as far as its stages so far tell."""

import time
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from pipeline.sweep.plan import Sweep, measured_seconds
from pipeline.sweep.selection import CELL
from pipeline.tracking.epochs import Epochs

SHARE = 0.2  # of its training: a stage of a cell before the first of its kind has ended
OTHER_SECONDS = 3.0  # any other stage before the first of its kind has ended


class Remaining:
    """Estimates the seconds that are left.

    The plan's estimates are seconds of earlier sweeps, or costs without a unit. Each kind of stage
    (trainings, evaluations, ...) is scaled by the stages of this sweep that have ended; before the
    first training has ended, by the epochs of those that run.

    Args:
        width: the number of stages at once.
    """

    def __init__(self, sweep: Sweep, width: int) -> None:
        self._sweep, self._width = sweep, width
        self._measured = measured_seconds(sweep.record.root)
        self._order = {name: place for place, name in enumerate(sweep.in_order())}

    def seconds(self, epochs: Mapping[str, Epochs]) -> float | None:
        """The seconds until the last stage ends; None before any training has told its speed.

        Args:
            epochs: the progress of running trainings, by stage.
        """
        now, sweep = time.monotonic(), self._sweep
        outcomes = dict(sweep.outcomes)
        running = {n: o for n, o in outcomes.items() if o.state in ("running", "retrying")}
        known = {name: whole(now - running[name].began, epochs[name]) for name in epochs}
        scales = self._scales(known)
        left: dict[str, float] = {}
        for name in sweep.needs:
            if name in outcomes and name not in running:
                continue
            seconds = self._estimate(name, scales)
            if seconds is None:
                return None
            passed = now - running[name].began if name in running else 0.0
            if name in epochs:
                passed = seconds * epochs[name].done / epochs[name].total
            left[name] = max(0.0, seconds - passed)
        return simulate(sweep.needs, self._order, left, running.keys() & left.keys(), self._width)

    def _scales(self, running: Mapping[str, float]) -> dict[str, float]:
        """Real seconds per estimated second, by kind."""
        ended = {o.name: o.seconds for o in self._sweep.outcomes_in("done") if o.attempts == 1}
        earlier = {kind(name): 1.0 for name in self._measured}
        return earlier | self._ratios(running) | self._ratios(ended)

    def _ratios(self, real: Mapping[str, float]) -> dict[str, float]:
        """Seconds to estimates, by kind: the sum over the stages of `real`."""
        sums: dict[str, list[float]] = {}
        for name, seconds in real.items():
            of = sums.setdefault(kind(name), [0.0, 0.0])
            of[0] += seconds
            of[1] += self._sweep.seconds[name]
        return {of: seconds / estimated for of, (seconds, estimated) in sums.items() if estimated}

    def _estimate(self, name: str, scales: Mapping[str, float]) -> float | None:
        seconds = self._sweep.seconds[name]
        if kind(name) in scales:
            return seconds * scales[kind(name)]
        if kind(name) == "train":
            return None
        if CELL.fullmatch(name) and "train" in scales:
            return SHARE * seconds * scales["train"]
        return OTHER_SECONDS


def kind(name: str) -> str:
    """The kind of a stage: `train` or `evaluate` for a cell's, otherwise the name before the @."""
    match = CELL.fullmatch(name)
    return match["kind"] if match else name.partition("@")[0]


def whole(passed: float, epochs: Epochs) -> float:
    """The seconds of a whole training of which `passed` gave the epochs that it printed."""
    return passed * epochs.total / epochs.printed


def simulate(
    needs: Mapping[str, set[str]],
    order: Mapping[str, int],
    left: Mapping[str, float],
    running: set[str],
    width: int,
) -> float:
    """The seconds until all stages of `left` have ended.

    Args:
        needs: the stages that each stage needs; those that are not in `left` have ended.
        order: the place of each stage in the order of their start.
        left: the seconds that each stage still takes.
        running: the stages that run now.
        width: the number of stages at once.
    """
    waiting = {name: needs[name] & left.keys() for name in left.keys() - running}
    needed_by: dict[str, list[str]] = {}
    for name, needed in waiting.items():
        for other in needed:
            needed_by.setdefault(other, []).append(name)
    ready = [(order[name], name) for name, needed in waiting.items() if not needed]
    heapify(ready)
    ends = [(left[name], name) for name in running]
    heapify(ends)
    clock = 0.0
    while ends or ready:
        while ready and len(ends) < width:
            name = heappop(ready)[1]
            heappush(ends, (clock + left[name], name))
        clock, name = heappop(ends)
        for other in needed_by.get(name, ()):
            waiting[other].discard(name)
            if not waiting[other]:
                heappush(ready, (order[other], other))
    return clock


def about(seconds: float) -> str:
    """A duration in the words of an estimate."""
    if seconds < 55:
        return f"{max(10, round(seconds / 10) * 10)} s"
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
