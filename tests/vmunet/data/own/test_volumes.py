"""Own volumes as arrays: labels, windows, patients, and refused input."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipeline.provenance import hash_files
from stages import evaluate_volumes, own_split, own_volumes, train_volumes
from tests.helpers.paths import ROOT
from vmunet.data.arrays import held_out, load_manifest
from vmunet.data.own.split import Sample
from vmunet.data.own.volumes import read_case
from vmunet.data.slices import percentiles
from vmunet.errors import InputError
from vmunet.model import VMUNet
from vmunet.weights.checkpoints import save_checkpoint

SHAPE = (12, 10, 5)  # width, height, depth


def save(path: Path, voxels: np.ndarray, step: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, step, 1.0])), path)


def write_case(folder: Path, name: str, seed: int, image: str = "{}_0000.nii.gz") -> Sample:
    """A random scan with the labels 0, 1 and 2 in folder/images and folder/labels."""
    scan = np.random.default_rng(seed).integers(-300, 400, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[:4], labels[8:] = 1, 2
    paths = folder / "images" / image.format(name), folder / "labels" / f"{name}.nii.gz"
    save(paths[0], scan)
    save(paths[1], labels)
    return Sample(name, "train", "", str(paths[0]), str(paths[1]))


def test_a_window_makes_0_and_1_and_labels_stay(tmp_path):
    case = read_case(write_case(tmp_path, "a", 0), 2, [-125, 275])
    assert case.image.shape == case.labels.shape == SHAPE[::-1]
    assert case.image.dtype == np.float32
    assert (case.image.min(), case.image.max()) == (0, 1)
    assert set(np.unique(case.labels).tolist()) == {0, 1, 2}
    assert case.spacing == (2, 1, 1)


def test_without_a_window_each_volume_is_stretched_by_its_percentiles(tmp_path):
    sample = write_case(tmp_path, "a", 0)
    case = read_case(sample, 2, None)
    assert (case.image.min(), case.image.max()) == (0, 1)
    assert 0.003 < (case.image == 0).mean() < 0.02
    assert percentiles(np.full((2, 2, 2), 7.0)) == (7, 8)


def test_labels_of_no_class_and_other_grids_are_refused(tmp_path):
    sample = write_case(tmp_path, "a", 0)
    with pytest.raises(InputError, match=r"a\.nii\.gz: holds 2, .* 0, 1; name every label"):
        read_case(sample, 1, None)
    save(Path(sample.mask), np.zeros(SHAPE, np.uint8), step=3)
    with pytest.raises(InputError, match="not on the same grid"):
        read_case(sample, 2, None)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with params.yaml that declares 8 cases of 4 patients, and the cases."""
    text = (ROOT / "params.yaml").read_text()
    head, tail = text.split("  volumes: {}", 1)
    declared = (
        "  volumes:\n    mr:\n      images: images\n      masks: labels\n"
        "      classes: [left, right]\n      split: {test: 0.25, csv: cases.csv}\n"
        "      size: 32\n"
    )
    (tmp_path / "params.yaml").write_text(head + declared + tail.split("\n", 1)[1])
    (tmp_path / "profiles").mkdir()
    for path in (ROOT / "profiles").glob("*.yaml"):
        (tmp_path / "profiles" / path.name).write_text(path.read_text())
    rows = [f"case{n},p{n // 2}\n" for n in range(8)]
    (tmp_path / "cases.csv").write_text("id,patient\n" + "".join(rows))
    for n in range(8):
        write_case(tmp_path, f"case{n}", n)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stages_end_in_arrays_that_training_reads(project, capsys):
    own_split.main(["mr"])
    assert "mr: 2 test, 1 patients" in capsys.readouterr().out
    own_volumes.main(["mr"])
    folder = project / "data/arrays/mr"
    manifest = load_manifest(folder)
    assert (manifest["view"], manifest["dataset"], manifest["source"]) == ("mr", "mr", "own")
    assert (manifest["classes"], manifest["window"]) == (["left", "right"], None)
    assert (manifest["n_train"], manifest["n_test"]) == (6, 2)
    assert np.load(folder / "cases" / manifest["train"][0] / "labels.npy").max() == 2
    cases = train_volumes.training_cases(manifest)
    _, held = held_out(cases, fraction=1 / 6)
    assert len({cases.patients[i] for i in held}) == 1
    assert len(held) == 2
    run, _ = train_volumes.parse_training(["mr", "scratch", "sound", "1"], "x", "")
    params = train_volumes.load_params()
    task = train_volumes.organ_task(run, params)
    assert (task.classes, task.size) == (3, 32)
    assert task.metadata["normalisation"] == "percentiles"
    train, selection = task.datasets()
    assert (len(train), len(selection)) == (4 * SHAPE[2], 2 * SHAPE[2])
    image, labels = train[0]
    assert (tuple(image.shape), tuple(labels.shape)) == ((1, 32, 32), (32, 32))


