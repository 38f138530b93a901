"""Models in MLflow's registry, and runs rebuilt from their folders."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND

from pipeline.cli import main
from pipeline.tracking import client
from tests.helpers.paths import ROOT
from tests.helpers.tracking import losses, write_run
from vmunet import InputError, Predictor
from vmunet.inference.served import FOLDER, Segmenter, example, read_input
from vmunet.model import VMUNet
from vmunet.weights.checkpoints import save_checkpoint

MINMAX = {"normalisation": "minmax", "size": 32, "protocol": "paper"}
WINDOW = {"normalisation": "window", "window": [-125, 275], "size": 32, "protocol": "paper"}


def weights(channels: int = 1, **metadata: object):
    def make(path: Path) -> None:
        torch.manual_seed(0)
        depths = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
        model = VMUNet(num_classes=channels, dims=(8, 16, 32, 64), **depths)
        save_checkpoint(path, model, metadata or MINMAX)

    return make


@pytest.fixture
def place(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two runs, with an empty store."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("params.yaml", "profiles", "reports/tables.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    for seed in (1, 2):
        write_run(tmp_path, seed, weights())
    return tmp_path


def test_a_server_that_knows_no_models_gets_all_else(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """MLflow 2 answers 404 where MLflow 3 keeps the models of runs."""

    def unknown(*_: object, **more: object) -> None:
        raise MlflowException("404", ENDPOINT_NOT_FOUND)

    monkeypatch.setattr("mlflow.tracking.MlflowClient.create_logged_model", unknown)
    for answer in ("2 runs made or completed, 0 were there", "0 runs made or completed, 2"):
        assert main(["mlflow", "rebuild"]) == 0
        out, err = capfd.readouterr()
        assert out.startswith(answer)
        assert err.count("\n") == (1 if answer.startswith("2") else 0)
        assert "no model is logged" in err or not err
    experiment = client().get_experiment_by_name("tiny").experiment_id
    runs = client().search_runs([experiment])
    assert [len(losses(run.info.run_id)) for run in runs] == [3, 3]


def encoded(pixels: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()


def decoded(text: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED)


def test_rebuild_makes_the_runs_once(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["mlflow", "rebuild"]) == 0
    assert capsys.readouterr().out == "2 runs made or completed, 0 were there\n"
    assert main(["mlflow", "rebuild"]) == 0
    assert capsys.readouterr().out == "0 runs made or completed, 2 were there\n"
    mlflow = client()
    experiment = mlflow.get_experiment_by_name("tiny").experiment_id
    runs = mlflow.search_runs([experiment], order_by=["tags.seed"])
    assert [run.data.tags["seed"] for run in runs] == ["1", "2"]
    run = runs[0]
    assert losses(run.info.run_id) == [(1, 2.0), (2, 1.0), (3, 2 / 3)]
    assert run.info.status == "FINISHED"
    assert run.info.start_time == 10**12
    assert run.data.metrics["test/paper/miou"] == 0.5
    assert run.data.metrics["test/sound/native_size/mean_dice"] == 0.6
    assert run.data.params["train.epochs"] == "8"
    assert run.data.tags["rebuilt"] == "true"
    files = ["MODEL_CARD.md", "contact_sheet.png"]
    assert [file.path for file in mlflow.list_artifacts(run.info.run_id)] == files
    assert not (place / "mlruns").exists()
    versions = mlflow.search_model_versions("name = 'isic17-32-scratch-paper'")
    assert sorted(version.tags["seed"] for version in versions) == ["1", "2"]

    import mlflow.pyfunc as pyfunc

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
        model = pyfunc.load_model("models:/isic17-32-scratch-paper@seed-2")
    import pandas as pd

    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    (answer,) = model.predict(pd.DataFrame({"image": [encoded(image)]})).to_dict("records")
    mask = decoded(answer["mask"])
    assert mask.shape == (50, 70)
    assert answer["lesion_fraction"] == pytest.approx((mask == 255).mean())
    assert model.metadata.signature.inputs.input_names() == ["image"]
    assert model.metadata.signature.outputs.input_names() == ["mask", "lesion_fraction"]
    # a Predictor takes them from the store
    expected = Predictor.from_checkpoint("runs/isic17-32/scratch/paper/1")(image).probability
    latest = {version.tags["seed"]: version for version in versions}["1"]
    name = "models:/isic17-32-scratch-paper"
    for uri in (f"{name}/{latest.version}", f"{name}@seed-1", f"runs:/{latest.run_id}"):
        found = Predictor.from_checkpoint(uri)(image).probability
        np.testing.assert_array_equal(found, expected)
    for uri in (f"{name}/77", "models:/none@seed-1", "runs:/77", "models:/x"):
        with pytest.raises(InputError, match=f"{uri}: "):
            Predictor.from_checkpoint(uri)
    # the weights need no space
    linked = list(place.glob("mlartifacts/models/*/artifacts/artifacts/weights.safetensors"))
    assert sorted(path.stat().st_nlink for path in linked) == [2, 2]


def test_a_folder_without_record_is_left_out(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "runs/isic17-32/scratch/paper/1/run.json").unlink()
    assert main(["mlflow", "rebuild"]) == 0
    out, err = capsys.readouterr()
    assert out == "1 runs made or completed, 0 were there\n"
    assert err.startswith("warning: runs/isic17-32/scratch/paper/1: left out")


def test_models_can_be_left_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMUNET_MLFLOW_MODEL", "0")
    assert main(["mlflow", "rebuild"]) == 0
    assert not client().search_model_versions()


def test_mlflow_models_predict(place: Path) -> None:
    assert main(["mlflow", "rebuild"]) == 0
    table = {"columns": ["image"], "data": [[encoded(np.eye(40, dtype=np.uint8) * 255)]]}
    (place / "input.json").write_text(json.dumps({"dataframe_split": table}))
    command = "-m mlflow models predict -m models:/isic17-32-scratch-paper@seed-1 "
    command += "--env-manager local -i input.json -o output.json"
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=place,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads((place / "output.json").read_text())["predictions"]
    assert decoded(answer["mask"]).shape == (40, 40)


def test_a_model_of_several_classes(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    weights(3, **MINMAX, classes=["polyp", "tool"])(path)
    answer = Segmenter(path)(example(volumes=False))
    labels = decoded(base64.b64encode(answer.content).decode())
    assert labels.shape == (48, 64)
    assert list(answer.amounts) == ["polyp_fraction", "tool_fraction"]
    assert answer.amounts["tool_fraction"] == pytest.approx((labels == 2).mean())


def test_a_model_of_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    path = tmp_path / "weights.safetensors"
    weights(3, **WINDOW, classes=["liver", "spleen"])(path)
    segmenter = Segmenter(path)
    content = example(volumes=True)
    file = tmp_path / "ct.nii.gz"
    file.write_bytes(content)
    for text in (base64.b64encode(content).decode(), str(file), file.name):
        answer = segmenter(read_input(text, volumes=True))
        out = tmp_path / "labels.nii.gz"
        out.write_bytes(answer.content)
        labels = np.asarray(nibabel.load(out).dataobj)
        assert labels.shape == (48, 64, 2)
        assert answer.amounts["liver_ml"] == pytest.approx((labels == 1).sum() * 0.003)


@pytest.mark.parametrize(
    ("text", "volumes"), [("no base64!", False), ("missing.nii.gz", True), ("/etc/x", True)]
)
def test_a_wrong_input_is_one_sentence(text: str, volumes: bool) -> None:
    with pytest.raises(InputError):
        read_input(text, volumes)


def test_no_path_outside_the_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusals are one sentence, whether a file exists or not."""
    folder, secret = tmp_path / "scans", tmp_path / "secret.nii"
    (folder / "deep").mkdir(parents=True)
    for path in (secret, folder / "deep" / "ct.nii"):
        path.write_bytes(b"volume")
    (folder / "link.nii").symlink_to(secret)
    (folder / "inside.nii").symlink_to(folder / "deep" / "ct.nii")
    (folder / "folder.nii").mkdir()
    os.mkfifo(folder / "pipe.nii")  # opening it would wait for a writer
    with pytest.raises(InputError, match=r"expected base64$"):
        read_input(str(folder / "deep" / "ct.nii"), volumes=True)
    monkeypatch.setenv(FOLDER, str(folder))
    for name in ("deep/ct.nii", "inside.nii", str(folder / "deep/ct.nii"), "deep/../deep/ct.nii"):
        assert read_input(name, volumes=True) == b"volume"
    names = (
        *("../secret.nii", str(secret), "link.nii", "pipe.nii", "folder.nii", "missing.nii"),
        *("../missing.nii", "/dev/zero.nii", "x\0.nii", f"{'x' * 5000}.nii", "deep/ct.nii/.nii"),
    )
    messages = set()
    for name in names:
        with pytest.raises(InputError) as error:
            read_input(name, volumes=True)
        messages.add(str(error.value).removeprefix(repr(name[:40])))
    assert len(messages) == 1
    with pytest.raises(InputError):
        read_input("deep/ct.nii", volumes=False)
