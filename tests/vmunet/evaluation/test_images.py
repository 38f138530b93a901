import csv
import json
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.config.runs import Run
from stages import evaluate as stage
from vmunet import VMUNet
from vmunet.data.resize import resize_mask
from vmunet.drawing.sheets import images as contact_sheet
from vmunet.errors import InputError
from vmunet.evaluation.images import (
    COMPARISONS,
    foreground,
    load_test_images,
    predict_probabilities,
    score_run,
)
from vmunet.evaluation.metrics import confusion_counts
from vmunet.evaluation.stored import read_masks
from vmunet.weights.checkpoints import save_checkpoint

SIZE = 32
NATIVE = [(32, 32), (90, 70), (41, 160), (20, 24), (64, 64)]  # (height, width)


class BrightIsLesion(nn.Module):
    """The probability is >= 0.5 if and only if the red channel is >= 128."""

    def __init__(self, gain=0.1):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.modes = []
        self.batches = []

    def forward(self, images):
        self.modes.append(self.training)
        self.batches.append(len(images))
        return self.gain * (images[:, :1] - 127.5)


def native_mask(height, width, seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=np.uint8)
    centre = (int(width * rng.uniform(0.35, 0.65)), int(height * rng.uniform(0.35, 0.65)))
    cv2.ellipse(mask, centre, (width // 4, height // 3), rng.uniform(0, 90), 0, 360, 255, -1)
    return mask


def write_arrays(folder, masks, images=None):
    """An arrays folder whose images show the nearest-resized masks in red, unless given."""
    test = folder / "test"
    test.mkdir(parents=True)
    ids = [f"ISIC_{i:07d}" for i in range(len(masks))]
    if images is None:
        images = np.zeros((len(masks), SIZE, SIZE, 3), dtype=np.uint8)
        images[..., 0] = np.stack([resize_mask(mask, SIZE, "nearest") for mask in masks])
    np.save(test / "images.npy", images)
    np.save(test / "masks.npy", images[..., 0])
    (test / "ids.txt").write_text("".join(f"{name}\n" for name in ids))
    with zipfile.ZipFile(test / "native_masks.zip", "w") as archive:
        for name, mask in zip(ids, masks, strict=True):
            archive.writestr(f"{name}.png", cv2.imencode(".png", mask)[1].tobytes())
    manifest = {
        "dataset": "isic17", "view": "isic17-32", "size": SIZE, "protocol": "paper",
        "source": "phantom", "n_train": 2, "n_test": len(masks), "native_min": [20, 20],
        "native_max": [160, 90], "empty_masks": 0, "archives": [],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def masks():
    return [native_mask(h, w, seed) for seed, (h, w) in enumerate(NATIVE)]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory, masks):
    return write_arrays(tmp_path_factory.mktemp("arrays"), masks)


def test_predicts_every_image_in_batches_and_restores_the_mode(arrays):
    model = BrightIsLesion().train()
    images = load_test_images(arrays).images
    assert isinstance(images, np.memmap)
    probabilities = predict_probabilities(model, images, batch_size=2)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (5, SIZE, SIZE)
    assert model.batches == [2, 2, 1]
    assert not any(model.modes)
    assert model.training
    np.testing.assert_array_equal(probabilities, predict_probabilities(model, images, 32))
    np.testing.assert_array_equal(foreground(probabilities), images[..., 0] >= 128)
    expected = torch.sigmoid(0.1 * (torch.from_numpy(images[..., 0].astype(np.float32)) - 127.5))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6)


def test_a_model_that_is_right_at_the_training_size_scores_one_there(arrays):
    scored = score_run(BrightIsLesion(), arrays, batch_size=2, resamples=100)
    sound = scored.sound["training_size"]
    for name in ("miou", "dsc", "acc", "spe", "sen", "mean_dice", "mean_iou"):
        assert sound[name] == 1.0
    assert sound["thresholded_jaccard"] == 1.0
    assert sound["intervals"]["mean_dice"] == [1.0, 1.0]
    assert sound["images"] == 5
    assert sound["empty_truth"] == 0
    # Bilinear masks and other sizes differ at the border, and only there.
    assert 0.8 < scored.paper["miou"] < 1.0
    assert 0.8 < scored.sound["native_size"]["mean_dice"] < 1.0


def test_every_comparison_is_the_one_described(tmp_path, masks):
    rng = np.random.default_rng(4)
    images = cv2.blur(rng.integers(0, 256, (SIZE, SIZE, 15), dtype=np.uint8), (5, 5))
    images = np.ascontiguousarray(images.reshape(SIZE, SIZE, 5, 3).transpose(2, 0, 1, 3))
    folder = write_arrays(tmp_path, masks, images)
    scored = score_run(BrightIsLesion(), folder, batch_size=3, resamples=100)
    for i, mask in enumerate(masks):
        probability = scored.probabilities[i]
        height, width = mask.shape
        grown = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
        pairs = {
            "paper": (probability, resize_mask(mask, SIZE, "bilinear") / 255),
            "training_size": (probability, resize_mask(mask, SIZE, "nearest") / 255),
            "native_size": (grown, mask / 255),
        }
        row = scored.per_image[i]
        assert (row["native_height"], row["native_width"]) == mask.shape
        for name in COMPARISONS:
            p, t = pairs[name]
            counts = [row[f"{name}_{count}"] for count in ("tp", "fp", "fn", "tn")]
            assert counts == confusion_counts(p[None], t[None])[0].tolist()
            if name != "paper":
                tp, fp, fn, _ = counts
                assert row[f"{name}_dice"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    for count in ("tp", "fp", "fn", "tn"):
        assert scored.paper[count] == sum(row[f"paper_{count}"] for row in scored.per_image)
    mean = np.mean([row["native_size_iou"] for row in scored.per_image])
    assert scored.sound["native_size"]["mean_iou"] == pytest.approx(mean)
    low, high = scored.sound["native_size"]["intervals"]["mean_iou"]
    assert low < mean < high
    boundary = scored.sound["native_size"]["boundary"]
    nsd = np.mean([row["native_size_nsd"] for row in scored.per_image])
    assert boundary["nsd"] == pytest.approx(nsd)
    low, high = boundary["intervals"]["nsd"]
    assert 0 <= low < nsd < high <= 1
    again = score_run(BrightIsLesion(), folder, batch_size=1, resamples=100)
    assert again.per_image == scored.per_image
    assert again.sound == scored.sound


def test_a_patients_images_are_one_unit_of_the_intervals(tmp_path, masks):
    folder = write_arrays(tmp_path, masks)
    alone = score_run(BrightIsLesion(), folder, batch_size=3, resamples=200)
    (folder / "test/groups.txt").write_text("p1\np1\np1\np2\np2\n")
    grouped = score_run(BrightIsLesion(), folder, batch_size=3, resamples=200)
    assert [row["patient"] for row in grouped.per_image] == ["p1"] * 3 + ["p2"] * 2
    assert "patient" not in alone.per_image[0]
    one, other = (of.sound["native_size"] for of in (alone, grouped))
    assert one["mean_dice"] == other["mean_dice"]
    assert one["intervals"]["mean_dice"] != other["intervals"]["mean_dice"]


def test_empty_masks_are_counted_and_undefined_is_null(tmp_path):
    folder = write_arrays(tmp_path, [np.zeros((40, 50), np.uint8), np.zeros((32, 32), np.uint8)])
    scored = score_run(BrightIsLesion(), folder, batch_size=2, resamples=100)
    sound = scored.sound["native_size"]
    assert sound["empty_truth"] == 2
    assert sound["mean_dice"] == 1.0
    assert sound["mean_sen"] is None
    assert sound["intervals"]["mean_sen"] == [None, None]
    assert scored.paper["miou"] == 0.0
    assert sound["boundary"]["hd95_px"] is None
    assert (sound["boundary"]["hd95_n"], sound["boundary"]["nsd"]) == (0, 1.0)
    json.dumps([scored.paper, scored.sound, scored.per_image], allow_nan=False)


def test_unusable_models_are_refused(arrays):
    images = load_test_images(arrays).images
    with pytest.raises(InputError, match="not finite"):
        predict_probabilities(BrightIsLesion(float("nan")), images, 2)

    class TwoClasses(BrightIsLesion):
        def forward(self, images):
            return super().forward(images).repeat(1, 2, 1, 1)

    with pytest.raises(InputError, match="one class"):
        predict_probabilities(TwoClasses(), images, 2)
    with pytest.raises(InputError, match="batch_size"):
        predict_probabilities(BrightIsLesion(), images, 0)


def test_broken_arrays_are_named(tmp_path, masks):
    def score(folder):
        return score_run(BrightIsLesion(), folder, batch_size=2, resamples=100)

    with pytest.raises(InputError, match=r"images\.npy"):
        score(tmp_path / "nowhere")
    folder = write_arrays(tmp_path / "a", masks)
    archive = folder / "test" / "native_masks.zip"
    whole = archive.read_bytes()
    archive.write_bytes(b"no zip")
    with pytest.raises(InputError, match="not a zip"):
        score(folder)
    archive.unlink()
    with pytest.raises(InputError, match=r"native_masks\.zip"):
        score(folder)
    with zipfile.ZipFile(archive, "w") as empty:
        empty.writestr("ISIC_0000000.png", b"no image")
    with pytest.raises(InputError, match=r"ISIC_0000000\.png is not a readable PNG"):
        score(folder)
    archive.write_bytes(whole)
    ids = folder / "test" / "ids.txt"
    names = ids.read_text()
    ids.write_text(names + "ISIC_0000099\n")
    with pytest.raises(InputError, match="6 ids for 5 images"):
        score(folder)
    ids.write_text(names.replace("ISIC_0000002", "ISIC_0000099"))
    with pytest.raises(InputError, match=r"ISIC_0000099\.png"):
        score(folder)


def test_contact_sheet_rows_are_chosen_by_rule():
    dice = np.random.default_rng(0).permutation(100) / 100
    groups = contact_sheet.choose(dice)
    percents = [[round(100 * dice[i]) for i in members] for _, members in groups]
    assert percents == [list(range(8)), list(range(46, 54)), list(range(92, 100))]
    few = contact_sheet.choose(np.array([0.5, 0.1, 0.9, 0.1]))
    assert few == [("all 4 images, worst to best", [1, 3, 0, 2])]
    just_more = contact_sheet.choose(np.linspace(0, 1, 25))
    shown = [i for _, members in just_more for i in members]
    assert len(set(shown)) == 24


def test_contact_sheet_draws_both_outlines(tmp_path):
    images = np.full((10, 40, 40, 3), 200, dtype=np.uint8)
    truth = np.zeros((10, 40, 40), dtype=bool)
    prediction = np.zeros_like(truth)
    truth[:, 5:15, 5:15] = True
    prediction[:5, 25:35, 25:35] = True  # the other five predictions are empty
    dice = np.where(np.arange(10) < 5, 0.25, 0.0)
    ids = [f"ISIC_{i}" for i in range(10)]
    sheet = contact_sheet.draw(images, truth, prediction, ids, dice, "run of something")
    tile = contact_sheet.TILE
    assert tile >= 160
    top = contact_sheet.HEADER + contact_sheet.LABEL
    tiles = []
    for row, columns in ((0, 8), (1, 2)):  # ten images, eight to a row
        y = top + row * (tile + contact_sheet.CAPTION + contact_sheet.GAP)
        for column in range(columns):
            x = contact_sheet.GAP + column * (tile + contact_sheet.GAP)
            tiles.append(sheet[y : y + tile, x : x + tile])
    has = {
        colour: [bool((t == colour).all(-1).any()) for t in tiles]
        for colour in (contact_sheet.TRUTH, contact_sheet.PREDICTION)
    }
    assert has[contact_sheet.TRUTH] == [True] * 10
    assert has[contact_sheet.PREDICTION] == [False] * 5 + [True] * 5  # worst to best
    contact_sheet.write(tmp_path / "sheet.png", sheet)
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "sheet.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(read, sheet)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


@pytest.fixture
def project(tmp_path, masks, monkeypatch):
    """A repository root with one trained run; gives the inputs and the log of stages.evaluate."""
    monkeypatch.chdir(tmp_path)
    arrays = write_arrays(tmp_path / "data" / "arrays" / "isic17-32" / "paper", masks)
    rng = np.random.default_rng(5)
    test = cv2.blur(rng.integers(0, 256, (SIZE, SIZE, 15), dtype=np.uint8), (3, 3))
    test = np.ascontiguousarray(test.reshape(SIZE, SIZE, 5, 3).transpose(2, 0, 1, 3))
    np.save(arrays / "test/images.npy", test)
    (arrays / "train").mkdir()
    np.save(arrays / "train/images.npy", test[3:4, :, ::-1])  # a mirrored test image
    np.save(arrays / "train/masks.npy", np.zeros((1, SIZE, SIZE), np.uint8))
    (arrays / "train/ids.txt").write_text("ISIC_0000100\n")
    run = Run("isic17-32", "base", "paper", 42)
    run.folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = VMUNet(dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), depths_decoder=(1, 1, 1, 1))
    save_checkpoint(run.folder / "weights.safetensors", model, {"size": SIZE})
    provenance = {"epoch": 3, "mlflow_run_id": "abc", "data_hash": "d", "code_hash": "c"}
    (run.folder / "run.json").write_text(json.dumps(provenance))
    (run.folder / "history.csv").write_text("epoch,train_loss\n1,0.5\n2,0.25\n")
    view = SimpleNamespace(dataset="isic17", size=SIZE)
    params = SimpleNamespace(
        profile_name="demo",
        profile=SimpleNamespace(
            threads=0,
            weights=SimpleNamespace(source="none"),
            evaluate=SimpleNamespace(batch_size=4, bootstrap=100),
        ),
        view=lambda name: view,
    )
    logged = []
    monkeypatch.setattr(stage, "load_params", lambda: params)
    monkeypatch.setattr(stage, "log_scores", lambda *args: logged.append(args))
    monkeypatch.setattr(stage, "tables_of", lambda *args: "")
    return SimpleNamespace(root=tmp_path, run=run, logged=logged)


ARGUMENTS = ["isic17-32", "base", "paper", "42"]


def test_stage_writes_metrics_table_and_sheet(project):
    stage.main(ARGUMENTS)
    folder = project.run.metrics_folder("demo")
    assert {path.name for path in folder.iterdir()} == {
        "metrics.json",
        "per_image.csv",
        "contact_sheet.png",
        "predictions.npz",
    }
    stored = read_masks(folder / "predictions.npz")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["run"] == {
        "profile": "demo", "view": "isic17-32", "dataset": "isic17", "size": SIZE, "cell": "base",
        "protocol": "paper", "seed": 42,
    }  # fmt: skip
    assert metrics["data"]["n_test"] == len(NATIVE)
    assert metrics["checkpoint"]["epoch"] == 3
    assert len(metrics["checkpoint"]["sha256"]) == 64
    assert metrics["history"] == {"epoch": [1, 2], "train_loss": [0.5, 0.25]}
    pixels = sum(metrics["paper"][name] for name in ("tp", "fp", "fn", "tn"))
    assert pixels == len(NATIVE) * SIZE * SIZE
    rows = list(csv.DictReader((folder / "per_image.csv").open()))
    assert [row["id"] for row in rows] == [f"ISIC_{i:07d}" for i in range(len(NATIVE))]
    assert stored.ids == [row["id"] for row in rows]
    for place, row in enumerate(rows):  # the masks kept are the masks scored
        both = np.count_nonzero(stored.masks[place] & stored.truth[place])
        assert both == int(row["training_size_tp"])
        assert np.count_nonzero(stored.masks[place]) - both == int(row["training_size_fp"])
    assert sum(metrics["sound"]["calibration"]["pixels"]) == pixels
    assert [row["in_training"] for row in rows] == ["0", "0", "0", "1", "0"]
    for place, row in enumerate(rows):
        assert float(row["lesion_share"]) == pytest.approx(stored.truth[place].mean())
    dice = np.mean([float(row["native_size_dice"]) for row in rows])
    assert metrics["sound"]["native_size"]["mean_dice"] == pytest.approx(dice)
    tracked, provenance, _, logged, files, source = project.logged[0]
    assert source == "none"
    assert tracked == project.run.folder
    assert provenance["mlflow_run_id"] == "abc"
    assert logged == metrics
    assert all(path.is_file() for path in files)
    before = (folder / "metrics.json").read_bytes()
    stage.main(ARGUMENTS)  # the same run again, over the old files
    assert (folder / "metrics.json").read_bytes() == before


def test_stage_names_missing_files_and_leaves_nothing(project):
    with pytest.raises(InputError, match=r"runs/isic17-32/base/paper/7: no trained run"):
        stage.main([*ARGUMENTS[:3], "7"])
    model = VMUNet(dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), depths_decoder=(1, 1, 1, 1))
    save_checkpoint(project.run.folder / "weights.safetensors", model, {"size": 64})
    with pytest.raises(InputError, match="64 px"):
        stage.main(ARGUMENTS)
    assert not (project.root / "metrics").exists()


def test_stage_failing_midway_leaves_the_old_metrics(project, monkeypatch):
    stage.main(ARGUMENTS)
    folder = project.run.metrics_folder("demo")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(path, sheet):
        raise OSError("no space left")

    monkeypatch.setattr("stages.common.scoring.write_sheet", full_disk)
    with pytest.raises(OSError, match="no space"):
        stage.main(ARGUMENTS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["42"]
