"""The pipeline end to end, through the real `dvc` on a tiny grid of phantoms.

The project is built once; each test then checks what DVC would run after a change, or runs it.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.config.yaml_file import read_yaml
from pipeline.fingerprint import PACKAGES
from pipeline.sweep.selection import REPORT
from tests.helpers.clone import copy_sources
from tests.helpers.own_data import write_folders

CELLS = ("scratch", "base")
KINDS = ("", "_elsewhere", "_sound", "_volumes", "_rivals", "_volume_rivals", "_own_images")

TINY = {
    "about": "A few phantoms, the narrowest model.",
    "data": {
        "isic17": {"source": "phantom", "training": 12, "validation": 2, "n_train": 8, "seed": 1}
    },
    "volumes": {"synapse": {"source": "phantom", "side": 32, "slices": [8, 9], "seed": 1}},
    "weights": {"source": "phantom", "steps": 2, "side": 32},
    "train": {
        "dims": [8, 16, 32, 64],
        "states": 4,
        "width": 0.125,
        "epochs": 2,
        "t_max": 1,
        "batch_size": 4,
    },
    "train_volumes": {
        "dims": [8, 16, 32, 64],
        "states": 4,
        "width": 0.125,
        "epochs": 2,
        "t_max": 1,
        "batch_size": 16,
    },
    "evaluate": {"batch_size": 4, "bootstrap": 200},
    "grid": {
        "datasets": ["isic17"],
        "views": {
            "isic17-32": {"dataset": "isic17", "size": 32, "protocols": ["paper", "sound"]},
            "isic17-64": {"dataset": "isic17", "size": 64, "protocols": ["paper"]},
        },
        "ablation_views": ["isic17-32"],
        "ablations": list(CELLS),
        "protocols": ["paper"],
        "size_views": ["isic17-64"],
        "rivals": ["unet"],
        "sound_cells": ["scratch"],
        "volumes": {"synapse-32": {"dataset": "synapse", "size": 32}},
        "volume_protocols": ["paper", "sound"],
        "volume_rivals": ["unet-34m"],
        "seeds": [1],
        "repeats": {"cells": [], "seeds": []},
        "cross": {},
        "profiled": ["isic17-32"],
    },
}
ALWAYS = {"code", "own_split@polyps"}  # the stages that each `dvc repro` runs


def tool(project: Path, *command: str, check: bool = True) -> str:
    """Run a command in the project, which must succeed, and return its output."""
    done = subprocess.run(
        command, cwd=project, env=environment(), capture_output=True, text=True, timeout=900
    )
    output = done.stdout + done.stderr
    assert not check or done.returncode == 0, output
    return output


def environment() -> dict[str, str]:
    own = Path(sys.executable).parent
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "DVC", "GIT"))}
    return kept | {
        "PATH": f"{own}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
    }


def make_project(folder: Path, **train: object) -> Path:
    """A copy of the tracked sources as a separate repository, with the profile `tiny` active."""
    copy_sources(folder)
    write_profile(folder, "tiny", TINY | {"train": TINY["train"] | train})
    for command in (
        "git config user.email a@example.org",
        "git config user.name a",
        "git add -A",
        "git commit -qm start",
    ):
        tool(folder, *command.split())
    tool(folder, "vmunet", "profile", "tiny")
    return folder


def write_profile(project: Path, name: str, content: dict) -> None:
    with open(project / "profiles" / f"{name}.yaml", "w") as file:
        YAML(typ="safe").dump(content, file)


def edit_params(project: Path, change) -> None:
    yaml = YAML()
    path = project / "params.yaml"
    content = yaml.load(path)
    change(content)
    yaml.dump(content, path)


def cells_of(names: list[str]) -> list[str]:
    """The stages without the report's."""
    return [name for name in names if name.split("@")[0] not in REPORT]


def would_run(project: Path) -> list[str]:
    """The names of the stages that `dvc repro` would certainly run.

    The stages after them also run if an output changes, which is not known before. The fingerprints
    are written first, because `dvc repro` always runs `code`.
    """
    tool(project, "python", "-m", "stages.code")
    return sorted(set(json.loads(tool(project, "dvc", "status", "--json"))) - ALWAYS)


