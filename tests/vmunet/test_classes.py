"""Images of several classes: arrays, training, scores, pictures and predictions."""

import csv
import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader

import pipeline.tracking.live
import pipeline.tracking.table_names
import stages.common.training
import stages.evaluate
from pipeline import cli
from pipeline.config.params import Cell
from pipeline.config.runs import Run
from stages.train import image_task
from tests.helpers.classes import NAMES, scene, write_class_arrays, write_native
from vmunet import VMUNet
from vmunet.classes import channels_of, classes_of, likeliest, resized_planes
from vmunet.data.arrays import ArrayDataset
from vmunet.data.augment import Augment
from vmunet.data.resize import resize_mask
from vmunet.drawing.sheets import classes as class_sheet
from vmunet.drawing.sheets.images import CAPTION, GAP, HEADER, LABEL, TILE
from vmunet.drawing.sheets.labels import PALETTE, legend, overlay, paint
from vmunet.errors import InputError
from vmunet.evaluation.classes import SIZES, score_class_run
from vmunet.evaluation.metrics import mean_scores, per_image_scores, pooled_scores
from vmunet.evaluation.samples import MEAN, CaseSample, ClassSample, ImageSample
from vmunet.evaluation.statistics import intervals
from vmunet.inference.classes import segment_classes
from vmunet.inference.ensemble import Member, load_members
from vmunet.inference.images import segment_folder
from vmunet.protocols import PAPER, PROTOCOLS, SOUND
from vmunet.settings import TrainSettings
from vmunet.training.loop import train
from vmunet.training.losses import training_loss
from vmunet.weights.checkpoints import load_checkpoint, save_checkpoint

SIZE = 32
SETTINGS = TrainSettings(epochs=2, t_max=2, batch_size=2, dims=(16, 32, 64, 128))
SHALLOW = {"depths": (1, 1, 1, 1), "depths_decoder": (1, 1, 1, 1)}
METADATA = {"normalisation": "minmax", "size": 64, "protocol": "sound", "classes": list(NAMES)}


def tiny(seed: int, num_classes: int = 4) -> VMUNet:
    """A small VM-UNet whose logits vary over the image."""
    torch.manual_seed(seed)
    model = VMUNet(num_classes=num_classes, dims=(8, 16, 32, 64), **SHALLOW).eval()
    with torch.no_grad():
        model.final_conv.weight *= 5
    return model


class Colourful(nn.Module):
    """Label 1, 2 or 3 if red, green or blue is the largest channel and above mid-grey."""

    def __init__(self, channels: int = 4, left: bool = False) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.05))
        self.channels, self.left, self.batches = channels, left, []

    def forward(self, images):
        self.batches.append((len(images), self.training))
        logits = torch.cat([torch.zeros_like(images[:, :1]), images - 127.5], 1) * self.gain
        if self.left:  # a model that is not symmetric: blind on the right
            logits[:, 1:, :, images.shape[-1] // 2 :] = -5.0
        return logits.repeat(1, 2, 1, 1)[:, : self.channels]


@pytest.fixture(scope="module")
def scenes():
    return [scene(i, 40 + 9 * i, 90 - 7 * i) for i in range(6)]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory, scenes):
    return write_class_arrays(tmp_path_factory.mktemp("arrays"), SIZE, scenes[:4], scenes)


# --- names


def test_classes_are_those_named_or_a_lesion():
    assert classes_of({}, "m") == ("lesion",)
    assert classes_of({"classes": ["Köpfchen", "b 2.x"]}, "m") == ("Köpfchen", "b 2.x")
    assert [channels_of(names) for names in (("a",), ("a", "b"), NAMES)] == [1, 3, 4]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("wing", "expected 1 to 255 names"),
        ([], "expected 1 to 255 names"),
        ([1, 2], "expected 1 to 255 names"),
        ([f"c{i}" for i in range(256)], "expected 1 to 255 names"),
        (["a", "../b"], r"'\.\./b' cannot be part"),
        (["a", "b/c"], "'b/c' cannot be part"),
        (["a", ""], "'' cannot be part"),
        (["a", "b "], "'b ' cannot be part"),
        (["Dsc", "b"], "cannot be called 'Dsc'; .* choose another"),
        (["background", "b"], "cannot be called 'background'; label 0 is it already"),
        (["wing", "Wing"], "the same name, in wing, Wing"),
    ],
)
def test_names_that_cannot_be_used_are_refused(classes, message):
    with pytest.raises(InputError, match=rf"^some/file: .*{message}"):
        classes_of({"classes": classes}, "some/file")


