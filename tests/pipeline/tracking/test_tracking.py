"""MLflow: what reaches the store, with a server that dies, one that never lived, an old store."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.tracking import client, end_sweep, outbox, sender, start_sweep, store
from pipeline.tracking.run import Ticket
from tests.helpers.paths import ROOT
from tests.helpers.tracking import Server, losses, record, row, tracker

WHOLE = [(epoch, 2 / epoch) for epoch in range(1, 9)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    shutil.copy(empty_store, made.folder / "store.db")
    made.start()
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own with an empty store, and short pauses between tries."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, store.STORE)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sender, "RETRY_SECONDS", (0.2, 1.0))
    return tmp_path


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracking address where nobody listens."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")


def waiting(place: Path) -> list[str]:
    return sorted(path.name for path in place.glob(".mlflow-outbox/*"))


def test_a_run_has_its_parameters_tags_and_epochs(place: Path) -> None:
    sweep = start_sweep("tiny", "a sweep", {"tables": "3"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMUNET_SWEEP", sweep)
        run = tracker(micro_batch=2)
    for epoch in (1, 2):
        run.log(row(epoch))
    run.finish()
    end_sweep(sweep)
    found = client().get_run(run.ticket.run_id)
    assert found.info.status == client().get_run(sweep).info.status == "FINISHED"
    assert found.info.run_name == "isic17-32-scratch-paper-1"
    assert found.data.params["cell.drop_path_rate"] == "0.2"
    assert losses(run.ticket.run_id) == WHOLE[:2]
    expected = {"mlflow.parentRunId": sweep, "tables": "I III", "micro_batch": "2", "seed": "1"}
    expected |= {"dataset": "isic17", "data_hash": "d" * 64, "dvc_lock": "e" * 64}
    assert expected.items() <= found.data.tags.items()
    assert found.data.tags["processor"]
    assert waiting(place) == []


def test_system_metrics(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracker()
    time.sleep(1.5)  # the first sample comes after a second
    run.finish()
    metrics = client().get_run(run.ticket.run_id).data.metrics
    assert metrics["system/process_memory_megabytes"] > 10
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100


def test_a_resumed_run_goes_on_and_tells_redone_epochs_once() -> None:
    first = tracker()
    for epoch in range(1, 6):
        first.log(row(epoch))
    first.finish("KILLED")
    again = tracker(history=3, ticket=str(first.ticket))  # the state was saved after epoch 3
    for epoch in range(4, 9):
        again.log(row(epoch))
    again.finish()
    assert again.ticket.run_id == first.ticket.run_id
    assert losses(again.ticket.run_id) == WHOLE


def test_a_resumed_run_whose_store_is_lost_starts_with_its_history() -> None:
    gone = str(Ticket("akey", 10**12, "0" * 32))
    run = tracker(history=5, ticket=gone)
    for epoch in range(6, 9):
        run.log(row(epoch))
    run.finish()
    assert run.ticket.run_id not in ("", "0" * 32)
    assert losses(run.ticket.run_id) == WHOLE


def test_a_server_killed_and_started_again_in_the_middle(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    run = tracker(seed=2)
    slowest = 0.0
    for epoch in range(1, 9):
        if epoch == 3:
            deadline = time.monotonic() + 30
            while len(losses(run.ticket.run_id) if run.ticket.run_id else []) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            server.kill()
        if epoch == 6:
            server.start()
        began = time.monotonic()
        run.log(row(epoch))
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.3)
    run.finish()
    assert slowest < 5  # a request alone waits for 10 s
    assert losses(run.ticket.run_id) == WHOLE
    assert client().get_run(run.ticket.run_id).info.status == "FINISHED"
    assert capfd.readouterr().err.count("MLflow cannot be reached") == 1
    assert waiting(place) == []


def test_a_server_away_from_the_start(
    server: Server,
    place: Path,
    closed: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    began = time.monotonic()
    run = tracker(seed=3)
    for epoch in range(1, 9):
        run.log(row(epoch))
    run.finish()
    assert time.monotonic() - began < 10
    error = capfd.readouterr().err
    assert error.startswith("warning: isic17-32-scratch-paper-3: MLflow cannot be reached")
    assert error.count("\n") == 1
    assert main(["mlflow", "sync"]) == 2
    assert "is kept" in capfd.readouterr().err
    assert [name for name in waiting(place) if name.endswith(".jsonl")]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert main(["mlflow", "sync"]) == 0
    assert capfd.readouterr().out == "1 runs sent\n"
    (found,) = client().search_runs(
        [client().get_experiment_by_name("tiny").experiment_id],
        f"tags.key = '{run.ticket.key}'",
    )
    assert losses(found.info.run_id) == WHOLE
    assert found.info.status == "FINISHED"
    assert waiting(place) == []
    assert main(["mlflow", "sync"]) == 0
    assert capfd.readouterr().out == "0 runs sent\n"


def test_what_a_killed_process_left_is_sent_by_the_resumed_one(closed: None) -> None:
    first = tracker(seed=4)
    for epoch in range(1, 5):
        first.log(row(epoch))
    first.finish("KILLED")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI")
        again = tracker(history=2, ticket=str(first.ticket), seed=4)
        for epoch in range(3, 9):
            again.log(row(epoch))
        again.finish()
        assert losses(again.ticket.run_id) == WHOLE
        assert (
            len(client().search_runs([client().get_run(again.ticket.run_id).info.experiment_id]))
            == 1
        )


def test_half_a_line_is_passed_over(place: Path, closed: None) -> None:
    run = tracker(seed=5)
    run.log(row(1))
    run.finish("KILLED")
    (path,) = place.glob(".mlflow-outbox/*.jsonl")
    with open(path, "a") as file:
        file.write('{"what": "metr')
    box = outbox.Outbox(path)
    box.append({"what": "metrics", "time": 10**13, "step": 2, "metrics": {"train_loss": 1.0}})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI")
        box.send(client(), {})
        assert losses(box.run_id) == [(1, 2.0), (2, 1.0)]
    box.close()
    assert waiting(place) == []


def test_a_store_of_an_older_mlflow_says_how_to_upgrade(
    place: Path, capfd: pytest.CaptureFixture
) -> None:
    with sqlite3.connect(store.STORE) as database:
        # the revision of MLflow 1.0
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    run = tracker()
    run.log(row(1))
    run.finish()
    error = capfd.readouterr().err
    command = f"`mlflow db upgrade sqlite:///{place}/mlflow.db`"
    assert "mlflow.db was made by an older MLflow; make a copy of it, then run" in error
    assert command in error
    assert error.count("\n") == 1
    assert main(["mlflow", "sync"]) == 2
    assert command in capfd.readouterr().err
    assert [name for name in waiting(place) if name.endswith(".jsonl")]


def test_a_sweep_without_a_server_has_no_run(closed: None, capfd: pytest.CaptureFixture) -> None:
    assert start_sweep("tiny", "a sweep", {}) == ""
    end_sweep("")
    assert capfd.readouterr().err.startswith("warning: a sweep: the sweep has no run in MLflow")


def test_tables_of_a_run() -> None:
    from pipeline.config.params import load_params
    from pipeline.config.runs import Run
    from pipeline.tracking.table_names import tables_of

    root = ROOT
    params = load_params(root)
    isic = params.grid.ablation_views[0]
    assert tables_of(Run(isic, "base", "paper", 42), params, root) == "I III IV V VI"
    assert tables_of(Run(isic, "drop-path-03", "paper", 42), params, root) == "IV"
    for view in params.grid.size_views:
        assert tables_of(Run(view, "base", "paper", 42), params, root) == "VI"
    for view in params.grid.volumes:
        assert tables_of(Run(view, "base", "sound", 42), params, root) == "II"
    assert tables_of(Run("gone", "base", "paper", 42), params, root) == ""


def test_a_record_makes_tags_of_what_is_known() -> None:
    from pipeline.tracking.run import header_of

    header = header_of(record(), Ticket("k", 1), "", [])
    assert not {"micro_batch", "weights_hash", "tables"} & header.tags.keys()
