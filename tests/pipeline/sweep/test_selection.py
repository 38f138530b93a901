"""The stages of this project that a sweep selects, and their order."""

from pathlib import Path

import pytest

from pipeline import cli
from pipeline.dvc.record import Record
from pipeline.sweep.options import SweepOptions
from pipeline.sweep.plan import Schedule, estimate
from pipeline.sweep.selection import CELL, select
from tests.helpers.clone import copy_sources
from tests.helpers.tables import RIVALS, VOLUME_RIVALS
from vmunet.errors import InputError


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("clone"))


@pytest.fixture(autouse=True)
def _here(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)


@pytest.fixture(scope="module")
def record(clone: Path) -> Record:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)  # before `_here`, which is each test's
        return Record(clone)


def runs(record: Record, **options) -> set[str]:
    stages = select(record, SweepOptions(**options)).stages
    return {match["run"] for name in stages if (match := CELL.fullmatch(name))}


def test_a_table_selects_the_cells_that_it_shows(record: Record) -> None:
    third = runs(record, tables=["3"])
    assert third == runs(record, tables=["III"])
    assert {run.split("-", 2)[2] for run in third} == {
        "base-paper-42",
        "base-sound-42",
        "scratch-paper-42",
        "vmamba-t-paper-42",
    }
    sizes = runs(record, tables=["6"])
    assert "isic17-128-base-paper-42" in sizes
    assert runs(record, tables=["2"]) == {
        "synapse-64-base-paper-42",
        "synapse-64-base-sound-42",
        *(f"synapse-64-{cell}-paper-42" for cell in VOLUME_RIVALS),
    }
    assert {f"isic18-64-{cell}-paper-42" for cell in RIVALS} < runs(record, tables=["1"])
    assert runs(record, tables=["3", "6"]) == third | sizes
    assert runs(record, tables=["3"], cells=["isic18-*-scratch-*"]) == {
        "isic18-64-scratch-paper-42"
    }


def test_the_stages_that_cells_need_are_selected_too(record: Record) -> None:
    selection = select(record, SweepOptions(cells=("isic17-64-scratch-paper-42",)))
    assert selection.stages == {
        "download@isic17",
        "preprocess@isic17-64",
        "weights",
        "initial",
        "train@isic17-64-scratch-paper-42",
        "evaluate@isic17-64-scratch-paper-42",
        "model_card@isic17-64-scratch-paper-42",
    }
    assert selection.last >= {"tables", "figures", "page", "pdf", "pictures@isic17-64"}
    assert not any(
        name.startswith(("train", "evaluate", "model", "own")) for name in selection.last
    )
    needed = record.with_ancestors(selection.last) - selection.last
    assert not any(name.startswith("own") for name in needed)  # own datasets are not part of it
    assert selection.shown["isic17-64-scratch-paper-42"] == ["I", "III"]


def test_everything_is_all_stages_of_dvc(record: Record) -> None:
    assert select(record, SweepOptions()).stages == set(record.stages)


def test_an_unknown_table_is_one_sentence(record: Record) -> None:
    with pytest.raises(InputError, match=r"--tables 7: no such table; known: 1 \(I\), 2 \(II\)"):
        select(record, SweepOptions(tables=("7",)))


def test_deeper_and_larger_cells_take_longer(record: Record) -> None:
    names = [
        f"train@isic17-64-{cell}-paper-42" for cell in ("base", "depths-2292-2922", "drop-path-00")
    ]
    seconds = estimate(record, [*names, "train_elsewhere@isic17-128-base-paper-42"], {})
    base, deep, same, large = seconds.values()
    assert base == same < deep < large
    measured = {names[0]: 10.0}
    seconds = estimate(record, names, measured)
    assert seconds[names[0]] == 10.0
    assert seconds[names[1]] == pytest.approx(10.0 * 30 / 15)


def test_order_of_start() -> None:
    needs = {
        "check": {"download"},
        "download": set(),
        "train@a": {"download"},
        "train@b": {"download"},
        "evaluate@a": {"train@a"},
        "evaluate@b": {"train@b"},
        "tables": {"evaluate@a", "evaluate@b"},
    }
    schedule = Schedule(needs, {"train@a": 1.0, "train@b": 9.0})
    assert schedule.next() == "download"
    assert schedule.next() is None
    schedule.done("download")
    assert schedule.next() == "train@b"
    schedule.done("train@b")
    assert schedule.next() == "evaluate@b"
    assert schedule.next() == "train@a"
    assert schedule.failed("train@a") == ["evaluate@a", "tables"]
    assert schedule.next() == "check"
    assert schedule.next() is None
    assert schedule.left == []


def test_stages_that_measure_time_come_first() -> None:
    needs = {"download": set(), "train@a": {"download"}, "speed@b": set(), "speed@c": set()}
    schedule = Schedule(needs, {"speed@c": 9.0})
    assert [schedule.next() for _ in range(3)] == ["speed@c", "speed@b", "download"]


def test_a_dry_run_lists_and_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", "--dry-run", "--cells", "synapse-64-base-paper-42"]) == 0
    assert not Path(".sweep", "logs").exists()
    assert cli.main(["sweep", "--seeds", "a"]) == 2
    assert "--seeds a: expected whole numbers" in capsys.readouterr().err