# --- labels from probabilities


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_the_likeliest_label_is_numpy_s_argmax(seed, count):
    planes = np.random.default_rng(seed).integers(0, 3, (count, 4, 5)).astype(np.float32)
    kept = planes.copy()
    labels, best = likeliest(iter(planes))
    np.testing.assert_array_equal(labels, planes.argmax(0))  # the lowest of equal labels
    np.testing.assert_array_equal(best, planes.max(0))
    np.testing.assert_array_equal(planes, kept)


def test_planes_of_models_of_different_sizes_are_averaged_at_the_image_s():
    small, large = (np.random.default_rng(s).random((3, s, s), np.float32) for s in (8, 12))
    planes = list(resized_planes([small, large], 10, 21))
    assert len(planes) == 3
    for k, plane in enumerate(planes):
        each = [cv2.resize(s[k], (21, 10), interpolation=cv2.INTER_LINEAR) for s in (small, large)]
        np.testing.assert_allclose(plane, (each[0] + each[1]) / 2, atol=1e-6)


# --- arrays


def test_samples_are_labels(arrays):
    data = ArrayDataset(arrays, "train", classes=3)
    image, labels = data[1]
    assert (image.shape, image.dtype) == ((3, SIZE, SIZE), torch.float32)
    assert (labels.shape, labels.dtype) == ((SIZE, SIZE), torch.int64)
    np.testing.assert_array_equal(labels, np.load(arrays / "train" / "masks.npy")[1])
    assert set(labels.unique().tolist()) == {0, 1, 2, 3}
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[1][1], labels)
    loader = DataLoader(data, 4, num_workers=2)
    assert torch.equal(next(iter(loader))[1], torch.stack([data[i][1] for i in range(4)]))


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_augmentation_turns_labels_without_mixing_them(tmp_path, name):
    labels = scene(4, 48, 48)[1]
    folder = write_class_arrays(tmp_path, 48, [(np.stack([80 * labels] * 3, -1), labels)] * 2, [])
    data = ArrayDataset(folder, "train", Augment(PROTOCOLS[name], 3), 3, classes=3)
    seen = set()
    for epoch in range(12):
        data.set_epoch(epoch)
        image, turned = data[0]
        assert torch.equal(pickle.loads(pickle.dumps(data))[0][1], turned)
        assert set(turned.unique().tolist()) <= {0, 1, 2, 3}
        seen.add(turned.numpy().tobytes())
        as_image = image[0].numpy() / 85  # labels 0..3 were stretched to 0..255
        if name == "paper":  # both by nearest pixel
            np.testing.assert_array_equal(as_image, turned)
        else:
            assert (np.abs(as_image - turned.numpy()) > 0.51).mean() < 0.03
    assert len(seen) > 3


def test_a_label_of_no_class_is_refused(arrays):
    with pytest.raises(InputError, match=r"mask of train1 has label 3 and there are 2 classes"):
        ArrayDataset(arrays, "train", classes=2)[1]


# --- training


def test_two_epochs_improve(tmp_path):
    pairs = [scene(i, 48, 48) for i in range(24)]
    folder = write_class_arrays(tmp_path, SIZE, pairs[:16], pairs[16:])
    torch.manual_seed(0)
    model = VMUNet(num_classes=4, dims=SETTINGS.dims, **SHALLOW)
    loss, held_out = training_loss(4, "logits"), ArrayDataset(folder, "test", classes=3)
    augmented = ArrayDataset(folder, "train", Augment(SOUND, 1), 1, classes=3)
    with torch.no_grad():
        images, labels = next(iter(DataLoader(held_out, 8)))
        before = loss(model.eval()(images), labels).item()
    progress = train(model, augmented, held_out, loss, SETTINGS, PAPER, 1, torch.device("cpu"))
    first, second = (row["selection_loss"] for row in progress.history)
    assert second < first < before
    assert second < 0.85 * before


def task_of(tmp_path, monkeypatch, **facts):
    monkeypatch.chdir(tmp_path)
    folder = Path("data/arrays/v/sound")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(facts))
    params = SimpleNamespace(
        profile=SimpleNamespace(train=SETTINGS),
        view=lambda name: SimpleNamespace(size=SIZE),
        cell=lambda name: SimpleNamespace(model="vmunet"),
    )
    return image_task(Run("v", "base", "sound", 1), params)


