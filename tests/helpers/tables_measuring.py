"""Made-up statistics, speeds and cross tests for the tests of the tables."""

import csv
import json
from pathlib import Path

from reports.make.report import Difference, Inference
from reports.make.results.scores import Estimate
from reports.make.results.strata import NOTHING, UNKNOWN, Stratum
from tests.helpers.tables import (
    RIVALS,
    VOLUME_RIVALS,
    Run,
    all_runs,
    made,
    make_params,
    metrics_file,
    write_metrics,
)
from vmunet.evaluation.metrics import COUNTS

SOME, SOME_OF_VOLUMES = ("unet", "unetpp"), ("swin-unet",)
SURE = ("scratch", "drop-path-03", "unet", "swin-unet")  # cells


class MadeUpStatistics:
    """Intervals around the means; for `SURE` p is below 0.05."""

    def inferences(self, rows, base, scales):
        inferences = [{} for _ in rows]
        for own, inferred in zip(rows, inferences, strict=True):
            for metric, scale in scales.items() if own else ():
                mean = scale * sum(result.scores[metric] for result in own) / len(own)
                low, high = mean - 2.5, mean + 2
                p = 0.0123 if own[0].run.cell in SURE else 0.4
                p = None if own == list(base) else p
                methods = p is not None and min(len(own), len(base)) >= 3
                inferred[metric] = Inference(low, high, p, methods)
        return inferences

    def strata(self, results, limits):
        """The whole set and three parts: one without an image, one of an unknown number."""
        miou = sum(result.scores["miou"] for result in results) / len(results)
        means = {
            "mean_iou": Estimate(miou + 0.01, None, None),
            "mean_dice": Estimate(miou + 0.09, miou + 0.05, miou + 0.12),
            "nsd": Estimate(miou + 0.02, None, None),
            "hd95_px": Estimate(12.5, None, None),
        }
        pale = f"pale, below {limits['contrast']:g}"
        return [
            Stratum("all", "all", 24, miou, means),
            Stratum("training", "trained on too", 0, None, NOTHING),
            Stratum("contrast", pale, 7, miou - 0.1, means),
            UNKNOWN,
        ]

    def difference(self, first, second, metric):
        """Of the protocols: the same intervals for each metric, p below 0.05 for two metrics."""
        p = 0.4 if metric == "dsc" else 0.0002
        return Difference((70.0, 75.5), (77.0, 81.25), 5.5, 9.75, p, len(first) >= 3)


def write_speed(root, params, device="CPU", **changed):
    """speed.json with the first architecture measured, the second without training."""
    full = {
        "inference_images_per_second": 123.4,
        "training_images_per_second": 4.567,
        "inference_peak_bytes": 512 * 2**20,
        "training_peak_bytes": 2048 * 2**20,
    }
    half = full | {"training_images_per_second": None, "training_peak_bytes": None}
    content = {
        "device": device,
        "threads": 2,
        "size": 64,
        "dims": [8, 16, 32, 64],
        "width": 0.25,
        "batch_size": {"inference": 16, "training": 4},
        "versions": {},
        "architectures": {"2,2,2,2-2,2,2,1": full, "2,2,2,2-2,2,2,2": half, "unet": full},
    } | changed
    view = params.grid.profiled[0]
    path = root / "metrics" / params.profile_name / view / "speed.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_costs(root, params, images=("vmunet", *RIVALS), slices=("vmunet", *VOLUME_RIVALS)):
    """costs.json with made-up numbers; those of MALUNet are true."""
    content = {}
    for table, models, side, classes in (("I", images, 256, 1), ("II", slices, 224, 9)):
        content[table] = {
            name: {
                "input": [64] * 3 if name == "vnet" else [side] * 2,
                "classes": classes,
                "parameters": 177_943 if name == "malunet" else 1_230_000 * (place + classes),
                "macs_paper": 82_740_224 if name == "malunet" else 10**8 * (place + side),
                "macs_complete": 82_740_224 if name == "malunet" else 10**8 * (2 * place + side),
            }
            for place, name in enumerate(models)
        }
    path = root / "metrics" / params.profile_name / "costs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def counts_of(run: Run, index: int) -> dict[str, int | float]:
    """A made-up row of per_image.csv: the counts of 100 pixels, and Dice at the own size."""
    hit = 20 + (3 * index + run.seed + 5 * (run.protocol == "sound")) % 17
    counts = dict(zip(COUNTS, (hit, 7, 5 + index % 4, 100 - hit - 12 - index % 4), strict=True))
    dice = 2 * hit / (2 * hit + 12 + index % 4)
    return {f"paper_{name}": value for name, value in counts.items()} | {"native_size_dice": dice}


def write_per_image(path: Path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_cross(root, params, runs, name="isic17-to-isic18", images=6, shared=("i4", "i5")):
    """A cross test of ISIC17's runs on ISIC18, and the per_image.csv of ISIC18's own runs.

    The models of the other dataset miss half of the pixels that ISIC18's own models hit.
    """
    train, test = (f"{dataset}-64" for dataset in name.split("-to-"))
    ids = [f"i{index}" for index in range(images)]
    for run in runs:
        if run.view == test:
            path = metrics_file(root, params, run).with_name("per_image.csv")
            write_per_image(path, [{"id": i, **counts_of(run, n)} for n, i in enumerate(ids)])
    rows, content = [], {"train": train, "test": test, "shared": list(shared), "runs": {}}
    for run in runs:
        if run.view == train and run.cell in ("base", "scratch"):
            key = f"{run.cell}-{run.protocol}-{run.seed}"
            content["runs"][key] = {}
            for n, one in enumerate(ids):
                if one not in shared:
                    row = counts_of(run, n)
                    half = row["paper_tp"] // 2
                    row |= {"paper_tp": half, "paper_fn": row["paper_fn"] + row["paper_tp"] - half}
                    rows.append({"run": key, "id": one, **row, "native_size_dice": 0.5})
    folder = root / "metrics" / params.profile_name / "cross" / name
    write_per_image(folder / "per_image.csv", rows)
    content["tested"] = images - len(shared)
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


def make_everything(root, seeds=(1, 2, 3)):
    """Make every table from made-up files under `root`; returns the tables' folder."""
    params = make_params(volumes=(64,), cross=("isic17-to-isic18",))
    runs = all_runs(params, seeds, rivals=SOME, volume_rivals=SOME_OF_VOLUMES)
    write_metrics(root, params, runs)
    write_cross(root, params, runs)
    write_speed(root, params)
    write_costs(root, params)
    return made(root, params, runs, MadeUpStatistics())
