"""Made-up runs with all files that the figures are drawn from."""

import csv
import json
from pathlib import Path

import numpy as np

from tests.helpers.tables import (
    ORGANS,
    Run,
    made_up,
    made_up_organs,
    make_params,
    sound_scores,
    write,
)
from vmunet.evaluation.calibration import reliability
from vmunet.evaluation.metrics import confusion_counts, per_image_scores
from vmunet.evaluation.stored import write_labels, write_masks

EPOCHS = 6


class FigureRun(Run):
    @property
    def folder(self) -> Path:
        return Path("runs", self.view, self.cell, self.protocol, str(self.seed))


def make_grid(isic=("isic17-64",), volumes=(), seeds=(42,)):
    """Parameters whose grid has the views that the figures need."""
    params = make_params(volumes=volumes)
    params.grid.ablation_views = list(isic)
    params.grid.profiled = list(isic[:1])
    params.grid.seeds = list(seeds)
    return params


def declared(
    params, cells=("base",), protocols=("paper",), elsewhere=(), rivals=(), volume_rivals=()
):
    grid = params.grid
    views = [(view, cells) for view in grid.ablation_views] + [
        (view, ("base",)) for view in elsewhere
    ]
    runs = [
        FigureRun(view, cell, protocol, seed)
        for view, own in views
        for cell in own
        for protocol in protocols
        for seed in grid.seeds
    ]
    runs += [
        FigureRun(v, cell, "paper", s)
        for v in grid.ablation_views
        for cell in rivals
        for s in grid.seeds
    ]
    of_volumes = [
        ("base", "paper"),
        ("base", "sound"),
        *((cell, "paper") for cell in volume_rivals),
    ]
    return runs + [
        FigureRun(v, cell, protocol, s)
        for v in grid.volumes
        for cell, protocol in of_volumes
        for s in grid.seeds
    ]