@pytest.mark.parametrize(
    ("facts", "channels", "metadata"),
    [
        ({}, 1, {"normalisation": "minmax"}),
        ({"classes": ["mole"]}, 1, {"normalisation": "minmax", "classes": ["mole"]}),
        ({"classes": ["a", "b"]}, 3, {"normalisation": "minmax", "classes": ["a", "b"]}),
    ],
)
def test_the_task_follows_the_manifest(tmp_path, monkeypatch, facts, channels, metadata):
    task = task_of(tmp_path, monkeypatch, **facts)
    assert (task.classes, task.metadata) == (channels, metadata)


def test_a_manifest_of_impossible_classes_trains_nothing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"data/arrays/v/sound/manifest\.json: .*'a/b'"):
        task_of(tmp_path, monkeypatch, classes=["a/b", "c"])


# --- scores


def naive_scores(predictions, truths, label):
    """Pooled Dice and IoU, and per-image Dice if truth or prediction has the label."""
    pooled, dice = np.zeros(3), []
    for prediction, truth in zip(predictions, truths, strict=True):
        p, t = prediction == label, truth == label
        both, either, total = (p & t).sum(), (p | t).sum(), p.sum() + t.sum()
        pooled += both, either, total
        dice.append(2 * both / total if total else np.nan)
    both, either, total = pooled
    return 2 * both / total, both / either, np.array(dice)


def test_scores_are_the_naive_ones(tmp_path, scenes):
    rng = np.random.default_rng(5)
    blurred = [cv2.blur(rng.integers(0, 256, (90, 90, 3), np.uint8), (9, 9)) for _ in scenes]
    mixed = [
        (cv2.addWeighted(image, 0.7, cv2.resize(noise, image.shape[1::-1]), 0.3, 0), labels)
        for (image, labels), noise in zip(scenes, blurred, strict=True)
    ]
    mixed[0] = scenes[0]  # has no bar, and is so clear that the model predicts none
    folder = write_class_arrays(tmp_path, SIZE, mixed[:1], mixed)
    model = Colourful().train()
    scored = score_class_run(model, folder, NAMES, batch_size=4, resamples=300)
    assert model.batches == [(4, False), (2, False)]
    assert model.training

    images = torch.from_numpy(np.load(folder / "test" / "images.npy")).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        squares = model.eval()(images).softmax(1).numpy()
    truths = {"native_size": [labels for _, labels in scenes]}
    predictions = {"native_size": [], "training_size": [square.argmax(0) for square in squares]}
    truths["training_size"] = [resize_mask(labels, SIZE, "nearest") for _, labels in scenes]
    for square, (_, labels) in zip(squares, scenes, strict=True):
        native = [cv2.resize(p, labels.shape[::-1]) for p in square]  # bilinear
        predictions["native_size"].append(np.argmax(native, axis=0))
    np.testing.assert_array_equal(scored.prediction, predictions["training_size"])
    np.testing.assert_array_equal(scored.truth, truths["training_size"])

    for size in SIZES:
        block = scored.sound[size]
        naive = [naive_scores(predictions[size], truths[size], label) for label in (1, 2, 3)]
        table = np.array([dice for *_, dice in naive])
        expected = intervals(CaseSample(table.T[None], NAMES), 300)
        for name, (dsc, iou, dice) in zip(NAMES, naive, strict=True):
            of_class = block["classes"][name]
            assert of_class["dsc"] == pytest.approx(dsc)
            assert of_class["iou"] == pytest.approx(iou)
            assert of_class["mean_dice"] == pytest.approx(np.nanmean(dice))
            assert of_class["scored"] == np.sum(~np.isnan(dice))
            label = NAMES.index(name) + 1
            assert of_class["images"] == sum((t == label).any() for t in truths[size])
            rows = [row for row in scored.per_image if row["class"] == name]
            row_dice = np.array([row[f"{size}_dice"] for row in rows], dtype=float)
            np.testing.assert_allclose(row_dice, dice)
            ends = np.array(of_class["intervals"]["mean_dice"], dtype=float)
            np.testing.assert_allclose(ends, expected[name])
        assert block["dsc"] == pytest.approx(np.mean([dsc for dsc, _, _ in naive]))
        assert block["miou"] == pytest.approx(np.mean([iou for _, iou, _ in naive]))
        assert block["mean_dice"] == pytest.approx(np.mean([np.nanmean(d) for *_, d in naive]))
        ends = np.array(block["intervals"]["mean_dice"], dtype=float)
        np.testing.assert_allclose(ends, expected[MEAN])
        assert not np.isnan(ends).any()
        assert 0.05 < block["mean_dice"] < 0.95
        assert block["classes"]["bar"]["scored"] == 5
        assert block["images"] == 6
        if size == "training_size":
            assert scored.paper["dsc"] == pytest.approx(block["dsc"])
            assert scored.paper["miou"] == pytest.approx(block["miou"])
            for name, (dsc, iou, _) in zip(NAMES, naive, strict=True):
                assert scored.paper[name] == pytest.approx(dsc)
                assert scored.paper["iou"][name] == pytest.approx(iou)
            np.testing.assert_allclose(scored.dice, np.nanmean(table, axis=0))
    again = score_class_run(Colourful(), folder, NAMES, batch_size=1, resamples=300)
    assert (again.sound, again.per_image) == (scored.sound, scored.per_image)


