"""A run of the grid from its arrays to its folder, with a real MLflow store."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import pipeline.tracking.table_names
import stages.common.training
from pipeline.config.params import Cell
from pipeline.config.runs import Run
from pipeline.stage import TIME_OVER, TimeOverError, run_stage
from pipeline.tracking import client
from pipeline.tracking.live import RunTracker
from stages.common import only_here
from stages.train import image_task
from tests.helpers.classes import scene, write_class_arrays
from tests.helpers.tracking import losses
from vmunet.errors import InputError
from vmunet.settings import TrainSettings
from vmunet.weights.checkpoints import load_checkpoint

RUN = Run("shapes-32", "base", "sound", 1)
SHALLOW = {"depths": [1, 1, 1, 1], "depths_decoder": [1, 1, 1, 1]}
PARAMS = SimpleNamespace(
    profile_name="own",
    profile=SimpleNamespace(
        threads=0,
        train=TrainSettings(epochs=5, t_max=2, batch_size=2, dims=(8, 16, 32, 64), states=4),
    ),
    view=lambda name: SimpleNamespace(dataset="shapes", size=32),
    cell=lambda name: Cell(init="none", drop_path_rate=0.2, **SHALLOW),
)


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the arrays of an own dataset, and an empty store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(stages.common.training, "hash_inputs", lambda *a: {"data_hash": "d"})
    monkeypatch.setattr(pipeline.tracking.table_names, "tables_of", lambda *a: "")
    shutil.copy(empty_store, "mlflow.db")
    pairs = [scene(i, 40 + 5 * i, 60) for i in range(9)]
    write_class_arrays(Path("data/arrays/shapes-32/sound"), 32, pairs[:6], pairs[6:])
    return tmp_path


def trained(*seconds: float) -> tuple[dict, list[bytes]]:
    """Train a run; return run.json, and the bytes of the weights and the history."""
    stages.common.training.train_run(RUN, PARAMS, image_task(RUN, PARAMS), *seconds)
    record = json.loads((RUN.folder / "run.json").read_text())
    return record, [(RUN.folder / n).read_bytes() for n in ("weights.safetensors", "history.csv")]


def test_a_run_that_another_process_trains_is_refused_and_opens_no_mlflow_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(only_here, "LOCK_SECONDS", 0.1)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with only_here.only_here(RUN):
            entered.set()
            leave.wait()

    other = threading.Thread(target=hold)
    other.start()
    entered.wait()
    with pytest.raises(InputError, match="another process trains this run"):
        trained()
    assert client().get_experiment_by_name("own") is None
    leave.set()
    other.join()


def test_a_run_without_resume_points_ends_well(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Neither its folder of resume points nor MLflow's store can be written."""
    Path(".resume").write_text("no folder")
    Path("mlflow.db").unlink()
    Path("mlflow.db").mkdir()
    record, _ = trained()
    assert record["mlflow_run_id"] == ""
    warnings = [line for line in capfd.readouterr().err.split("\n") if "warning" in line]
    assert len(warnings) == 2


def test_a_killed_run_continues_in_its_mlflow_run_and_ends_with_the_same_bits(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = trained()
    shutil.rmtree("runs")
    shutil.rmtree(".resume")
    log_epoch = RunTracker.log_epoch

    def killed(self: RunTracker, row: dict[str, float]) -> None:
        log_epoch(self, row)
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunTracker, "log_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            trained()
    (state,) = Path(".resume").glob("*.pt")
    resumed, content = trained()
    assert load_checkpoint(RUN.folder / "weights.safetensors")[0].config["d_state"] == 4
    assert 1 <= resumed["resumed_from"] <= 2
    assert content == expected
    assert resumed["mlflow_key"] == whole["mlflow_key"] == state.stem
    assert resumed["mlflow_run_id"] != whole["mlflow_run_id"]
    experiment = client().get_experiment_by_name("own").experiment_id
    assert len(client().search_runs([experiment])) == 2
    assert losses(resumed["mlflow_run_id"]) == losses(whole["mlflow_run_id"])
    assert [step for step, _ in losses(resumed["mlflow_run_id"])] == [1, 2, 3, 4, 5]
    for record in (whole, resumed):
        assert client().get_run(record["mlflow_run_id"]).info.status == "FINISHED"


def test_a_run_in_parts_of_limited_time(project: Path, capsys: pytest.CaptureFixture) -> None:
    """Three calls end with the bits of one; the first two do not succeed, and write no outputs."""
    _, expected = trained()
    shutil.rmtree("runs")
    shutil.rmtree(".resume")
    for epochs in (1, 2):
        with pytest.raises(SystemExit) as ended:
            run_stage(lambda: trained(1e-9))
        assert ended.value.code == TIME_OVER == 124
        error = capsys.readouterr().err.splitlines()[-1]
        said = f"1e-09 seconds are over after {epochs} of 5 epochs; start it again to go on"
        assert error.startswith(f"error: shapes-32-base-sound-1: {said}")
        assert not RUN.folder.exists()
        (state,) = Path(".resume").glob("*.pt")
    resumed, content = trained(1e9)
    assert content == expected
    assert (resumed["resumed_from"], resumed["mlflow_key"]) == (2, state.stem)
    assert resumed["step"] == {"kind": "eager", "seconds": {}}
    assert set(resumed["seconds_of"]) == {"data", "step", "selection", "saving"}
    assert [step for step, _ in losses(resumed["mlflow_run_id"])] == [1, 2, 3, 4, 5]
    assert client().get_run(resumed["mlflow_run_id"]).info.status == "FINISHED"


def test_a_run_that_is_over_time_is_killed_for_mlflow(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []
    monkeypatch.setattr(RunTracker, "finish", lambda self, status="FINISHED": ends.append(status))
    with pytest.raises(TimeOverError):
        trained(1e-9)
    assert ends == ["KILLED"]


def test_several_gpus_are_several_processes_of_the_stage(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tests/vmunet/training/test_distributed.py` runs such processes."""
    launched, statuses = [], iter([0, 124])

    def launch(*arguments) -> int:
        launched.append(arguments)
        return next(statuses)

    monkeypatch.setattr("vmunet.training.launch.launch", launch)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    task = image_task(RUN, PARAMS)
    task = replace(task, settings=replace(task.settings, gpus=2))
    stages.common.training.train_run(RUN, PARAMS, task)
    with pytest.raises(SystemExit) as caught:
        stages.common.training.train_run(RUN, PARAMS, task, 60)
    assert caught.value.code == 124
    words = ["shapes-32", "base", "sound", "1"]
    assert launched == [("stages.train", words, 2), ("stages.train", [*words, "--seconds=60"], 2)]
    assert not RUN.folder.exists()  # the processes write it
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match=r"^train: gpus: 2, and this process sees 0; take at most"):
        stages.common.training.train_run(RUN, PARAMS, task)


def test_torchrun_must_start_as_many_as_the_settings_say(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    message = (
        "^shapes-32-base-sound-1: 4 processes were started, and train: gpus is 1; make the two"
    )
    with pytest.raises(InputError, match=message):
        stages.common.training.train_run(RUN, PARAMS, image_task(RUN, PARAMS))
