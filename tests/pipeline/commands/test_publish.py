"""`vmunet publish`: a folder that this project, MLflow and a model hub can read."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from pipeline.cli import main
from tests.helpers.clone import demo_root
from tests.helpers.tables import Run as TableRun
from tests.helpers.tables import make_params, metrics_file, write_metrics
from tests.helpers.tracking import record
from vmunet import Predictor, VMUNet
from vmunet.weights.checkpoints import save_checkpoint

RUN = TableRun("isic17-64", "base", "paper", 42)
FOLDER = "runs/isic17-64/base/paper/42"
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A clone with one trained run, without scores."""
    monkeypatch.chdir(tmp_path)
    for name in ("params.yaml", "profiles"):
        (tmp_path / name).symlink_to(demo_root() / name)
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    blocks = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
    facts = {"normalisation": "minmax", "size": 64, "protocol": "paper", "run": RUN.name}
    save_checkpoint(folder / "weights.safetensors", VMUNet(dims=(8, 16, 32, 64), **blocks), facts)
    content = record()
    content["run"] |= {"view": RUN.view, "cell": RUN.cell, "seed": 42, "profile": "demo"}
    (folder / "run.json").write_text(json.dumps(content | {"train_images": 56}))
    return tmp_path


def score(root, sha256=None):
    """Write made-up scores of the run's weights."""
    params = make_params()
    write_metrics(root, params, [RUN], source="http")
    path = metrics_file(root, params, RUN)
    metrics = json.loads(path.read_text())
    weights = (root / FOLDER / "weights.safetensors").read_bytes()
    metrics["checkpoint"]["sha256"] = sha256 or hashlib.sha256(weights).hexdigest()
    path.write_text(json.dumps(metrics))
    return metrics


def head_of(card):
    return YAML(typ="safe").load(card.split("---\n", 2)[1])


def test_a_published_folder_is_loaded_by_everybody(root, capsys, tmp_path_factory):
    metrics = score(root)
    assert main(["publish", RUN.name, "--to", "out/model"]) == 0
    assert "with its scores" in capsys.readouterr().out
    # the folder is whole without the run, and anywhere
    folder = tmp_path_factory.mktemp("elsewhere") / "model"
    shutil.move(root / "out/model", folder)
    expected = Predictor.from_checkpoint(root / FOLDER)(IMAGE)
    shutil.rmtree(root / "runs")
    np.testing.assert_array_equal(Predictor.from_checkpoint(folder)(IMAGE).labels, expected.labels)

    head = head_of((folder / "README.md").read_text())
    assert head["license"] == "mit"
    assert head["datasets"] == ["isic17"]
    (entry,) = head["model-index"]
    assert entry["name"] == RUN.name
    (result,) = entry["results"]
    assert {one["type"]: one["value"] for one in result["metrics"]} == {
        kind: pytest.approx(100 * metrics["paper"][key], abs=0.005)
        for key, kind in (("miou", "iou"), ("dsc", "dice"), ("acc", "accuracy"))
    }
    assert "Predictor.from_checkpoint" in (folder / "README.md").read_text()

    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"]["dims"] == [8, 16, 32, 64]
    assert config["run"]["size"] == 64

    import pandas as pd
    from mlflow import pyfunc

    png = cv2.imencode(".png", IMAGE[..., ::-1])[1].tobytes()
    row = pd.DataFrame({"image": [base64.b64encode(png).decode()]})
    (answer,) = pyfunc.load_model(str(folder)).predict(row).to_dict("records")
    assert answer["lesion_fraction"] == pytest.approx(expected.mask.mean())
    for path in folder.rglob("*"):  # loading may have compiled its Python file
        if path.is_file() and path.suffix not in (".safetensors", ".pyc"):
            assert str(root) not in path.read_text()
            assert "/tmp" not in path.read_text()

    cv2.imwrite(str(root / "photo.png"), IMAGE[..., ::-1])
    command = [sys.executable, folder / "example.py", "photo.png"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.stdout == f"lesion: {expected.mask.mean():.1%} of photo.png\n", done.stderr
    assert cv2.imread(str(root / "overlay.png")).shape == IMAGE.shape


def test_a_run_without_scores_says_so(root, capsys):
    assert main(["publish", FOLDER, "--to", "model"]) == 0
    assert "without scores" in capsys.readouterr().out
    card = (root / "model/README.md").read_text()
    assert "Not scored" in card
    assert "model-index" not in head_of(card)
    assert sorted(path.name for path in root.iterdir() if path.name.startswith(".")) == []


def test_mistakes_are_one_sentence_and_leave_nothing(root, capsys):
    def error(*words):
        assert main(["publish", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    before = sorted(root.iterdir())
    assert "no-run: no run that params.yaml declares" in error("no-run", "--to", "model")
    assert "scratch/paper/42: no weights" in error("isic17-64-scratch-paper-42", "--to", "model")
    assert "profiles: is there already" in error(RUN.name, "--to", "profiles")
    assert "run.json: not JSON" in broken(root, lambda: error(RUN.name, "--to", "model"))
    score(root, sha256="other")
    assert "scores of other weights" in error(RUN.name, "--to", "model")
    assert sorted(root.iterdir()) == sorted([*before, root / "metrics"])


def broken(root, then):
    """The result of `then` while run.json is broken."""
    path = root / FOLDER / "run.json"
    content = path.read_text()
    path.write_text("{")
    try:
        return then()
    finally:
        path.write_text(content)
