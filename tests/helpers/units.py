"""Made-up results by image and case, with the metrics files that follow from them."""

import csv

import numpy as np

from tests.helpers.tables import ORGANS, metrics_file, sound_scores, write
from vmunet.evaluation.metrics import COUNTS, pooled_scores

COMPARISONS = ("paper", "training_size", "native_size")
NATIVE = 160  # px a side, of every image


def seed_of(run) -> int:
    return sum(map(ord, run.name))


def image_ids(images):
    return [f"ISIC_{i:07d}" for i in range(images)]


def made_up_counts(run, size, images=24, quality=0.8):
    """Counts (images, 4) of every comparison; all runs and sizes of a view have the same truth."""
    truth = np.random.default_rng(len(run.view.split("-")[0])).integers(800, 12_000, images)
    rng = np.random.default_rng(seed_of(run))
    part = np.clip(rng.normal(quality, 0.15, images), 0, 1)
    wrong = rng.uniform(0, 0.1, images)
    counts = {}
    for name, side in zip(COMPARISONS, (size, size, NATIVE), strict=True):
        lesion = truth if side == NATIVE else truth * side**2 // NATIVE**2
        tp = (lesion * part).astype(int)
        fp = ((side**2 - lesion) * wrong).astype(int)
        counts[name] = np.stack([tp, fp, lesion - tp, side**2 - lesion - fp], axis=1)
    return counts


def image_rows(counts, ids=None):
    ids = ids or image_ids(len(counts["paper"]))
    rows = []
    for i, name in enumerate(ids):
        row = {"id": name, "native_width": NATIVE, "native_height": NATIVE}
        for kind in COMPARISONS:
            row |= {f"{kind}_{c}": int(v) for c, v in zip(COUNTS, counts[kind][i], strict=True)}
        rows.append(row)
    return rows


def made_up_cases(run, cases=12, shift=0.0):
    """Rows of per_case.csv."""
    rng = np.random.default_rng(seed_of(run))
    rows = []
    for i in range(cases):
        for k, organ in enumerate(ORGANS):
            dice = float(np.clip(rng.normal(0.7 + shift - 0.02 * k, 0.1), 0, 1))
            rows.append(
                {"case": f"case{i:04d}", "organ": organ}
                | {"truth_voxels": 100 * i + k, "predicted_voxels": 100 * i + 2 * k}
                | {"paper_dice": dice, "paper_hd95_voxels": 20 * (1 - dice)}
                | {"dice": dice, "hd95_mm": "" if i == k else 40 * (1 - dice), "nsd": dice / 2}
            )
    return rows


def write_rows(root, params, run, rows):
    name = "per_case.csv" if "case" in rows[0] else "per_image.csv"
    path = metrics_file(root, params, run).with_name(name)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_images(root, params, run, counts, ids=None):
    """A run's metrics.json and per_image.csv, from counts (images, 4) of every comparison."""
    paper = pooled_scores(counts["paper"])
    data = {"n_train": 56, "n_test": len(counts["paper"]), "source": "phantom"}
    write(root, params, run, data, (NATIVE, NATIVE), paper, sound_scores(paper))
    return write_rows(root, params, run, image_rows(counts, ids))


def write_cases(root, params, run, rows):
    """Write a run's metrics.json and per_case.csv, from the rows of per_case.csv."""
    organs = {name: [row for row in rows if row["organ"] == name] for name in ORGANS}
    dice = {k: float(np.mean([row["paper_dice"] for row in of])) for k, of in organs.items()}
    far = {k: float(np.mean([row["paper_hd95_voxels"] for row in of])) for k, of in organs.items()}
    cases = len(rows) // len(ORGANS)
    scores = {"dice": 0.7, "hd95_mm": 12.0, "nsd": 0.35}
    counted = {name: cases for name in ("dice_n", "hd95_n", "nsd_n")} | {"absent": 0}
    sound = {"organs": {name: scores | counted for name in ORGANS}}
    sound |= scores | {"spacing_known": True, "cases": cases}
    paper = {"dsc": np.mean(list(dice.values())), "hd95": np.mean(list(far.values()))}
    data = {"train_slices": 520, "test_slices": 336, "classes": list(ORGANS)}
    data |= {"n_train": 18, "n_test": cases, "source": "phantom"}
    paper |= dice | {"hd95_organs": far, "cases": cases}
    write(root, params, run, data, (64, 64), paper, sound)
    return write_rows(root, params, run, rows)


def write_runs(root, params, runs):
    """Made-up results of every run, images and volumes."""
    for run in runs:
        if run.view in params.grid.volumes:
            write_cases(root, params, run, made_up_cases(run))
        else:
            write_images(root, params, run, made_up_counts(run, params.view(run.view).size))