def class_counts_of(images, seed=0):
    """(images, 3, 4): three classes, each in about half of the images."""
    tp, fp, fn = np.random.default_rng(seed).integers(0, 90, (3, images, 3))
    here = np.random.default_rng(seed + 1).random((images, 3)) < 0.5
    tp, fp, fn = tp * here, fp * here, fn * here
    return np.stack([tp, fp, fn, 1000 - tp - fp - fn], axis=-1)


def test_intervals_over_classes_draw_the_same_images_for_each():
    counts = class_counts_of(40)
    sample = ClassSample([ImageSample(counts[None, :, k], (), np.nan) for k in range(3)])
    draws = np.random.default_rng(0).integers(40, size=(300, 40))
    pooled = [[pooled_scores(counts[draw, k])["dsc"] for k in range(3)] for draw in draws]
    np.testing.assert_allclose(sample.resampled(300)["dsc"], np.mean(pooled, axis=1))
    low, high = intervals(sample, 300)["dsc"]
    assert [low, high] == pytest.approx(np.quantile(np.mean(pooled, axis=1), [0.025, 0.975]))
    of_sums = sample.of_sums(sample.parts().sum(0)[None])
    assert {name: of[0] for name, of in of_sums.items()} == pytest.approx(sample.scores())


def test_a_patient_s_images_are_one_unit_in_several_classes(tmp_path, scenes):
    folder = write_class_arrays(tmp_path, SIZE, scenes[:1], [*scenes, *scenes])
    alone = score_class_run(Colourful(), folder, NAMES, batch_size=4, resamples=300)
    patients = [f"p{i % len(scenes)}" for i in range(2 * len(scenes))]
    (folder / "test" / "groups.txt").write_text("\n".join(patients) + "\n")
    grouped = score_class_run(Colourful(), folder, NAMES, batch_size=4, resamples=300)
    once = write_class_arrays(tmp_path / "once", SIZE, scenes[:1], scenes)
    single = score_class_run(Colourful(), once, NAMES, batch_size=4, resamples=300)
    for size in SIZES:
        blocks = [of.sound[size]["intervals"]["dsc"] for of in (alone, grouped, single)]
        assert blocks[1] == pytest.approx(blocks[2])  # copies tell nothing new
        assert blocks[0] != pytest.approx(blocks[2])


def test_a_class_in_no_image_is_undefined_and_left_out(tmp_path):
    blank = [(np.full((30, 30, 3), 90, np.uint8), np.zeros((30, 30), np.uint8))] * 2
    blank[0][0][:15, :, 0] = 200
    blank[0][1][:15] = 1
    folder = write_class_arrays(tmp_path / "red", SIZE, blank, blank)
    scored = score_class_run(Colourful(), folder, NAMES, batch_size=2, resamples=50)
    sound = scored.sound["training_size"]
    assert sound["classes"]["box"]["mean_dice"] is sound["classes"]["box"]["dsc"] is None
    assert sound["dsc"] == sound["classes"]["disc"]["dsc"] == 1.0
    assert [row["native_size_dice"] for row in scored.per_image][1::3] == [None, None]
    assert sound["classes"]["box"]["intervals"]["dsc"] == [None, None]
    assert sound["mean_dice"] == sound["classes"]["disc"]["mean_dice"] == 1.0
    assert scored.paper["box"] == 0.0
    assert scored.paper["dsc"] == pytest.approx(1 / 3)
    empty = [(np.full((30, 30, 3), 90, np.uint8), np.zeros((30, 30), np.uint8))] * 2
    folder = write_class_arrays(tmp_path / "empty", SIZE, empty, empty)
    scored = score_class_run(Colourful(), folder, NAMES, batch_size=2, resamples=50)
    assert scored.sound["native_size"]["mean_dice"] is None
    assert scored.dice.tolist() == [1.0, 1.0]
    json.dumps([scored.paper, scored.sound, scored.per_image], allow_nan=False)