def declare_own_images(project: Path, folder: Path) -> None:
    """Twelve photographs and masks outside the project, three of them for the test, by a CSV."""
    write_folders(folder, [f"photo {n}" for n in range(12)])
    rows = "".join(f"photo {n},{'test' if n < 3 else 'train'}\n" for n in range(12))
    (folder / "split.csv").write_text("id,split\n" + rows)
    declared = {
        "images": str(folder / "images"),
        "masks": str(folder / "masks"),
        "classes": ["polyp"],
        "split": {"csv": os.path.relpath(folder / "split.csv", project)},
        "size": 32,
    }
    edit_params(project, lambda p: p["own"]["images"].update(polyps=declared))
    edit_params(project, lambda p: p["own"].update(cells=["base"]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("project"))
    declare_own_images(project, tmp_path_factory.mktemp("mine"))
    tool(project, "vmunet", "sweep", "--parallel", "2")  # half the time of `dvc repro`
    return project


@pytest.fixture
def project(built: Path) -> Path:
    """The built project; its changes are undone after the test."""
    saved = {p: p.read_bytes() for p in [*built.rglob("*.yaml"), *built.rglob("*.j2")]}
    sources = [p for package in PACKAGES for p in (built / package).rglob("*.py")]
    saved |= {p: p.read_bytes() for p in [*sources, built / "dvc.lock"]}
    yield built
    for path, content in saved.items():
        path.write_bytes(content)


def test_a_fresh_clone_ends_in_tables(built: Path) -> None:
    runs = [("isic17-32", cell, "paper") for cell in CELLS]
    runs += [("isic17-64", "base", "paper"), ("isic17-32", "scratch", "sound")]
    runs += [("isic17-32", "unet", "paper")]
    for view, cell, protocol in runs:
        folder = Path(view, cell, protocol, "1")
        assert (built / "runs" / folder / "weights.safetensors").is_file()
        record = json.loads((built / "runs" / folder / "run.json").read_text())
        scores = json.loads((built / "metrics" / "tiny" / folder / "metrics.json").read_text())
        assert scores["checkpoint"]["mlflow_run_id"] == record["mlflow_run_id"]
        assert scores["data"]["source"] == "phantom"
        with open(built / "metrics" / "tiny" / folder / "per_image.csv") as file:
            assert len(list(csv.DictReader(file))) == 6
        with open(built / "runs" / folder / "history.csv") as file:
            assert len(list(csv.DictReader(file))) == 2
    record = json.loads((built / "runs/isic17-32/base/paper/1/run.json").read_text())
    assert record["filled"] == {"encoder": 117, "decoder": 91, "unused": 446 - 117}
    record = json.loads((built / "runs/isic17-32/scratch/sound/1/run.json").read_text())
    assert (record["train_images"], record["selection_images"]) == (7, 1)
    for protocol in ("paper", "sound"):
        folder = Path("synapse-32/base", protocol, "1")
        record = json.loads((built / "runs" / folder / "run.json").read_text())
        assert (record["selection_images"] > 0) == (protocol == "sound")
        assert record["filled"]["encoder"] == 117
        scores = json.loads((built / "metrics" / "tiny" / folder / "metrics.json").read_text())
        assert scores["data"]["n_train"] == 18
        assert 0 <= scores["paper"]["dsc"] <= 1
        assert len(scores["sound"]["organs"]) == 8
        with open(built / "metrics" / "tiny" / folder / "per_case.csv") as file:
            assert len(list(csv.DictReader(file))) == 12 * 8
    for number in range(1, 7):
        table = (built / "reports/out" / "tables" / f"table{number}.tex").read_text()
        assert r"\toprule" in table
    assert "hantom" in (built / "reports/out" / "tables" / "table1.tex").read_text()
    assert "<!doctype html>" in (built / "reports/out/index.html").read_text()[:200].lower()
    assert (built / "reports/out/report.pdf").read_bytes().startswith(b"%PDF")
    fields = json.loads((built / "reports/out/figures/figures.json").read_text())
    assert "receptive-fields-isic17-32" in [figure["name"] for figure in fields]
    for place in ("pictures/isic17-32", "pictures/synapse-32"):
        assert (built / "reports/out" / place / "cases.json").is_file()
    scores = json.loads((built / "reports/out/tables/scores.json").read_text())
    assert set(scores) == {"isic17-32", "isic17-64", "synapse-32"}
    assert "isic17-32.base-paper-1.miou" in tool(built, "dvc", "metrics", "show", "--md")
    card = (built / "reports/out/cards/isic17-32/base/paper/1/MODEL_CARD.md").read_text()
    assert "Trained and tested on phantoms" in card
    checked = built / "reports/out" / "data"
    names = ["findings.csv", "index.md", "isic17.png", "split.json"]
    assert sorted(path.name for path in checked.iterdir()) == names
    assert "| train | 8 |" in (checked / "index.md").read_text()
    volumes = (built / "reports/out" / "volumes" / "synapse-32" / "index.md").read_text()
    assert "gallbladder: missing in case0039, case0025" in volumes


def test_two_folders_of_ones_own_end_in_scores_that_the_tables_do_not_read(built: Path) -> None:
    scores = built / "metrics/own/tiny/polyps/base/sound/1"
    metrics = json.loads((scores / "metrics.json").read_text())
    assert metrics["data"]["source"] == "own"
    assert (metrics["data"]["n_train"], metrics["data"]["n_test"]) == (9, 3)
    assert metrics["run"]["dataset"] == "polyps"
    listed = [line.split() for line in tool(built, "vmunet", "runs").splitlines()]
    assert ["polyps-base-sound-1", "scored"] in listed
    assert "polyps" not in tool(built, "dvc", "dag", "--mermaid", "tables")


def test_git_sees_only_the_lock_and_the_switch(built: Path) -> None:
    changed = tool(built, "git", "status", "--porcelain").split()[1::2]
    assert sorted(changed) == ["dvc.lock", "params.yaml"]


def test_every_run_is_in_mlflow(built: Path) -> None:
    code = (
        "from pipeline.tracking import client\n"
        "mlflow = client()\n"
        "experiment = mlflow.get_experiment_by_name('tiny')\n"
        "for run in mlflow.search_runs([experiment.experiment_id]):\n"
        "    if 'data_hash' not in run.data.tags:\n"
        "        continue  # the sweep's own\n"
        "    epochs = mlflow.get_metric_history(run.info.run_id, 'selection_loss')\n"
        "    files = [f.path for f in mlflow.list_artifacts(run.info.run_id)]\n"
        "    print(run.info.run_name, run.info.status, len(epochs),"
        " len(run.data.tags['data_hash']), run.data.params.get('cell.drop_path_rate'),"
        " 'test/paper/miou' in run.data.metrics, *files)\n"
    )
    lines = sorted(tool(built, "python", "-c", code).strip().splitlines())
    assert len(lines) == 9
    first = "isic17-32-base-paper-1 FINISHED 2 64 0.2 True MODEL_CARD.md contact_sheet.png"
    assert lines[0] == first
    assert lines[-2].startswith("synapse-32-base-sound-1 FINISHED 2 64 0.2 False")
    assert lines[-1].startswith("synapse-32-unet-34m-paper-1 FINISHED 2 64 None False")


def test_nothing_is_left_to_do(built: Path) -> None:
    started = time.perf_counter()
    assert would_run(built) == []
    assert time.perf_counter() - started < 20


def test_a_changed_cell_reruns_itself_and_the_stages_that_read_all_cells(project: Path) -> None:
    edit_params(project, lambda p: p["cells"]["scratch"].update(drop_path_rate=0.1))
    names = would_run(project)
    assert cells_of(names) == [
        "train@isic17-32-scratch-paper-1",
        "train_sound@isic17-32-scratch-sound-1",
    ]
    others = {name.partition("@")[0] for name in names} - {"train", "train_sound"}
    assert {"speed", "receptive_field", "tables"} <= others <= set(REPORT)


def test_a_new_seed_adds_only_its_runs(project: Path) -> None:
    edit_params(project, lambda p: p["grid"]["seeds"].append(2))
    names = cells_of(would_run(project))
    assert len(names) == 27  # nine trainings, evaluations and cards
    assert all(name.endswith("-2") for name in names)


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("reports/published.yaml", ["check", "tables"]),
        pytest.param("reports/templates/tables/sheet.tex.j2", ["tables"], marks=pytest.mark.slow),
        ("reports/templates/page/page.css", ["page"]),
        pytest.param("reports/templates/pdf/report.tex.j2", ["pdf"], marks=pytest.mark.slow),
        ("reports/figures.yaml", ["figures", "pictures@isic17-32", "pictures_volumes@synapse-32"]),
    ],
)
def test_changing_the_report_reruns_its_own_stages(
    project: Path, path: str, stages: list[str]
) -> None:
    target = project / path
    before = target.read_text()
    target.write_text(before + "\n")
    assert would_run(project) == stages
    target.write_text(before)


