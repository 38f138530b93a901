"""Made-up runs, metrics files and parameters for the tests of the tables."""

import csv
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from stages.table_protocols import Difference
from stages.table_statistics import Inference
from stages.tables import make_tables
from vmunet.metrics import COUNTS
from vmunet.statistics import verdict

REPOSITORY = Path(__file__).parent.parent
CELLS = {
    "base": ((2, 2, 2, 2), (2, 2, 2, 1)),
    "scratch": ((2, 2, 2, 2), (2, 2, 2, 1)),
    "vmamba-t": ((2, 2, 2, 2), (2, 2, 2, 1)),
    "drop-path-00": ((2, 2, 2, 2), (2, 2, 2, 1)),
    "drop-path-01": ((2, 2, 2, 2), (2, 2, 2, 1)),
    "drop-path-03": ((2, 2, 2, 2), (2, 2, 2, 1)),
    "depths-2222-2222": ((2, 2, 2, 2), (2, 2, 2, 2)),
    "depths-2232-2322": ((2, 2, 3, 2), (2, 3, 2, 2)),
    "depths-2242-2422": ((2, 2, 4, 2), (2, 4, 2, 2)),
    "depths-2292-2922": ((2, 2, 9, 2), (2, 9, 2, 2)),
}
ORGANS = (
    "aorta",
    "gallbladder",
    "kidney-left",
    "kidney-right",
    "liver",
    "pancreas",
    "spleen",
    "stomach",
)


@dataclass(frozen=True)
class Run:
    """What stages.tables uses of pipeline.grid.Run."""

    view: str
    cell: str
    protocol: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.view}-{self.cell}-{self.protocol}-{self.seed}"

    def metrics_folder(self, profile: str) -> Path:
        return Path("metrics", profile, self.view, self.cell, self.protocol, str(self.seed))


def make_params(
    sizes=(64, 96, 128),
    source="phantom",
    dims=(8, 16, 32, 64),
    epochs=12,
    batch_size=4,
    volumes=(),
    cross=(),
):
    """Parameters with two datasets at sizes[0], ISIC17 alone at the others, and Synapse at
    `volumes`, which the same settings train with another T_max; `cross` names cross tests."""
    views = {f"isic17-{s}": SimpleNamespace(dataset="isic17", size=s) for s in sizes}
    views[f"isic18-{sizes[0]}"] = SimpleNamespace(dataset="isic18", size=sizes[0])
    cells = {
        name: SimpleNamespace(
            depths=depths,
            depths_decoder=decoder,
            init={"scratch": "none", "vmamba-t": "vmamba-t"}.get(name, "vmamba-s"),
        )
        for name, (depths, decoder) in CELLS.items()
    }
    organs = {f"synapse-{s}": SimpleNamespace(dataset="synapse", size=s) for s in volumes}
    train = {"dims": dims, "epochs": epochs, "batch_size": batch_size, "learning_rate": 1e-3}
    return SimpleNamespace(
        profile_name="demo",
        view=(views | organs).__getitem__,
        profile=SimpleNamespace(
            about="A made-up profile, 100% invented.",
            train=SimpleNamespace(**train, t_max=50),
            train_volumes=SimpleNamespace(**train, t_max=100),
            weights=SimpleNamespace(source=source, steps=40),
        ),
        grid=SimpleNamespace(
            views=views,
            isic=[f"isic17-{sizes[0]}", f"isic18-{sizes[0]}"],
            elsewhere=[f"isic17-{size}" for size in sizes[1:]],
            volumes=organs,
            cross=dict.fromkeys(cross),
        ),
        cells=cells,
    )


def all_runs(params, seeds=(42,), cells=tuple(CELLS), sound=("base",)):
    isic, elsewhere = params.grid.isic, params.grid.elsewhere
    found = [Run(v, c, "paper", s) for v in isic for c in cells for s in seeds]
    found += [Run(v, "base", "paper", s) for v in elsewhere for s in seeds]
    found += [Run(v, c, "sound", s) for v in isic for c in sound for s in seeds]
    return found + volume_runs(params, seeds)


def volume_runs(params, seeds=(42,), protocols=("paper", "sound")):
    return [Run(v, "base", p, s) for v in params.grid.volumes for p in protocols for s in seeds]


def made_up(run: Run) -> dict[str, float]:
    """Scores that depend on the run's fields alone."""
    step = list(CELLS).index(run.cell) + 20 * (run.protocol == "sound") + run.seed % 7
    miou = 0.7 + 0.004 * step + 0.01 * ("isic18" in run.view)
    return {
        "miou": miou,
        "dsc": 2 * miou / (1 + miou),
        "acc": 0.94 + 0.0005 * step,
        "spe": 0.98 - 0.0005 * step,
        "sen": 0.86 + 0.0011 * step,
    }


def sound_scores(paper: dict[str, float]) -> dict[str, dict]:
    """The sound set, near the scores of the paper set."""
    found = {}
    for size, shift in (("training_size", 0.002), ("native_size", 0.001)):
        miou = paper["miou"] + shift
        scores = {
            "miou": miou,
            "mean_iou": miou + 0.01,
            "mean_dice": miou + 0.09,
            "thresholded_jaccard": miou - 0.07,
        }
        intervals = {name: [value - 0.015, value + 0.02] for name, value in scores.items()}
        found[size] = scores | {"images": 24, "empty_truth": 0, "intervals": intervals}
    return found


