"""An own dataset through the real `dvc`, from two folders to scores."""

import json
import os
from pathlib import Path

import pytest

from pipeline.config.params import read_yaml
from tests import test_pipeline
from tests.helpers.own_data import write_folders
from tests.test_pipeline import TINY, edit_params, make_project, tool

TARGET = "evaluate_own_images@polyps-scratch-sound-1"
SCORES = Path("metrics/own/tiny/polyps/scratch/sound/1")
PROFILE = {
    **TINY,
    "volumes": {},
    "weights": {"source": "none"},
    "train_volumes": TINY["train"],
    "grid": {**TINY["grid"], "ablations": ["scratch"], "size_views": []}
    | {"volumes": {}, "volume_protocols": [], "volume_rivals": []},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_pipeline, "TINY", PROFILE)
        project = make_project(tmp_path_factory.mktemp("own"), epochs=1)
    outside = write_folders(tmp_path_factory.mktemp("mine"), [f"photo {n}" for n in range(12)])
    rows = "".join(f"photo {n},{'test' if n < 3 else 'train'}\n" for n in range(12))
    (outside / "split.csv").write_text("id,split\n" + rows)
    declared = {
        "images": str(outside / "images"),
        "masks": str(outside / "masks"),
        "classes": ["polyp"],
        "split": {"csv": os.path.relpath(outside / "split.csv", project)},
        "size": 32,
    }
    edit_params(project, lambda p: p["own"]["images"].update(polyps=declared))
    edit_params(project, lambda p: p["own"].update(cells=["scratch"]))
    tool(project, "vmunet", "sweep", "--cells", "polyps-*")  # faster than `dvc repro`
    return project


def test_two_folders_end_in_scores_that_the_tables_do_not_read(built: Path) -> None:
    metrics = json.loads((built / SCORES / "metrics.json").read_text())
    assert metrics["data"]["source"] == "own"
    assert (metrics["data"]["n_train"], metrics["data"]["n_test"]) == (9, 3)
    assert metrics["run"]["dataset"] == "polyps"
    listed = [line.split() for line in tool(built, "vmunet", "runs").splitlines()]
    assert ["polyps-scratch-sound-1", "scored"] in listed
    assert "polyps" not in tool(built, "dvc", "dag", "--mermaid", "tables")


def test_a_changed_csv_is_seen_and_an_unchanged_one_runs_nothing_after(built: Path) -> None:
    output = tool(built, "dvc", "repro", TARGET)
    assert "stages.own_split polyps" in output
    assert "stages.own_images" not in output
    own = read_yaml(built / "params.yaml")["own"]["images"]["polyps"]
    table = built / own["split"]["csv"]
    table.write_text(table.read_text().replace("photo 5,train", "photo 5,test"))
    output = tool(built, "dvc", "repro", "own_images@polyps")
    assert "stages.own_images polyps" in output
    ids = (built / "data/arrays/polyps/sound/test/ids.txt").read_text().split()
    assert ids == ["photo_0", "photo_1", "photo_2", "photo_5"]


def test_a_path_that_a_shell_would_expand_ends_in_one_line(built: Path) -> None:
    before = (built / "params.yaml").read_bytes()
    edit_params(built, lambda p: p["own"]["images"]["polyps"].update(masks="~/masks"))
    output = tool(built, "dvc", "repro", TARGET, check=False)
    (built / "params.yaml").write_bytes(before)
    assert "error: params.yaml: own.images.polyps.masks: DVC watches this path" in output