def groups(names: list[str]) -> set[str]:
    return {name.split("@")[0] for name in names}


def test_a_changed_loss_retrains_and_a_changed_metric_only_evaluates(project: Path) -> None:
    metrics = project / "vmunet/evaluation/metrics.py"
    metrics.write_text(metrics.read_text() + "\nmore = 1\n")
    evaluations = {f"evaluate{kind}" for kind in KINDS}
    assert groups(cells_of(would_run(project))) == evaluations
    losses = project / "vmunet/training/losses.py"
    losses.write_text(losses.read_text() + "\nmore = 1\n")
    trainings = {f"train{kind}" for kind in KINDS}
    assert groups(cells_of(would_run(project))) == evaluations | trainings


def test_words_and_tracking_rerun_nothing(project: Path) -> None:
    """A real `dvc repro` runs only what it always runs."""
    for path in (project / "vmunet").rglob("*.py"):
        text = path.read_text()
        assert text.startswith('"""'), path
        path.write_text(text.replace('"""', '"""Other words. ', 1) + "\n# a comment\n")
    for path in (project / "pipeline/tracking").rglob("*.py"):
        path.write_text(path.read_text() + "\nmore = 1\n")
    output = tool(project, "dvc", "repro")
    ran = [line for line in output.splitlines() if line.startswith("> ")]
    assert sorted(ran) == ["> python -m stages.code", "> python -m stages.own_split polyps"]
    assert would_run(project) == []


