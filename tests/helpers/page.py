"""A made-up report to build the page from: metrics, arrays, predictions, tables and figures."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np

from reports.make.figures import listing
from reports.make.figures.runs import Runs
from reports.make.page.document import make_page
from reports.make.page.pictures import cases_of
from reports.make.report import PATH, Part, read_report
from reports.make.tables.writing import make_tables
from reports.make.tidy import tidy
from reports.make.typeset.sheet import Caption, Sheet
from tests.helpers.tables import ORGANS, made_up, make_params, prepare, volume_runs, write_metrics
from vmunet.evaluation.stored import write_labels, write_masks

SIDE = 32  # px of the made-up images
NASTY = "<i>&\"'</script><script>alert(1)</script>"
IDS = ["ISIC_0000010", "ISIC_0000002", "ISIC_0000001", f"ISIC_{NASTY}"]
CASES = ["case0001", "case0002"]
# An additional table: the content of its cells and title must stay text on the page.
EXTRA = Part(
    sheet=Sheet("some-extra", Caption("Some extra", "", (), (NASTY,), ()), (), ()),
    terminal=(),
    data=tidy(
        [
            {"name": NASTY, "p": 0.00003, "x": 12.345, "x_low": 11, "x_high": 13.5, "files": 1},
            {"name": "plain", "p": 0.25, "files": 2},
        ]
    ),
)


def params_of(root, setitem, volumes=(64,)):
    """Parameters, and a root with the declarations of reports/."""
    prepare(root, setitem)
    return make_params(volumes=volumes)


def runs_of(params, run, cells=("base", "scratch"), seeds=(42,), rivals=(), volume_rivals=()):
    """Paper runs of some cells at the base sizes, sound ones of the first, and the volumes'."""
    isic, all_cells = params.grid.ablation_views, (*cells, *rivals)
    runs = [run(view, cell, "paper", seed) for view in isic for cell in all_cells for seed in seeds]
    runs += [run(view, cells[0], "sound", seed) for view in isic for seed in seeds]
    return runs + volume_runs(params, seeds, rivals=volume_rivals)


def write_all(root, params, runs, ids=IDS, source="phantom", scores=made_up):
    """Write everything that the page is made from."""
    write_metrics(root, params, runs, scores, source)
    for run in runs:
        folder = root / run.metrics_folder(params.profile_name)
        if run.view in params.grid.volumes:
            write_volumes(root, folder, run)
        else:
            write_images(root, folder, run, ids)
    write_figures(root)


def make_whole_page(root, params, runs, statistics=None):
    """Make the page, after the tables and the pictures of every test case."""
    make_tables(root, params, runs, statistics)
    report = read_report(root)
    (root / PATH).write_text(replace(report, parts=(*report.parts, EXTRA)).json(), encoding="utf-8")
    gathered = Runs(root, params, runs)
    for view in report.pictured:
        folder = root / listing.PICTURES / view
        folder.mkdir(parents=True, exist_ok=True)
        cases = cases_of(gathered, view)
        (folder / listing.CASES).write_text(json.dumps(cases), encoding="utf-8")
    make_page(root)


def circle(middle, radius, side=SIDE):
    y, x = np.ogrid[:side, :side]
    return (y - middle) ** 2 + (x - middle) ** 2 < radius**2


def write_images(root, folder, run, ids):
    """Masks whose agreement falls from image to image."""
    test = root / "data/arrays" / run.view / run.protocol / "test"
    test.mkdir(parents=True, exist_ok=True)
    shades = np.linspace(40, 220, len(ids)).astype(np.uint8)
    pixels = np.broadcast_to(shades[:, None, None, None], (len(ids), SIDE, SIDE, 3))
    np.save(test / "images.npy", pixels)
    (test / "ids.txt").write_text("\n".join(ids))
    (test / "native_masks.zip").touch()
    truth = np.stack([circle(16, 8)] * len(ids))
    masks = np.stack([circle(16 + 3 * i, 8) for i in range(len(ids))])
    write_masks(folder / "predictions.npz", ids, masks, truth)
    names = ["id", "native_width", "native_height"]
    names += [
        f"{size}_size_{score}" for size in ("training", "native") for score in ("dice", "iou")
    ]
    with open(folder / "per_image.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for name, mask, true in zip(ids, masks, truth, strict=True):
            iou = (mask & true).sum() / (mask | true).sum()
            dice = 2 * iou / (1 + iou)
            writer.writerow([name, 60, 48, dice, iou, dice, iou])


def volume():
    """Image (depth, height, width) 0..1 and labels: two organs on slice 1, one on slice 2."""
    labels = np.zeros((4, 20, 24), np.uint8)
    labels[1, 2:8, 2:8], labels[1, 10:14, 10:14] = 1, 5
    labels[2, 2:18, 2:20] = 7
    return np.linspace(0, 1, labels.size, dtype=np.float32).reshape(labels.shape), labels


def write_volumes(root, folder, run):
    image, truth = volume()
    predicted = np.roll(truth, 1, axis=2)
    for case in CASES:
        place = root / "data/arrays" / run.view / "cases" / case
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / "image.npy", image)
        np.save(place / "labels.npy", truth)
    write_labels(folder / "predictions.npz", {case: predicted for case in reversed(CASES)})
    lines = ["case,organ,truth_voxels,predicted_voxels,dice"]
    for case in CASES:
        for k, organ in enumerate(ORGANS, 1):
            voxels = int((truth == k).sum())
            lines.append(f"{case},{organ},{voxels},{voxels},{0.5 if voxels else ''}")
    (folder / "per_case.csv").write_text("\n".join(lines) + "\n")


def write_figures(root):
    folder = root / listing.FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    picture = cv2.imencode(".png", np.full((30, 50, 3), 200, np.uint8))[1].tobytes()
    listed = []
    for name, title in (("curves", "Curves"), ("nasty", NASTY)):
        (folder / f"{name}.png").write_bytes(picture)
        (folder / f"{name}.pdf").touch()
        words = {"title": title, "caption": f"Of {title}.", "alt": f'A "picture" of {title}'}
        listed.append({"name": name, "data": "phantom", **words})
    (folder / "figures.json").write_text(json.dumps(listed))