def disc_images(count, size, seed=1):
    """Dark discs on light ground, uint8 (count, size, size, 3), and their masks."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    images = np.empty((count, size, size, 3), np.uint8)
    truth = np.empty((count, size, size), np.bool_)
    for i in range(count):
        radius = size * random.uniform(0.08, 0.35)
        cy, cx = size * random.uniform(0.35, 0.65, 2)
        truth[i] = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        ground = np.array([225, 190, 170]) + random.normal(0, 6, (size, size, 3))
        ground[truth[i]] -= random.uniform(15, 110)
        images[i] = np.clip(ground, 0, 255)
    return images, truth


def guesses(images, truth, seed):
    """Probabilities of foreground: the truth moved, its edge blurred."""
    random = np.random.default_rng(seed)
    probabilities = np.empty(truth.shape, np.float32)
    for i, mask in enumerate(truth):
        moved = np.roll(mask, random.integers(-6, 7, 2), axis=(0, 1))
        probabilities[i] = np.clip(0.1 + 0.75 * moved + random.normal(0, 0.08, mask.shape), 0, 1)
    return probabilities


def write_images(root, params, runs, images, truth, source="phantom", guess=guesses, ids=None):
    """Write the files of runs on images: metrics, tables, predictions, histories, arrays."""
    ids = ids or [f"ISIC_{i:07d}" for i in range(len(images))]
    for number, run in enumerate(runs):
        probabilities = guess(images, truth, number)
        paper = made_up(run)
        sound = sound_scores(paper) | {"calibration": reliability(probabilities, truth)}
        data = {"n_train": 56, "n_test": len(ids), "source": source}
        write(root, params, run, data, (80, 160), paper, sound)
        folder = root / run.metrics_folder(params.profile_name)
        write_masks(folder / "predictions.npz", ids, probabilities >= 0.5, truth)
        counts = confusion_counts(probabilities, truth)
        dice = per_image_scores(counts)["dice"]
        names = ("tp", "fp", "fn", "tn")
        rows = [
            {"id": key, "native_width": 40, "native_height": 30}
            | {f"{size}_size_dice": d for size in ("training", "native")}
            | {f"{size}_size_iou": d / (2 - d) for size in ("training", "native")}
            | {f"native_size_{n}": int(v) for n, v in zip(names, own, strict=True)}
            for key, d, own in zip(ids, dice, counts, strict=True)
        ]
        write_rows(folder / "per_image.csv", rows)
        write_history(folder / "metrics.json", number)
        test = root / "data/arrays" / run.view / run.protocol / "test"
        test.mkdir(parents=True, exist_ok=True)
        np.save(test / "images.npy", images)
        (test / "ids.txt").write_text("\n".join(ids))
        (test / "native_masks.zip").write_bytes(b"")


def write_history(path, number, selects="test"):
    """Add the losses to a metrics file; epoch 4 was selected."""
    train = [1.3 * 0.8**epoch + 0.01 * number for epoch in range(EPOCHS)]
    selection = [loss + 0.05 * (i % 3) for i, loss in enumerate(train)]
    content = json.loads(path.read_text())
    content["history"] = {
        "epoch": list(range(1, EPOCHS + 1)),
        "train_loss": train,
        "selection_loss": train if selects == "training" else selection,
    }
    content["checkpoint"]["epoch"] = 4
    path.write_text(json.dumps(content))


def write_volumes(root, params, runs, cases=5, side=32, seed=3):
    """Write the files of runs on volumes: organs are boxes, moved a little in the predictions."""
    random = np.random.default_rng(seed)
    names = [f"case{i:04d}" for i in range(cases)]
    for view in {run.view for run in runs}:
        arrays = root / "data/arrays" / view
        for i, name in enumerate(names):
            truth = np.zeros((6, side, side), np.uint8)
            for organ in range(len(ORGANS) - (i == 0)):
                row, column = divmod(organ, 3)
                truth[1:5, 3 + 9 * row : 9 + 9 * row, 3 + 9 * column : 9 + 9 * column] = organ + 1
            folder = arrays / "cases" / name
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / "labels.npy", truth)
            image = 0.3 + 0.05 * truth + random.uniform(0, 0.1, truth.shape)
            np.save(folder / "image.npy", image.astype(np.float32))
        manifest = {
            "view": view,
            "size": side,
            "dataset": "synapse",
            "classes": list(ORGANS),
            "test": names,
            "cases": {name: {"spacing": [3.0, 1.0, 1.0]} for name in names},
        }
        (arrays / "manifest.json").write_text(json.dumps(manifest))
    for number, run in enumerate(runs):
        data = {"train_slices": 9, "test_slices": 6 * cases, "n_train": 3, "n_test": cases}
        paper, sound = made_up_organs(run)
        data |= {"classes": list(ORGANS), "source": "phantom"}
        write(root, params, run, data, (side, side), paper, sound)
        folder = root / run.metrics_folder(params.profile_name)
        predicted, rows = {}, []
        for i, name in enumerate(names):
            labels = np.load(root / "data/arrays" / run.view / "cases" / name / "labels.npy")
            predicted[name] = np.roll(labels, (number + i) % 3, axis=2)
            for j, organ in enumerate(ORGANS):
                absent = i == 0 and j == len(ORGANS) - 1
                dice = round(0.95 - 0.04 * i - 0.03 * j - 0.02 * number, 4)
                row = {"case": name, "organ": organ, "paper_dice": 0.0 if absent else dice}
                row["truth_voxels"] = int((labels == j + 1).sum())
                rows.append(row | {"dice": "" if absent else dice})
        write_labels(folder / "predictions.npz", predicted)
        write_rows(folder / "per_case.csv", rows)
        selects = "training" if run.protocol == "paper" else "held out"
        write_history(folder / "metrics.json", number, selects)


def write_rows(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_fields(root, params, run, size=24, places=("bottleneck", "output")):
    """metrics/<profile>/<view>/receptive_field.npz."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    widths = {"bottleneck": (3.0, 8.0), "output": (1.5, 5.0)}
    maps = {
        f"{when}_{place}": np.exp(-(x**2 + y**2) / (2 * width**2)).astype(np.float32)
        for place in places
        for when, width in zip(("before", "after"), widths[place], strict=True)
    }
    parts = ((20, 0.05), (30, 0.1), (50, 0.2), (99, 0.9))
    shares = {f"r{p}": np.full(len(maps), s) for p, s in parts}
    view = params.grid.profiled[0]
    path = root / "metrics" / params.profile_name / view / "receptive_field.npz"
    np.savez(
        path,
        centres=np.full(len(maps), (size - 1) / 2),
        images=np.int64(8),
        run=np.array(run.name),
        **maps,
        **shares,
    )
    return path
