"""A model of three dimensions from its arrays to its scores: patches, resuming, windows."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pipeline.tracking.table_names
import stages.common.training
from pipeline.config.params import Cell
from pipeline.config.runs import Run
from pipeline.tracking.live import RunTracker
from stages import evaluate_volumes
from stages.train import image_task
from stages.train_volumes import organ_task
from tests.helpers.tiny_3d import NAME, PLACE, made
from vmunet.data.patches import PatchDataset, TileDataset
from vmunet.data.slice_dataset import SliceDataset
from vmunet.data.volumes import Case, Pixels, write_volumes
from vmunet.errors import InputError
from vmunet.inference.volumes import segment_volume
from vmunet.models import places
from vmunet.settings import TrainSettings
from vmunet.weights.checkpoints import load_checkpoint, save_checkpoint

SIZE = 32
CLASSES = ["cube", "bar"]
RUN = Run("ct", NAME, "sound", 1)
SETTINGS = TrainSettings(epochs=5, t_max=4, batch_size=32, learning_rate=0.03, eta_min=1e-3)
PARAMS = SimpleNamespace(
    profile_name="own",
    profile=SimpleNamespace(
        threads=0,
        train=SETTINGS,
        train_volumes=SETTINGS,
        evaluate=SimpleNamespace(batch_size=16),
        weights=SimpleNamespace(source="none"),
    ),
    view=lambda name: SimpleNamespace(dataset="ct", size=SIZE),
    cell=lambda name: Cell(model=NAME),
)


def pixels(name: str) -> Pixels:
    """A bright cube and a darker bar in a noisy volume of 11 to 24 slices of 40x36 px."""
    random = np.random.default_rng(list(name.encode()))
    depth = int(random.integers(11, 25))
    labels = np.zeros((depth, 40, 36), np.uint8)
    z, y, x = random.integers(0, (4, 20, 20))
    labels[z : z + 6, y : y + 12, x : x + 12] = 1
    labels[-4:, 2:8] = 2
    image = np.choose(labels, (0.1, 0.9, 0.5)) + 0.05 * random.random(labels.shape)
    return Pixels(image.astype(np.float32), labels, (2.0, 1.0, 1.0))


@pytest.fixture
def project(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the arrays of 8 volumes, and an empty store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(places.PLACES, NAME, PLACE)
    monkeypatch.setattr(stages.common.training, "hash_inputs", lambda *a: {"data_hash": "d"})
    monkeypatch.setattr(pipeline.tracking.table_names, "tables_of", lambda *a: "")
    monkeypatch.setattr(evaluate_volumes, "tables_of", lambda *a: "")
    monkeypatch.setattr(evaluate_volumes, "log_scores", lambda *a: None)
    shutil.copy(empty_store, "mlflow.db")
    cases = [Case(name, lambda name=name: pixels(name)) for name in "abcdefgh"]
    facts = {"source": "own", "size": SIZE, "window": [-100, 300]}
    write_volumes(Path("data/arrays/ct"), facts, CLASSES, cases[:6], cases[6:])
    return tmp_path


def trained() -> tuple[dict, list[bytes]]:
    """Train the run; return run.json, and the bytes of the weights and the history."""
    stages.common.training.train_run(RUN, PARAMS, organ_task(RUN, PARAMS))
    record = json.loads((RUN.folder / "run.json").read_text())
    return record, [(RUN.folder / n).read_bytes() for n in ("weights.safetensors", "history.csv")]


def test_a_killed_run_ends_with_the_same_bits(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = trained()
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
    resumed, content = trained()
    assert 1 <= resumed["resumed_from"] <= 2
    assert content == expected
    assert resumed["train"]["batch_size"] == 2  # patches; the profile's 32 are slices
    with open(RUN.folder / "history.csv", newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]
    assert load_checkpoint(RUN.folder / "weights.safetensors")[1]["patch"] == [16, 32, 32]
    evaluate_volumes.evaluate(RUN, PARAMS)
    assert (RUN.metrics_folder("own") / "predictions.npz").is_file()


def test_the_scores_are_those_of_windows_at_the_volumes_own_size(project: Path) -> None:
    RUN.folder.mkdir(parents=True)
    model, facts = made(1), {"normalisation": "window", "protocol": "sound", "patch": [16] * 3}
    facts |= {"size": SIZE, "classes": CLASSES}
    save_checkpoint(RUN.folder / "weights.safetensors", model, facts)
    (RUN.folder / "run.json").write_text("{}")
    (RUN.folder / "history.csv").write_text("epoch,train_loss\n1,0.5\n")
    evaluate_volumes.evaluate(RUN, PARAMS)
    folder = RUN.metrics_folder("own")
    with open(folder / "per_case.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["organ"]) for row in rows] == [(c, o) for c in "gh" for o in CLASSES]
    for case in "gh":
        volume = pixels(case)
        window = (0.0, 1.0)
        labels = segment_volume([model], volume.image, SIZE, "area", window, patch=(16, 16, 16))
        assert labels.shape == volume.labels.shape
        for label, organ in enumerate(CLASSES, start=1):
            truth, predicted = volume.labels == label, labels == label
            row = next(r for r in rows if (r["case"], r["organ"]) == (case, organ))
            assert int(row["truth_voxels"]) == truth.sum()
            dice = 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())
            assert float(row["dice"]) == pytest.approx(dice)
            assert dice > 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["sound"]["dice"] == pytest.approx(np.mean([float(r["dice"]) for r in rows]))


def test_micro_batches_add_up_to_the_batch(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMUNET_MICRO_BATCH", "1")
    record, _ = trained()
    assert record["micro_batch"] == 1
    monkeypatch.setenv("VMUNET_MICRO_BATCH", "2")
    with pytest.raises(InputError, match=r"^VMUNET_MICRO_BATCH=2: expected .* 1 to 1"):
        trained()


def test_the_protocols_select_as_for_slices(project: Path) -> None:
    train, selection = organ_task(RUN, PARAMS).datasets()
    assert isinstance(train, PatchDataset)
    assert isinstance(selection, TileDataset)
    assert (len(train.volumes), len(selection.volumes)) == (5, 1)
    assert train.sides == (16, 32, 32)
    slices = sum(train.volumes.slices)
    assert len(train) == max(1, round(slices * SIZE**2 / (16 * 32 * 32)))
    train, selection = organ_task(Run("ct", NAME, "paper", 1), PARAMS).datasets()
    assert (len(train.volumes), selection) == (6, None)
    others = SimpleNamespace(**vars(PARAMS) | {"cell": lambda name: Cell(**SHALLOW)})
    task = organ_task(RUN, others)
    assert (task.settings, "patch" in task.metadata) == (SETTINGS, False)
    assert all(type(data) is SliceDataset for data in task.datasets())


SHALLOW = {"drop_path_rate": 0.2, "depths": [1] * 4, "depths_decoder": [1] * 4}


def test_on_images_it_is_refused(project: Path) -> None:
    arrays = Path("data/arrays/photos/sound")
    arrays.mkdir(parents=True)
    (arrays / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"photos-tiny-3d-sound-1: Tiny 3D segments volumes, not"):
        image_task(Run("photos", NAME, "sound", 1), PARAMS)
