"""A small project for tests of searches: params.yaml, a profile, and arrays without downloads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from pipeline.config.yaml_file import read_yaml
from tests.helpers.paths import ROOT

COMMAND = "import sys; from pipeline.cli import main; sys.exit(main())"
FAKE = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from tests.helpers import fake_trial
import pipeline.search.report, pipeline.search.execution as execution
execution.TRIAL, execution.PlainRun = [{sys.executable!r}, fake_trial.__file__], fake_trial.Tracker
pipeline.search.report.draw = lambda *_: {{}}
{COMMAND}
"""
VIEW = "isic17-32"
PROFILE = {
    "about": "Discs, the narrowest model.",
    "threads": 1,
    "data": {"isic17": {"source": "phantom", "training": 12, "validation": 2, "n_train": 8}},
    "volumes": {"synapse": {"source": "phantom", "side": 32, "slices": [8, 9]}},
    "weights": {"source": "none"},
    "train": {"dims": [8, 16, 32, 64], "states": 4, "epochs": 4, "t_max": 2, "batch_size": 4},
    "train_volumes": {
        "dims": [8, 16, 32, 64],
        "states": 4,
        "epochs": 4,
        "t_max": 2,
        "batch_size": 8,
    },
    "evaluate": {"batch_size": 4, "bootstrap": 200},
    "grid": {
        "datasets": ["isic17"],
        "views": {VIEW: {"dataset": "isic17", "size": 32, "protocols": ["paper", "sound"]}},
        "ablation_views": [VIEW],
        "ablations": ["scratch"],
        "protocols": ["paper"],
        "size_views": [],
        "rivals": [],
        "sound_cells": ["scratch"],
        "volumes": {"synapse-32": {"dataset": "synapse", "size": 32}},
        "volume_protocols": ["paper", "sound"],
        "volume_rivals": [],
        "seeds": [1],
        "repeats": {"cells": [], "seeds": []},
        "cross": {},
        "profiled": [],
    },
}


def make_project(folder: Path, **train: object) -> Path:
    """Write params, the profile `tiny`, and arrays of discs; the cell is as shallow as possible."""
    (folder / "profiles").mkdir(parents=True)
    profile = PROFILE | {"train": PROFILE["train"] | train}  # type: ignore[operator]
    write(folder / "profiles/tiny.yaml", profile)
    content = read_yaml(ROOT / "params.yaml") | {"profile": "tiny", "grid": PROFILE["grid"]}
    content["cell"] |= {"depths": [1, 1, 1, 1], "depths_decoder": [1, 1, 1, 1]}
    write(folder / "params.yaml", content)
    for protocol in ("paper", "sound"):
        arrays = folder / "data/arrays" / VIEW / protocol
        for subset, count in (("train", 10), ("test", 4)):
            make_discs(arrays / subset, count)
        (arrays / "manifest.json").write_text(json.dumps({"dataset": "isic17", "size": 32}))
    make_volumes(folder / "data/arrays/synapse-32")
    return folder


def make_discs(folder: Path, count: int, size: int = 32) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(count)
    rows = np.arange(size)
    images, masks = [], []
    for _ in range(count):
        x, y, r = random.uniform((10, 10, 4), (22, 22, 9))
        disc = (rows[:, None] - y) ** 2 + (rows - x) ** 2 < r**2
        images.append(120 * disc[..., None] + random.integers(0, 80, (size, size, 3)))
        masks.append(255 * disc)
    np.save(folder / "images.npy", np.array(images, np.uint8))
    np.save(folder / "masks.npy", np.array(masks, np.uint8))
    (folder / "ids.txt").write_text("".join(f"ISIC_{i:07}\n" for i in range(count)))


def make_volumes(folder: Path) -> None:
    from vmunet.data.volumes import Case, Pixels, write_volumes

    def pixels(number: int) -> Pixels:
        random = np.random.default_rng(number)
        labels = np.zeros((3, 32, 32), np.uint8)
        labels[:, 8:20, 8:20] = 1
        labels[:, 20:28, 12:30] = 2
        return Pixels(random.random(labels.shape, np.float32), labels, (3.0, 1.0, 1.0))

    cases = [Case(f"case{n}", lambda n=n: pixels(n)) for n in range(8)]  # type: ignore[misc]
    write_volumes(folder, {"window": None}, ["left", "right"], cases[:6], cases[6:])


def write(path: Path, content: dict) -> None:
    with open(path, "w") as file:
        YAML(typ="safe").dump(content, file)


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    return kept | {"PYTHONPATH": str(ROOT)} | more


def start(
    project: Path, *arguments: str, fake: bool = True, **more: str
) -> "subprocess.Popen[str]":
    """Start `vmunet search VIEW --cell scratch` in a separate process.

    If `fake`, trials train nothing, and nothing is logged to MLflow or plotted.
    """
    own = [] if any(word in arguments for word in ("--cell", "--help")) else ["--cell", "scratch"]
    code = FAKE if fake else COMMAND
    return subprocess.Popen(
        [sys.executable, "-c", code, "search", "--gpus", "none", *arguments, *own],
        cwd=project,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def search(project: Path, *arguments: str, status: int = 0, fake: bool = True) -> str:
    """Run the command, which must end with this status, and return its output."""
    process = start(project, *arguments, fake=fake)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == status, output
    return output


def copied(project: Path, folder: Path) -> Path:
    """Copy a project without the files of its searches."""
    left = shutil.ignore_patterns(".search", "reports", "mlflow.db*", "mlartifacts")
    return Path(shutil.copytree(project, folder, ignore=left))