def test_a_changed_model_card_writes_only_the_cards(project: Path) -> None:
    card = project / "reports/make/model_card.py"
    card.write_text(card.read_text() + "\nmore = 1\n")
    assert groups(would_run(project)) == {f"model_card{kind}" for kind in KINDS}


def test_a_changed_csv_is_seen_and_an_unchanged_one_runs_nothing_after(project: Path) -> None:
    output = tool(project, "dvc", "repro", "evaluate_own_images@polyps-base-sound-1")
    assert "stages.own_split polyps" in output
    assert "stages.own_images" not in output
    own = read_yaml(project / "params.yaml")["own"]["images"]["polyps"]
    table = project / own["split"]["csv"]
    before = table.read_text()
    table.write_text(before.replace("photo 5,train", "photo 5,test"))
    output = tool(project, "dvc", "repro", "own_images@polyps")
    assert "stages.own_images polyps" in output
    ids = (project / "data/arrays/polyps/sound/test/ids.txt").read_text().split()
    assert ids == ["photo_0", "photo_1", "photo_2", "photo_5"]
    table.write_text(before)
    tool(project, "dvc", "repro", "own_images@polyps")


def test_a_path_that_a_shell_would_expand_ends_in_one_line(project: Path) -> None:
    edit_params(project, lambda p: p["own"]["images"]["polyps"].update(masks="~/masks"))
    output = tool(project, "dvc", "repro", "own_split@polyps", check=False)
    assert "error: params.yaml: own.images.polyps.masks: DVC watches this path" in output


@pytest.mark.slow
def test_switching_profiles_and_back_retrains_nothing(project: Path) -> None:
    other = TINY | {"about": "Another budget.", "train": TINY["train"] | {"epochs": 1}}
    other["grid"] = TINY["grid"] | {"ablations": ["scratch"], "size_views": [], "sound_cells": []}
    other["grid"] |= {"rivals": [], "volumes": {}, "volume_protocols": [], "volume_rivals": []}
    other["grid"] |= {"profiled": []}
    write_profile(project, "other", other)
    before = (project / "reports/out" / "tables" / "table1.tex").read_bytes()
    tool(project, "vmunet", "profile", "other")
    tool(project, "vmunet", "sweep", "--parallel", "2")
    assert (project / "reports/out" / "tables" / "table1.tex").read_bytes() != before
    tool(project, "vmunet", "profile", "tiny")
    output = tool(project, "dvc", "repro")
    assert "stages.train" not in output
    assert (project / "reports/out" / "tables" / "table1.tex").read_bytes() == before
    (project / "profiles" / "other.yaml").unlink()


def test_a_mistake_in_params_is_one_line(project: Path) -> None:
    edit_params(project, lambda p: p["cells"]["scratch"].update(drop_path_rate=2.0))
    command = "python -m stages.train isic17-32 scratch paper 1"
    output = tool(project, *command.split(), check=False)
    assert output.startswith("error: params.yaml: cells.scratch.drop_path_rate")
    assert output.count("\n") == 1


@pytest.mark.slow  # tests/test_kills.py kills at random moments, and tests/stages at each epoch
def test_a_killed_run_ends_with_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """`dvc repro` and its processes are killed; the next one continues to the same results."""
    target = "train@isic17-32-scratch-paper-1"
    folder = Path("runs/isic17-32/scratch/paper/1")
    killed = make_project(tmp_path_factory.mktemp("killed"), epochs=20)
    tool(killed, "dvc", "repro", "preprocess@isic17-32", "weights")
    process = subprocess.Popen(
        ["dvc", "repro", target],
        cwd=killed,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(killed.glob(".resume/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(killed.glob(".resume/*.pt")), "killed before the first state or after the end"
    assert not (killed / folder).exists()
    tool(killed, "dvc", "repro", target)
    resumed = killed / folder
    kept = {name: (resumed / name).read_bytes() for name in ("weights.safetensors", "history.csv")}
    record = json.loads((resumed / "run.json").read_text())
    assert record["resumed_from"] > 0
    assert not list(killed.glob(".resume/*.pt"))

    shutil.rmtree(killed / ".resume")
    tool(killed, "dvc", "repro", "--force", "--single-item", target)
    again = json.loads((resumed / "run.json").read_text())
    assert again["resumed_from"] == 0
    assert again["mlflow_run_id"] != record["mlflow_run_id"]
    for name, content in kept.items():
        assert (resumed / name).read_bytes() == content, name