def test_the_score_of_an_absent_class_can_be_chosen():
    counts = np.array([[0, 0, 0, 9], [2, 1, 1, 5]])
    assert per_image_scores(counts)["dice"].tolist() == [1.0, pytest.approx(2 / 3)]
    assert mean_scores(counts, np.nan)["mean_dice"] == pytest.approx(2 / 3)
    assert mean_scores(counts)["thresholded_jaccard"] == pytest.approx(0.5)
    assert np.isnan(mean_scores(counts[:1], np.nan)["thresholded_jaccard"])
    assert pooled_scores(counts[:1])["dsc"] == 0.0
    assert np.isnan(pooled_scores(counts[:1], np.nan)["dsc"])
    drawn = ImageSample(counts[None], absent=np.nan).resampled(40)
    assert set(np.round(drawn["mean_dice"][~np.isnan(drawn["mean_dice"])], 6)) == {0.666667}
    assert 0 < np.isnan(drawn["mean_dice"]).sum() < 40


def test_unusable_files_are_named_in_scoring(tmp_path, scenes):
    folder = write_class_arrays(tmp_path, SIZE, scenes[:1], scenes)

    def refused(message, model=None, classes=NAMES, batch_size=2):
        model = model or Colourful()
        with pytest.raises(InputError, match=message):
            score_class_run(model, folder, classes, batch_size=batch_size, resamples=10)
        assert model.training

    refused("expected at least 1", batch_size=0)
    refused(r"expected \(2, 4, 32, 32\), the background and 3 classes", Colourful(channels=3))
    broken = Colourful()
    nn.init.constant_(broken.gain, float("nan"))
    refused("not finite", broken)
    labels = [labels for _, labels in scenes]
    write_native(folder, [np.where(labels[0] == 3, 7, labels[0] + 0), *labels[1:]])
    refused(r"test1\.png has label 3 and there are 2 classes", Colourful(3), ("a", "b"))
    write_native(folder, [np.dstack([labels[0]] * 3), *labels[1:]])
    refused(r"native_masks\.zip: test0\.png is not a readable PNG of one 8-bit channel")
    write_native(folder, [labels[0].astype(np.uint16), *labels[1:]])
    refused(r"test0\.png is not a readable PNG of one 8-bit channel")
    write_native(folder, labels[:-1])
    refused(r"cannot read test5\.png")


# --- pictures


def test_outlines_lie_inside_their_own_regions():
    image, labels = np.full((40, 60, 3), 128, np.uint8), np.zeros((40, 60), np.uint8)
    np.testing.assert_array_equal(paint(image, labels, 2), image)
    labels[10:30, 10:30], labels[10:30, 30:50], labels[5, 5] = 1, 9, 2
    drawn = paint(image, labels, 2)
    outline = (drawn == PALETTE[0]).all(-1)  # the ninth class has the first one's colour
    inner = np.zeros_like(outline)
    inner[12:28, 12:28] = inner[12:28, 32:48] = True
    np.testing.assert_array_equal(outline, np.isin(labels, (1, 9)) & ~inner)
    assert tuple(drawn[5, 5]) == PALETTE[1]
    assert (drawn[9, 10:50] == 0).all()  # the rim
    assert (drawn[35:, :] == 128).all()
    assert (drawn[20, 20] != 128).any()  # the fill
    assert len(set(PALETTE)) == 8


@pytest.mark.parametrize("width", [20, 300, 1700])
def test_an_overlay_keeps_the_image_s_pixels_and_adds_a_legend(width):
    image, labels = np.full((200, width, 3), 90, np.uint8), np.zeros((200, width), np.uint8)
    drawn = overlay(image, labels, NAMES)
    np.testing.assert_array_equal(drawn[:200, :width], image)
    below = drawn[200:]
    for label in (1, 2, 3):
        assert (below == PALETTE[label - 1]).all(-1).sum() > 80
    assert not (below == PALETTE[3]).all(-1).any()
    assert drawn.shape[1] >= width


