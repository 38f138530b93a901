"""The time that is left: order, width, and what the sweep has measured so far."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.sweep.plan import MEASURED, Schedule
from pipeline.sweep.remaining import Remaining, about, simulate
from pipeline.sweep.stage_runner import StageOutcome
from pipeline.tracking.epochs import Epochs

CELLS = ("isic17-64-base-paper-1", "isic17-64-base-paper-2")
NEEDS: dict[str, set[str]] = {f"train@{cell}": set() for cell in CELLS}
NEEDS |= {f"evaluate@{cell}": {f"train@{cell}"} for cell in CELLS}
NEEDS |= {"tables": {f"evaluate@{cell}" for cell in CELLS}}
FIRST, SECOND = (f"train@{cell}" for cell in CELLS)


def left(root: Path, seconds: dict[str, float], outcomes=(), epochs=None, width=1):
    """The seconds that are left of a sweep of two cells with these estimates and outcomes."""
    schedule, order = Schedule(NEEDS, seconds), []
    while name := schedule.next():
        order.append(name)
        schedule.done(name)
    known = {outcome.name: outcome for outcome in outcomes}
    sweep = SimpleNamespace(
        needs=NEEDS,
        seconds=seconds,
        outcomes=known,
        outcomes_in=lambda *states: [o for o in known.values() if o.state in states],
        in_order=lambda: order,
        record=SimpleNamespace(root=root),
    )
    return Remaining(sweep, width).seconds(epochs or {})


def test_a_first_sweep_knows_nothing_before_the_first_epoch(tmp_path: Path) -> None:
    costs = dict.fromkeys(NEEDS, 65536.0)
    assert left(tmp_path, costs) is None
    running = StageOutcome(FIRST, "running", began=time.monotonic() - 10)
    # 2 of 10 epochs took 10 s: 40 s are left of this training and 50 s of the other; each
    # evaluation counts as 10 s, the tables as 3 s
    guess = left(tmp_path, costs, [running], {FIRST: Epochs(2, 10, 0.5, 2)})
    assert guess == pytest.approx(113, abs=5)


def test_a_resumed_training_is_judged_by_the_epochs_since(tmp_path: Path) -> None:
    costs = dict.fromkeys(NEEDS, 65536.0)
    running = StageOutcome(FIRST, "running", began=time.monotonic() - 10)
    # epochs 6 and 7 took 10 s: 15 s are left of this training, 50 s of the other
    guess = left(tmp_path, costs, [running], {FIRST: Epochs(7, 10, 0.5, 2)})
    assert guess == pytest.approx(15 + 50 + 2 * 10 + 3, abs=5)


def test_earlier_sweeps_are_corrected_by_this_one(tmp_path: Path) -> None:
    (tmp_path / MEASURED).parent.mkdir()
    names = ", ".join(f'"{name}": 1' for name in NEEDS)
    (tmp_path / MEASURED).write_text(f"{{{names}}}")
    seconds = {FIRST: 20.0, SECOND: 20.0, **{f"evaluate@{c}": 4.0 for c in CELLS}, "tables": 2.0}
    assert left(tmp_path, seconds) == 50
    assert left(tmp_path, seconds, width=2) == 26
    done = StageOutcome(FIRST, "done", seconds=30.0, attempts=1)  # half as fast again
    assert left(tmp_path, seconds, [done]) == 30 + 8 + 2
    # its epochs do not count any more than its share of the work
    running = StageOutcome(SECOND, "running", began=time.monotonic() - 1)
    assert left(tmp_path, seconds, [done, running], {SECOND: Epochs(5, 10, 0.5, 1)}) == 15 + 8 + 2
    failed = StageOutcome(FIRST, "failed", seconds=1.0, attempts=3)  # says nothing about the speed
    assert left(tmp_path, seconds, [failed]) == 20 + 8 + 2


def test_a_stage_waits_for_those_that_it_needs() -> None:
    needs: dict[str, set[str]] = {"a": set(), "b": set(), "c": {"a", "b"}}
    order = {"a": 0, "b": 1, "c": 2}
    assert simulate(needs, order, {"a": 5, "b": 2, "c": 1}, set(), width=2) == 6
    assert simulate(needs, order, {"a": 5, "b": 2, "c": 1}, set(), width=1) == 8
    assert simulate(needs, order, {"b": 2, "c": 1}, {"b"}, width=1) == 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "10 s"), (44, "40 s"), (58, "1 min"), (600, "10 min"), (3600 * 2.5, "2 h 30 min")],
)
def test_an_estimate_is_rounded(seconds: float, words: str) -> None:
    assert about(seconds) == words
