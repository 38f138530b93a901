"""MLflow: the logged values, with a server that dies, without a server, with an old store."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.tracking import client, end_sweep, start_sweep, store
from pipeline.tracking.header import header_of
from pipeline.tracking.live import LiveRun
from pipeline.tracking.plain import PlainRun
from pipeline.tracking.scores import log_scores, read_json
from tests.helpers.clone import demo_root
from tests.helpers.paths import ROOT
from tests.helpers.tracking import Server, losses, record, row, store_content, tracker, write_run

RUN = Path("isic17-32/scratch/paper/1")
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
    """A repository with an empty store."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, store.STORE)
    for name in ("params.yaml", "profiles", "reports/tables.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def short_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model card for scores that are too few for a real card."""
    monkeypatch.setattr("pipeline.tracking.scores.model_card", lambda *_: "no card")


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracking address without a server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")


def train(first: int = 1, last: int = 8, status: str = "FINISHED", **changes: object) -> LiveRun:
    """A training from epoch `first`, resumed if that is not 1, to epoch `last`."""
    run = tracker(history=first - 1, **changes)
    for epoch in range(first, last + 1):
        run.log_epoch(row(epoch))
    run.finish(status)
    return run


def evaluate(folder: Path, scores: Path) -> None:
    """Log the scores of an evaluation."""
    metrics = read_json(scores / "metrics.json")
    sheets = [scores / "contact_sheet.png"]
    log_scores(folder, read_json(folder / "run.json"), "VI", metrics, sheets, "phantom")


def test_a_run_has_its_parameters_tags_and_epochs() -> None:
    sweep = start_sweep("tiny", "a sweep", {"tables": "3"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VMUNET_SWEEP", sweep)
        run = train(last=2, micro_batch=2)
    end_sweep(sweep)
    stored = client().get_run(run.run_id)
    assert stored.info.status == client().get_run(sweep).info.status == "FINISHED"
    assert stored.info.run_name == "isic17-32-scratch-paper-1"
    assert stored.data.params["cell.drop_path_rate"] == "0.2"
    assert losses(run.run_id) == WHOLE[:2]
    expected = {"mlflow.parentRunId": sweep, "tables": "I III", "micro_batch": "2", "seed": "1"}
    expected |= {"dataset": "isic17", "data_hash": "d" * 64, "dvc_lock": "e" * 64}
    assert expected.items() <= stored.data.tags.items()
    assert stored.data.tags["processor"]


def test_system_metrics() -> None:
    run = tracker()
    time.sleep(1.5)  # the first sample comes after a second
    run.finish()
    metrics = client().get_run(run.run_id).data.metrics
    assert metrics["system/process_memory_megabytes"] > 10
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100


def test_a_resumed_run_goes_on_and_logs_redone_epochs_once() -> None:
    killed = train(last=5, status="KILLED")
    resumed = train(first=4)  # the state was saved after epoch 3
    assert resumed.run_id == killed.run_id
    assert losses(resumed.run_id) == WHOLE
    assert client().get_run(resumed.run_id).info.status == "FINISHED"


def test_a_run_killed_before_its_first_state_goes_on() -> None:
    killed = train(last=2, status="KILLED")
    again = train()
    assert again.run_id == killed.run_id
    assert losses(again.run_id) == WHOLE


def test_a_run_that_is_trained_again_is_a_new_run(place: Path) -> None:
    first, second = train(), train()
    assert first.run_id != second.run_id
    assert losses(second.run_id) == WHOLE
    folder, scores = write_run(place, 1, epochs=8)
    evaluate(folder, scores)
    assert "test/paper/miou" not in client().get_run(first.run_id).data.metrics
    assert client().get_run(second.run_id).data.metrics["test/paper/miou"] == 0.5


def test_a_resumed_run_whose_store_is_lost_starts_with_its_history() -> None:
    run = train(first=6)
    assert losses(run.run_id) == WHOLE


def test_a_server_killed_and_started_again_in_the_middle(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    run = tracker(seed=2)
    slowest = 0.0
    for epoch in range(1, 9):
        if epoch == 3:
            deadline = time.monotonic() + 30
            while len(losses(run.run_id) if run.run_id else []) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            server.kill()
        if epoch == 6:
            server.start()
        began = time.monotonic()
        run.log_epoch(row(epoch))
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.3)
    run.finish()
    assert slowest < 1
    assert losses(run.run_id) == WHOLE
    assert client().get_run(run.run_id).info.status == "FINISHED"
    error = capfd.readouterr().err
    assert error.startswith("warning: isic17-32-scratch-paper-2: MLflow cannot be reached")
    assert error.count("\n") == 1


def test_a_store_that_dies_in_the_middle_is_completed_later(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    run = tracker()
    for epoch in (1, 2, 3):
        run.log_epoch(row(epoch))
    deadline = time.monotonic() + 30
    while len(losses(run.run_id) if run.run_id else []) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    moved = place / "moved.db"
    store.STORE.rename(moved)
    store.STORE.mkdir()  # no database can be opened there
    monkeypatch.setattr(run, "_mlflow", None)
    for epoch in range(4, 9):
        run.log_epoch(row(epoch))
        time.sleep(0.1)
    run.finish()
    assert capfd.readouterr().err.count("\n") == 1
    store.STORE.rmdir()
    moved.rename(store.STORE)
    assert client().get_run(run.run_id).info.status == "RUNNING"
    began = client().get_run(run.run_id).info.start_time
    write_run(place, 1, epochs=8, mlflow_run_id=run.run_id, started=began)
    assert main(["mlflow", "rebuild"]) == 0
    assert capfd.readouterr().out == "1 runs made or completed, 0 were there\n"
    assert losses(run.run_id) == WHOLE
    stored = client().get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.end_time >= began + 1500
    assert stored.data.metrics["test/paper/miou"] == 0.5
    assert "rebuilt" not in stored.data.tags


def test_a_server_away_from_the_start(
    server: Server,
    place: Path,
    closed: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    began = time.monotonic()
    run = train(seed=3)
    assert time.monotonic() - began < 10
    assert run.run_id == ""
    error = capfd.readouterr().err
    assert error.startswith("warning: isic17-32-scratch-paper-3: MLflow cannot be reached")
    assert "`vmunet mlflow rebuild`" in error
    assert error.count("\n") == 1
    folder, scores = write_run(place, 3, epochs=8)
    evaluate(folder, scores)
    error = capfd.readouterr().err
    assert error.startswith("warning: ")
    assert "not all scores, files and the model are in MLflow, `vmunet mlflow rebuild`" in error
    assert error.count("\n") == 1
    assert main(["mlflow", "rebuild"]) == 2
    assert "MLflow cannot be reached" in capfd.readouterr().err

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert main(["mlflow", "sync"]) == 0
    assert capfd.readouterr().out == "1 runs made or completed, 0 were there\n"
    (stored,) = client().search_runs(
        [client().get_experiment_by_name("tiny").experiment_id], f"tags.key = '{3:032x}'"
    )
    assert losses(stored.info.run_id) == WHOLE
    assert stored.info.status == "FINISHED"
    files = [file.path for file in client().list_artifacts(stored.info.run_id)]
    assert files == ["MODEL_CARD.md", "contact_sheet.png"]
    assert main(["mlflow", "sync"]) == 0
    assert capfd.readouterr().out == "0 runs made or completed, 1 were there\n"


def test_a_server_that_does_not_answer_costs_seconds(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as hung:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{hung.getsockname()[1]}")
        run = tracker()
        assert run.opened(30) == ""
        began = time.monotonic()
        for epoch in range(1, 9):
            run.log_epoch(row(epoch))
        assert time.monotonic() - began < 0.5
        run.finish()
        assert time.monotonic() - began < 5
    assert capfd.readouterr().err.count("\n") == 1


def test_a_broken_database_costs_no_time(capfd: pytest.CaptureFixture) -> None:
    store.STORE.write_text("no database\n" * 1000)
    began = time.monotonic()
    train()
    assert time.monotonic() - began < 10
    error = capfd.readouterr().err
    assert "file is not a database" in error
    assert error.count("\n") == 1


def test_a_driver_that_hangs_does_not_keep_a_stage(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(store, "ATTEMPT_SECONDS", 0.1)
    assert store.attempt("a run", "nothing is logged", lambda: time.sleep(20)) is None
    error = capfd.readouterr().err
    assert error.startswith("warning: a run: nothing is logged")
    assert error.endswith("no answer within 0.1 s)\n")


def test_an_evaluation_completes_the_run_it_finds(
    place: Path, capfd: pytest.CaptureFixture
) -> None:
    run = train(last=2, status="FAILED")
    folder, scores = write_run(place, 1)
    evaluate(folder, scores)
    stored = client().get_run(run.run_id)
    assert losses(run.run_id) == WHOLE[:3]
    assert stored.info.status == "FINISHED"
    assert stored.data.tags["tables"] == "VI"
    assert stored.data.metrics["test/sound/native_size/mean_dice"] == 0.6
    files = [file.path for file in client().list_artifacts(run.run_id)]
    assert files == ["MODEL_CARD.md", "contact_sheet.png"]
    assert main(["mlflow", "rebuild"]) == 0
    assert capfd.readouterr().out.endswith("\n0 runs made or completed, 1 were there\n")


def test_scores_of_another_evaluation_replace_the_first(place: Path) -> None:
    folder, scores = write_run(place, 1)
    evaluate(folder, scores)
    metrics = scores / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"miou": 0.5', '"miou": 0.4'))
    time.sleep(0.01)  # MLflow keeps the later value of a step
    evaluate(folder, scores)
    ((*_, values, _),) = store_content()
    assert [value for key, _, value, _ in values if key == "test/paper/miou"] == [0.5, 0.4]
    experiment = client().get_experiment_by_name("tiny").experiment_id
    (run,) = client().search_runs([experiment])
    assert run.data.metrics["test/paper/miou"] == 0.4


def test_rebuilding_twice_or_in_two_processes_equals_once(place: Path) -> None:
    for seed in (1, 2, 3):
        write_run(place, seed)
    train(last=2, status="KILLED")
    code = "from pipeline.cli import main; main(['mlflow', 'rebuild'])"
    options = {"env": os.environ | {"PYTHONPATH": str(ROOT)}, "stdout": subprocess.PIPE}
    both = [subprocess.Popen([sys.executable, "-c", code], text=True, **options) for _ in "12"]
    outputs = sorted(process.communicate(timeout=120)[0] for process in both)
    expected = ["0 runs made or completed, 3 were there\n"]
    assert outputs == [*expected, "3 runs made or completed, 0 were there\n"]
    once = store_content()
    assert len(once) == 3
    assert main(["mlflow", "rebuild"]) == 0
    assert store_content() == once
    name, status, started, ended, *_ = once[-1]
    assert (name, status) == ("isic17-32-scratch-paper-3", "FINISHED")
    assert (started, ended) == (10**12, 10**12 + 1500)


def test_scores_of_an_earlier_training_are_left_out(place: Path) -> None:
    folder, _ = write_run(place, 1)
    path = folder / "run.json"
    path.write_text(path.read_text().replace(str(10**12), str(10**12 + 1)))
    assert main(["mlflow", "rebuild"]) == 0
    ((*_, values, files),) = store_content()
    assert not [key for key, *_ in values if key.startswith("test/")]
    assert files == []


def test_one_broken_run_does_not_stop_the_others(place: Path, capfd: pytest.CaptureFixture) -> None:
    for seed in (1, 2):
        write_run(place, seed)
    (place / "runs" / RUN / "history.csv").write_text("epoch,train_loss\n1,x\n")
    assert main(["mlflow", "rebuild"]) == 0
    out, err = capfd.readouterr()
    assert out == "1 runs made or completed, 0 were there\n"
    assert err.startswith("warning: isic17-32-scratch-paper-1: not rebuilt")


def test_a_trial_goes_on_by_its_key_and_a_search_by_its_id() -> None:
    first = PlainRun("tiny", "a-0", {"trial.x": 1}, {"trial": "0"}, key="a")
    first.log_epoch(row(1))
    first.finish("KILLED")
    again = PlainRun("tiny", "a-1", {"trial.x": 1}, {"trial": "1"}, key="a", history=[row(1)])
    again.log_epoch(row(2))
    again.finish()
    assert again.run_id == first.run_id
    assert losses(again.run_id) == WHOLE[:2]
    assert client().get_run(again.run_id).data.tags["trial"] == "1"
    study = PlainRun("tiny", "search", {}, {})
    study.finish()
    other = PlainRun("tiny", "search", {}, {}, run_id=study.run_id)
    other.log({"best_loss": 0.5}, step=3)
    other.finish()
    assert other.run_id == study.run_id
    assert client().get_run(study.run_id).data.metrics == {"best_loss": 0.5}
    lost = PlainRun("tiny", "search", {}, {}, run_id="0" * 32)
    lost.finish()
    assert lost.run_id not in ("", "0" * 32, study.run_id)


def test_a_store_of_an_older_mlflow_says_how_to_upgrade(
    place: Path, capfd: pytest.CaptureFixture
) -> None:
    with sqlite3.connect(store.STORE) as database:
        # the revision of MLflow 1.0
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    train(last=1)
    error = capfd.readouterr().err
    command = f"`mlflow db upgrade sqlite:///{place}/mlflow.db`"
    assert "mlflow.db was made by an older MLflow; make a copy of it, then run" in error
    assert command in error
    assert error.count("\n") == 1
    assert main(["mlflow", "rebuild"]) == 2
    assert command in capfd.readouterr().err


def test_a_sweep_without_a_server_has_no_run(closed: None, capfd: pytest.CaptureFixture) -> None:
    assert start_sweep("tiny", "a sweep", {}) == ""
    end_sweep("")
    assert capfd.readouterr().err.startswith("warning: a sweep: the sweep has no run in MLflow")


def test_tables_of_a_run() -> None:
    from pipeline.config.params import load_params
    from pipeline.config.runs import Run
    from pipeline.tracking.table_names import tables_of

    params = load_params(demo_root())
    isic = params.grid.ablation_views[0]
    assert tables_of(Run(isic, "base", "paper", 42), params, ROOT) == "I III IV V VI"
    assert tables_of(Run(isic, "drop-path-03", "paper", 42), params, ROOT) == "IV"
    for view in params.grid.size_views:
        assert tables_of(Run(view, "base", "paper", 42), params, ROOT) == "VI"
    for view in params.grid.volumes:
        assert tables_of(Run(view, "base", "sound", 42), params, ROOT) == "II"
    assert tables_of(Run("gone", "base", "paper", 42), params, ROOT) == ""


def test_a_run_of_another_model_is_logged_by_its_name() -> None:
    cell = {"model": "unet", "init": "none"}  # it has no depths and no drop path rate
    header = header_of(record(cell=cell), "I")
    assert header.tags["model"] == header.params["cell.model"] == "unet"
    assert not any("None" in str(value) for value in (*header.params.values(), *header.tags))


def test_a_record_makes_tags_of_what_is_known() -> None:
    header = header_of(record(), "")
    assert not {"micro_batch", "weights_hash", "tables"} & header.tags.keys()


def test_importing_tracking_is_cheap() -> None:
    code = (
        "import sys, pipeline.tracking.live, pipeline.tracking.scores, pipeline.tracking.rebuild\n"
        "print({'torch', 'mlflow', 'pandas', 'numpy'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