def test_unknown_names_are_refused(project):
    for stage in (own_split, own_volumes):
        with pytest.raises(InputError, match=r"'ct' is not in params\.yaml's own.*it has mr"):
            stage.main(["ct"])


def test_another_size_gives_other_arrays_so_that_dvc_trains_again(project):
    own_split.main(["mr"])
    own_volumes.main(["mr"])
    before = hash_files([Path("data/arrays/mr")])
    own_volumes.main(["mr"])
    assert hash_files([Path("data/arrays/mr")]) == before
    edited = Path("params.yaml").read_text().replace("      size: 32\n", "      size: 64\n")
    Path("params.yaml").write_text(edited)
    own_volumes.main(["mr"])
    assert load_manifest("data/arrays/mr")["size"] == 64
    assert hash_files([Path("data/arrays/mr")]) != before


@pytest.fixture
def trained(project, monkeypatch):
    """A run on them whose weights predict background everywhere, and its command line."""
    own_split.main(["mr"])
    own_volumes.main(["mr"])
    model = VMUNet(num_classes=3, dims=(8, 16, 32, 64))
    for parameter in model.parameters():
        parameter.data.zero_()
    folder = Path("runs/mr/scratch/sound/1")
    folder.mkdir(parents=True)
    facts = {"normalisation": "percentiles", "protocol": "sound", "run": "mr", "epoch": 1}
    save_checkpoint(
        folder / "weights.safetensors",
        model,
        facts | {"size": 32, "classes": ["left", "right"], "window": None},
    )
    (folder / "run.json").write_text("{}")
    (folder / "history.csv").write_text("epoch,train_loss,selection_loss\n1,1.5,1.25\n")
    monkeypatch.setattr(evaluate_volumes, "log_scores", lambda *arguments: None)
    return ["mr", "scratch", "sound", "1"]


def test_scores_that_no_case_defines_are_null(trained):
    for path in Path("data/arrays/mr/cases").glob("*/labels.npy"):
        np.save(path, np.zeros_like(np.load(path)))  # no organ anywhere, and none is predicted
    evaluate_volumes.main(trained)
    scores = json.loads(Path("metrics/own/demo/mr/scratch/sound/1/metrics.json").read_text())
    assert scores["sound"]["dice"] is None
    assert scores["paper"]["dsc"] == 0


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size", 64, r"trained with the size 32 px and data/arrays/mr is for 64 px"),
        ("classes", ["left", "liver"], r"trained with the classes \['left', 'right'\] and"),
    ],
)
def test_arrays_that_a_run_was_not_trained_on_are_refused(trained, name, value, said):
    path = Path("data/arrays/mr/manifest.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(InputError, match=said):
        evaluate_volumes.main(trained)
    assert not Path("metrics").exists()


def test_no_arrays_yet(project):
    with pytest.raises(InputError, match=r"not found; run the stage .*own_volumes\) first"):
        train_volumes.main(["mr", "scratch", "sound", "1"])
