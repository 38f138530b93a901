"""The notebook runs on what `make tables` leaves, and says in one sentence what is missing."""

import csv
import json

import pytest
import torch

from tests.helpers.clone import demo_root
from tests.helpers.data import picture, write_raw_folder
from tests.helpers.paths import ROOT
from tests.helpers.tables import Run, make_params, metrics_file, write_metrics
from vmunet import VMUNet
from vmunet.weights.checkpoints import save_checkpoint

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
IDS = [f"ISIC_{number:07}" for number in range(4)]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A clone without runs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    clone = tmp_path / "clone"
    (clone / "examples").mkdir(parents=True)
    (clone / "dvc.yaml").touch()
    for name in ("params.yaml", "profiles"):
        (clone / name).symlink_to(demo_root() / name)
    return clone


def executed(root):
    """The notebook after all its cells have run in the clone's folder examples/."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(root / "examples")}}
    nbclient.NotebookClient(
        notebook, timeout=300, resources=resources, kernel_name="python3"
    ).execute()
    return notebook


def write_runs(root):
    """Two trained and scored runs, and the raw images."""
    params = make_params()
    for number, cell in enumerate(("base", "scratch")):
        run = Run("isic17-64", cell, "paper", 42)
        torch.manual_seed(number)
        blocks = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
        model = VMUNet(dims=(8, 16, 32, 64), **blocks)
        path = root / "runs/isic17-64" / cell / "paper/42/weights.safetensors"
        path.parent.mkdir(parents=True)
        save_checkpoint(path, model, {"normalisation": "minmax", "size": 64, "protocol": "paper"})
        write_metrics(root, params, [run])
        table = metrics_file(root, params, run).with_name("per_image.csv")
        with table.open("w", newline="") as file:
            rows = [(name, 0.5 + number / 4) for name in IDS]
            csv.writer(file).writerows([("image", "training_size_dice"), *rows])
    images = {name: picture(number) for number, name in enumerate(IDS)}
    write_raw_folder(root / "data/raw/isic17", {}, images)


def test_the_notebook_runs_from_start_to_end(root):
    write_runs(root)
    outputs = [out for cell in executed(root).cells for out in cell.get("outputs", [])]
    text = "".join(out.get("text", "") for out in outputs)
    assert f"images/{IDS[0]}.png: " in text
    assert "0 of 4 test images are better with base" in text
    assert sum("image/png" in out.get("data", {}) for out in outputs) == 3
    assert any("scratch" in out.get("data", {}).get("text/html", "") for out in outputs)


def test_a_missing_run_is_one_sentence(root):
    with pytest.raises(nbclient.exceptions.CellExecutionError) as failed:
        executed(root)
    assert "runs/isic17-64/base/paper/42 is not trained yet: run `make tables`" in str(failed.value)
    assert "Traceback" not in str(failed.value)


def test_a_missing_package_is_one_sentence(monkeypatch, capsys):
    first = json.loads(NOTEBOOK.read_text())["cells"][1]["source"]
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(SystemExit, match=r"pandas is not installed: run `pip install -e '.\[pipe"):
        exec(compile("".join(first), "cell", "exec"), {})


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
