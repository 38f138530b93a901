"""Runs that dead processes left open, and a store whose clone was moved or copied."""

import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from pipeline.cli import main
from pipeline.owners import HOST, PROCESS, machine, owner
from pipeline.tracking import client, end_sweep, start_sweep, store
from pipeline.tracking.dead import close_dead_runs_if_any, has_open_runs
from pipeline.tracking.store import experiment_id
from tests.helpers.tracking import row, tracker

DEAD = {HOST: machine(), PROCESS: "999999999 0-0"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an empty store."""
    folder = tmp_path / "clone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    shutil.copy(empty_store, store.STORE)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def open_run(tags: dict[str, str]) -> str:
    mlflow = client()
    return mlflow.create_run(experiment_id(mlflow, "tiny"), tags=tags).info.run_id


def status(run_id: str) -> str:
    return client().get_run(run_id).info.status


def train() -> None:
    run = tracker()
    run.log_epoch(row(1))
    run.finish()


def rebuild() -> None:
    assert main(["mlflow", "rebuild"]) == 0


@pytest.mark.parametrize(
    "start",
    [
        lambda: end_sweep(start_sweep("other", "a sweep", {})),
        train,
        rebuild,
        close_dead_runs_if_any,  # `vmunet ui`, and a sweep of nothing
    ],
    ids=["sweep", "training", "rebuild", "ui"],
)
def test_a_start_closes_the_runs_of_dead_processes_alone(
    start: Callable[[], None],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr("pipeline.commands.mlflow.load_params", lambda: None, raising=False)
    monkeypatch.setattr("pipeline.config.params.load_params", lambda: None)
    dead, alive, unknown = open_run(DEAD), open_run(owner()), open_run({})
    elsewhere = open_run(DEAD | {HOST: "elsewhere"})
    start()
    assert status(dead) == "KILLED"
    assert {status(run) for run in (alive, elsewhere, unknown)} == {"RUNNING"}
    if start is rebuild:
        assert "1 runs of dead processes closed as KILLED" in capfd.readouterr().out


def test_a_sweeps_clean_end_closes_the_runs_of_its_killed_cells() -> None:
    sweep = start_sweep("tiny", "a sweep", {})
    cell = open_run(DEAD)
    end_sweep(sweep)
    assert (status(sweep), status(cell)) == ("FINISHED", "KILLED")


def test_a_killed_training_that_goes_on_is_not_closed() -> None:
    first = tracker()
    first.log_epoch(row(1))
    first.finish()
    client().update_run(first.run_id, status="RUNNING")
    for name, value in DEAD.items():
        client().set_tag(first.run_id, name, value)
    resumed = tracker(history=1)
    assert resumed.opened(30) == first.run_id
    assert status(first.run_id) == "RUNNING"
    resumed.finish()
    assert status(first.run_id) == "FINISHED"


def test_a_store_that_is_damaged_has_no_open_runs(place: Path) -> None:
    run = open_run({})
    assert has_open_runs()
    client().set_terminated(run)
    assert not has_open_runs()
    store.STORE.write_text("no database")
    assert not has_open_runs()
    store.STORE.unlink()
    store.STORE.mkdir()
    assert not has_open_runs()


STRANGE = "a b%41#c?d'e\"ü"


def log_file(name: str, run_id: str = "") -> str:
    run_id = run_id or open_run({})
    Path(name).write_text(name)
    client().log_artifact(run_id, name)
    Path(name).unlink()
    return run_id


def go_to(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a clone as a new process does, which knows no run's folder yet."""
    monkeypatch.chdir(clone)
    _artifact_repos_cache.clear()


def files(run_id: str) -> list[str]:
    return sorted(file.path for file in client().list_artifacts(run_id))


@pytest.mark.parametrize("name", ["moved", STRANGE])
def test_a_moved_clone_writes_into_itself(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = log_file("first")
    there = place.rename(place.with_name(name))
    go_to(there, monkeypatch)
    log_file("second", run)
    other = log_file("third")
    assert files(run) == ["first", "second"]
    assert files(other) == ["third"]
    assert len(list((there / "mlartifacts").rglob("*/artifacts/*"))) == 3
    assert not place.exists()
    assert list(there.parent.iterdir()) == [there]


def test_a_copied_clone_leaves_the_first_one_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = log_file("first")
    there = place.with_name("copy")
    shutil.copytree(place, there)
    go_to(there, monkeypatch)
    log_file("second", run)
    assert files(run) == ["first", "second"]
    go_to(place, monkeypatch)
    assert files(run) == ["first"]


def test_a_folder_that_a_person_chose_for_an_experiment_stays(place: Path) -> None:
    chosen = place.parent / "big disk" / "mlartifacts"
    chosen.mkdir(parents=True)
    client().create_experiment("tiny", artifact_location=chosen.as_uri())
    log_file("first")
    assert client().get_experiment_by_name("tiny").artifact_location == chosen.as_uri()
    assert len(list(chosen.rglob("first"))) == 1


def test_a_copy_without_the_artifacts_still_shows_those_of_the_first(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = log_file("first")
    there = place.with_name("copy")
    there.mkdir()
    shutil.copy(store.STORE, there)
    go_to(there, monkeypatch)
    assert files(run) == ["first"]
    log_file("second")
    assert len(list(there.rglob("second"))) == 1


def test_a_new_store_is_its_owners_alone(empty_store: Path) -> None:
    assert stat.S_IMODE(empty_store.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_store_is_made_in_a_folder_with_any_name(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = place.with_name("o'brien " + STRANGE)
    there.mkdir()
    go_to(there, monkeypatch)
    assert files(log_file("first")) == ["first"]
    assert sorted(path.name for path in there.parent.iterdir()) == ["clone", there.name]
    mlflow = client()
    run = mlflow.create_run("0").info.run_id  # MLflow's own experiment
    assert files(log_file("second", run)) == ["second"]
    assert len(list(there.rglob("second"))) == 1