def made_up_organs(run: Run) -> tuple[dict, dict]:
    """The two sets of volumes. One gallbladder is absent in truth and prediction, one is missed."""
    shift = 0.02 * (run.protocol == "sound") + 0.001 * (run.seed % 7)
    dice = {name: round(0.9 - 0.05 * i + shift, 4) for i, name in enumerate(ORGANS)}
    distance = {name: round(2 + i - 10 * shift, 4) for i, name in enumerate(ORGANS)}
    paper = {"dsc": sum(dice.values()) / 8, "hd95": sum(distance.values()) / 8, **dice}
    organs = {}
    for name in ORGANS:
        absent, missed = (1, 1) if name == "gallbladder" else (0, 0)
        organs[name] = {
            "dice": dice[name] - 0.01,
            "dice_n": 12 - absent,
            "hd95_mm": distance[name] + 1,
            "hd95_n": 12 - absent - missed,
            "nsd": dice[name] - 0.2,
            "nsd_n": 12 - absent,
            "absent": absent,
        }
    means = {
        name: sum(organ[name] for organ in organs.values()) / 8
        for name in ("dice", "hd95_mm", "nsd")
    }
    sound = means | {"spacing_known": True, "cases": 12, "organs": organs}
    return paper | {"hd95_organs": distance, "cases": 12}, sound


def write_volume_metrics(
    root, params, runs, source="phantom", native=(64, 64), blocks=made_up_organs
):
    """Metrics files of runs on volumes, whose slices measure native[0] to native[1] px a side."""
    for run in runs:
        data = {
            "train_slices": 520,
            "test_slices": 336,
            "classes": list(ORGANS),
            "n_train": 18,
            "n_test": 12,
        }
        paper, sound = blocks(run)
        write(root, params, run, data | {"source": source}, native, paper, sound)


def write_metrics(root, params, runs, scores=made_up, source="phantom", native=(80, 160)):
    """Metrics files of runs on images, and of those on volumes among them."""
    volumes = [run for run in runs if run.view in params.grid.volumes]
    write_volume_metrics(root, params, volumes)
    for run in runs:
        if run not in volumes:
            data = {"n_train": 56, "n_test": 24, "source": source}
            paper = scores(run)
            write(root, params, run, data, native, paper, sound_scores(paper))


def write(root, params, run, data, native, paper, sound):
    view = params.view(run.view)
    content = {
        "run": {"profile": params.profile_name, "dataset": view.dataset, "size": view.size}
        | {"view": run.view, "cell": run.cell, "protocol": run.protocol, "seed": run.seed},
        "data": data
        | {
            "dataset": view.dataset,
            "native_min": [native[0], native[0]],
            "native_max": [native[1], native[1]],
        },
        "checkpoint": {
            "path": f"runs/{run.view}/{run.cell}/{run.protocol}/{run.seed}/weights.safetensors",
            "sha256": f"sha-of-{run.name}",
            "epoch": 7,
            "mlflow_run_id": f"mlflow-of-{run.name}",
            "data_hash": "data",
            "code_hash": "code",
            "git": "revision",
        },
        "paper": paper,
        "sound": sound,
    }
    path = metrics_file(root, params, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def metrics_file(root, params, run):
    return root / run.metrics_folder(params.profile_name) / "metrics.json"


def prepare(root, setitem):
    shutil.copytree(
        REPOSITORY / "reports", root / "reports", ignore=shutil.ignore_patterns("tables", ".*")
    )
    cost = SimpleNamespace(parameters=27_427_561, macs_paper=4.1119e9, macs_complete=8.297e9)
    module = SimpleNamespace(complexity=lambda depths, depths_decoder, dims, size: cost)
    setitem(sys.modules, "vmunet.complexity", module)


class MadeUpStatistics:
    """Intervals around the means; from scratch and at drop path 0.3 p is below 0.05."""

    def inferences(self, rows, published, base, scales):
        found = [{} for _ in rows]
        for own, said, inferred in zip(rows, published, found, strict=True):
            for metric, scale in scales.items() if own else ():
                mean = scale * sum(result.scores[metric] for result in own) / len(own)
                low, high = mean - 2.5, mean + 2
                p = 0.0123 if own[0].run.cell in ("scratch", "drop-path-03") else 0.4
                here = verdict(low, high, said[metric]) if metric in said else None
                inferred[metric] = Inference(low, high, None if own == list(base) else p, here)
        return found


def made_up_difference(first, second, metric):
    """The two protocols' difference: as wide for every metric, p below 0.05 for two of them."""
    return Difference((70.0, 75.5), (77.0, 81.25), 5.5, 9.75, 0.4 if metric == "dsc" else 0.0002)


def made(root, params, runs, statistics=None, paired=None):
    make_tables(root, params, runs, statistics, paired)
    return root / "reports" / "tables"


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
        "batch_size": {"inference": 16, "training": 4},
        "versions": {},
        "architectures": {"2,2,2,2-2,2,2,1": full, "2,2,2,2-2,2,2,2": half},
    } | changed
    path = root / "metrics" / params.profile_name / "speed.json"
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

    The models trained elsewhere miss half of what those at home hit.
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
    """Every table there is, from made-up files under `root`; their folder."""
    params = make_params(volumes=(64,), cross=("isic17-to-isic18",))
    runs = all_runs(params, seeds)
    write_metrics(root, params, runs)
    write_cross(root, params, runs)
    write_speed(root, params)
    return made(root, params, runs, MadeUpStatistics(), made_up_difference)


def rows_of(folder, name):
    with open(folder / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))