def test_a_legend_wraps_and_never_cuts_a_name():
    wide, narrow = legend(NAMES, 500), legend(NAMES, 100)
    assert wide.shape[:2] == (18, 500)
    assert narrow.shape[:2] == (3 * 18, 100)
    long = legend(["a name that is longer than that"], 100)
    assert long.shape[0] == 18
    assert long.shape[1] > 200


def test_a_sheet_shows_the_truth_on_the_left_from_worst_to_best():
    images = np.full((6, 40, 40, 3), 90, np.uint8)
    truth, prediction = np.zeros((2, 6, 40, 40), np.uint8)
    truth[:, 10:20, 10:20], prediction[:3, 5:35, 25:35] = 1, 2
    dice = np.array([0.3, 0.2, 0.1, 0.0, 0.0, 0.0])
    sheet = class_sheet.draw(images, truth, prediction, NAMES, [*"abcdef"], dice, "some run")
    top, step = HEADER + 18 + GAP + LABEL, TILE + GAP
    visible = []
    for i in range(6):  # four to a row
        y, x = top + i // 4 * (TILE + CAPTION + GAP), GAP + i % 4 * 2 * step
        pair = [sheet[y : y + TILE, x + s : x + s + TILE] for s in (0, step)]
        visible.append([[bool((p == PALETTE[k]).all(-1).any()) for k in (0, 1)] for p in pair])
    assert visible == 3 * [[[True, False], [False, False]]] + 3 * [[[True, False], [False, True]]]


# --- the stages, from arrays to predictions


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with arrays of an own dataset, and the parameters that its run needs."""
    monkeypatch.chdir(tmp_path)
    pairs = [scene(i, 40 + 5 * i, 60) for i in range(9)]
    write_class_arrays(tmp_path / "data/arrays/shapes-32/sound", SIZE, pairs[:6], pairs[6:])
    shallow = {name: list(depths) for name, depths in SHALLOW.items()}
    cell = Cell(init="none", drop_path_rate=0.0, **shallow)
    params = SimpleNamespace(
        profile_name="own",
        profile=SimpleNamespace(
            threads=0,
            weights=SimpleNamespace(source="none"),
            train=SETTINGS,
            evaluate=SimpleNamespace(batch_size=2, bootstrap=50),
        ),
        view=lambda name: SimpleNamespace(dataset="shapes", size=SIZE),
        cell=lambda name: cell,
    )
    quiet = SimpleNamespace(opened=lambda *a: "", log_epoch=print, finish=lambda *a: None)
    monkeypatch.setattr(pipeline.tracking.live, "RunTracker", lambda *a: quiet)
    monkeypatch.setattr(stages.evaluate, "log_scores", lambda *a: None)
    monkeypatch.setattr(stages.evaluate, "tables_of", lambda *a: "")
    monkeypatch.setattr(pipeline.tracking.table_names, "tables_of", lambda *a: "")
    monkeypatch.setattr(stages.common.training, "hash_inputs", lambda *a: {})
    run = Run("shapes-32", "base", "sound", 1)
    return SimpleNamespace(root=tmp_path, params=params, run=run)


def test_an_own_dataset_goes_from_arrays_to_predictions(project):
    run, params = project.run, project.params
    stages.common.training.train_run(run, params, image_task(run, params))
    model, metadata = load_checkpoint(run.folder / "weights.safetensors")
    assert model.config["num_classes"] == 4
    assert metadata["classes"] == list(NAMES)
    stages.evaluate.evaluate(run, params)
    folder = run.metrics_folder("own")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["data"]["classes"] == list(NAMES)
    assert set(metrics["paper"]) == {"dsc", "miou", *NAMES, "iou", "images"}
    with (folder / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = [(f"test{i}", name) for i in range(3) for name in NAMES]
    assert [(row["id"], row["class"]) for row in rows] == wanted
    sheet = cv2.imread(str(folder / "contact_sheet.png"))[..., ::-1]
    top, step = HEADER + 18 + GAP + LABEL, TILE + GAP
    tiles = [sheet[top : top + TILE, GAP + i * step : GAP + i * step + TILE] for i in range(6)]
    for truth in tiles[::2]:  # every image has a disc and a box
        assert all((truth == PALETTE[k]).all(-1).any() for k in (0, 1))
    cv2.imwrite("photo.png", scene(50, 70, 45)[0][..., ::-1])
    assert cli.main(["predict", str(run.folder), "photo.png", "--out", "masks"]) == 0
    mask = cv2.imread("masks/photo_mask.png", cv2.IMREAD_UNCHANGED)
    assert mask.shape == (70, 45)


def test_weights_of_other_classes_are_not_scored(project):
    run, params = project.run, project.params
    run.folder.mkdir(parents=True)
    (run.folder / "run.json").write_text("{}")
    swapped = METADATA | {"size": SIZE, "classes": ["box", "disc", "bar"]}
    save_checkpoint(run.folder / "weights.safetensors", tiny(0), swapped)
    with pytest.raises(InputError, match=r"box, disc, bar and .* holds disc, box, bar; train"):
        stages.evaluate.evaluate(run, params)
    assert not (project.root / "metrics").exists()


# --- predictions


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two seeds at 64 px and one at 96, trained by name only."""
    folder = tmp_path_factory.mktemp("weights")
    for name, size in (("1", 64), ("2", 64), ("3", 96)):
        save_checkpoint(folder / f"{name}.safetensors", tiny(int(name)), METADATA | {"size": size})
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, seed, size in (("a.png", 1, (61, 47)), ("b.png", 2, (40, 90))):
        cv2.imwrite(str(folder / name), scene(seed, *size)[0][..., ::-1])
    return folder


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_files_agree_with_each_other_and_with_the_array_api(weights, photos, tmp_path):
    out, files = tmp_path / "out", [weights / "1.safetensors", weights / "3.safetensors"]
    done = segment_folder(files, [photos], out, probabilities=True, overlay=True, tta=True)
    kinds = ["mask.png", "overlay.jpg", *(f"{name}_probability.png" for name in NAMES)]
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ["predictions.csv", *(f"{stem}_{kind}" for stem in "ab" for kind in kinds)]
    )
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["class"]) for row in rows] == [
        (f"{stem}.png", name) for stem in "ab" for name in NAMES
    ]
    members, seen = load_members(files), set()
    for stem, result in zip("ab", done.predictions, strict=True):
        image = read(photos / f"{stem}.png")[..., ::-1].copy()
        mask = read(out / f"{stem}_mask.png")
        labels, best = segment_classes(members, image, tta=True)
        np.testing.assert_array_equal(mask, labels)
        assert (mask.dtype, mask.shape) == (np.uint8, image.shape[:2])
        planes = np.stack([read(out / f"{stem}_{name}_probability.png") for name in NAMES]) / 65535
        everything = np.concatenate([1 - planes.sum(0, keepdims=True), planes])  # softmax
        np.testing.assert_allclose(everything.max(0), best, atol=1e-4)
        clear = np.diff(np.sort(everything, axis=0)[-2:], axis=0)[0] > 1e-4
        np.testing.assert_array_equal(everything.argmax(0)[clear], mask[clear])
        assert clear.mean() > 0.9
        seen |= set(np.unique(mask).tolist())
        for label, name in enumerate(NAMES, start=1):
            (row,) = [r for r in rows if r["image"] == f"{stem}.png" and r["class"] == name]
            inside = mask == label
            assert float(row["fraction"]) == pytest.approx(inside.mean(), abs=1e-6)
            assert result.fractions[label - 1] == pytest.approx(inside.mean())
            if inside.any():
                assert float(row["mean_probability"]) == pytest.approx(
                    best[inside].mean(), abs=1e-5
                )
            else:
                assert row["mean_probability"] == ""
        overlaid = cv2.imread(str(out / f"{stem}_overlay.jpg"))
        assert overlaid.shape[0] > image.shape[0]
    assert len(seen) > 1


def test_an_ensemble_with_mirrored_copies_is_the_mean_of_its_parts(weights):
    image = scene(7, 50, 66)[0]
    members = load_members([weights / "1.safetensors", weights / "3.safetensors"])
    sums = np.zeros((4, 50, 66))
    for member in members:
        for axes in ((), (0,), (1,), (0, 1)):
            turned = np.flip(image, axes).copy()
            one = Member(member.model, member.size, member.resize, NAMES)
            sums += np.flip(probabilities_of(one, turned), tuple(a + 1 for a in axes)) / 8
    labels, best = segment_classes(members, image, tta=True)
    np.testing.assert_allclose(best, sums.max(0), atol=1e-3)
    assert (labels == sums.argmax(0)).mean() > 0.99
    straight, _ = segment_classes(members, image)
    assert (straight != labels).any()


def probabilities_of(member, image):
    """(4, height, width): the model run by hand on the squashed image."""
    from vmunet.data.resize import min_max, resize_image

    square = np.rint(resize_image(min_max(image), member.size, member.resize))
    with torch.no_grad():
        batch = torch.from_numpy(square).permute(2, 0, 1)[None].float().contiguous()
        planes = member.model(batch).softmax(1)[0].numpy()
    return np.stack([cv2.resize(plane, image.shape[1::-1]) for plane in planes])


def test_every_class_is_predicted_in_its_place():
    image, labels = scene(4, 130, 170)
    predicted, probability = segment_classes([Member(Colourful(), 96, "area", NAMES)], image)
    assert (predicted == labels).mean() > 0.97
    for label in (1, 2, 3):
        assert ((predicted == label) & (labels == label)).sum() > 0.9 * (labels == label).sum()
    assert 0.25 <= probability.min() <= probability.max() <= 1


def test_wrong_members_are_refused():
    image = scene(1, 40, 40)[0]

    def refused(message, *members):
        with pytest.raises(InputError, match=message):
            segment_classes(members, image)

    good = Member(Colourful(), 32, "area", NAMES)
    refused("the same classes, of several")
    refused("the same classes, of several", good, good._replace(classes=("box", "disc", "bar")))
    refused("the same classes, of several", Member(Colourful(1), 32, "area"))
    refused("3 channels; expected 4", Member(Colourful(3), 32, "area", NAMES))
    broken = Colourful()
    nn.init.constant_(broken.gain, float("nan"))
    refused("NaN", Member(broken, 32, "area", NAMES))


def test_unusable_inputs_are_one_error_and_leave_nothing(weights, photos, tmp_path):
    out, model = tmp_path / "out", weights / "1.safetensors"

    def refused(message, files=(model,), images=(photos,), **arguments):
        with pytest.raises(InputError, match=message):
            segment_folder(files, images, out, **arguments)
        assert not out.exists()

    refused("threshold 0.5: does not apply to weights of several classes", threshold=0.5)
    other, lesion = tmp_path / "other.safetensors", tmp_path / "lesion.safetensors"
    save_checkpoint(other, tiny(4), METADATA | {"classes": ["box", "disc", "bar"]})
    save_checkpoint(lesion, tiny(4, 1), METADATA | {"classes": ["lesion"]})
    refused(r"other\.safetensors: its classes are box, disc, bar, and those .* disc, box, bar;",
            files=[model, other])  # fmt: skip
    refused(r"1\.safetensors: its classes are disc, box, bar, and those .* lesion;",
            files=[lesion, model])  # fmt: skip
    fewer = tmp_path / "fewer.safetensors"
    save_checkpoint(fewer, tiny(4, 3), METADATA)
    refused(r"another number of classes: its output has 3 channels, and 4 are expected for disc",
            files=[fewer])  # fmt: skip
    save_checkpoint(fewer, tiny(4), METADATA | {"classes": ["../a", "b", "c"]})
    refused(r"fewer\.safetensors: the class name '\.\./a'", files=[fewer])
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    refused(r"1 of 1 images could not be segmented: .*bad\.png", images=[bad])


def test_two_images_never_write_the_same_probability(weights, photos, tmp_path):
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, tiny(1, 3), METADATA | {"classes": ["x", "b_x"]})
    (photos / "a_b.png").write_bytes((photos / "a.png").read_bytes())
    with pytest.raises(InputError, match=r"would write a_b_x_probability\.png"):
        segment_folder([path], [photos], tmp_path / "out", probabilities=True)
    assert not (tmp_path / "out").exists()
    segment_folder(
        [path], [photos], tmp_path / "out"
    )  # without probabilities no two files have one name


def test_an_unreadable_image_is_named_and_the_rest_is_segmented(weights, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"1 of 3 images.*others are in .*broken\.jpg"):
        segment_folder([weights / "1.safetensors"], [photos], tmp_path / "out")
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["a_mask.png", "b_mask.png", "predictions.csv"]


def test_the_command_predicts_several_classes(weights, photos, tmp_path, capsys):
    out = tmp_path / "masks"
    arguments = ["predict", str(weights / "1.safetensors"), str(photos), "--out", str(out)]
    ensemble = ["--ensemble", str(weights / "2.safetensors"), "--overlay", "--tta"]
    assert cli.main([*arguments, *ensemble]) == 0
    assert capsys.readouterr().out == f"2 images segmented into {out}\n"
    assert len((out / "predictions.csv").read_text().splitlines()) == 7
    assert cli.main([*arguments, "--threshold", "0.4"]) == 2
    assert capsys.readouterr().err.startswith("error: threshold 0.4: does not apply")
