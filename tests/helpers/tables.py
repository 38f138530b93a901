"""Made-up runs, metrics files and parameters for the tests of the tables."""

import csv
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from reports.make.tables.writing import make_tables
from tests.helpers.paths import ROOT as REPOSITORY

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
# Cells of other models, by the models' names.
RIVALS = ("unet", "unetpp", "att-unet", "utnetv2", "sanet", "transfuse", "malunet")
VOLUME_RIVALS = (
    *("vnet", "r50-unet", "unet-34m", "att-unet", "transunet", "transnorm", "swin-unet"),
    *("transdeeplab", "uctransnet", "mt-unet", "mew-unet"),
)
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
    """The part of pipeline.config.runs.Run that stages.tables uses."""

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
    width=0.25,
    t_max=(50, 100),
):
    """Parameters with two datasets at sizes[0], only ISIC17 at the others, and Synapse at
    `volumes`, which the same settings train with another T_max; `cross` names cross tests."""
    views = {f"isic17-{s}": SimpleNamespace(dataset="isic17", size=s) for s in sizes}
    views[f"isic18-{sizes[0]}"] = SimpleNamespace(dataset="isic18", size=sizes[0])
    cells = {
        name: SimpleNamespace(
            model="vmunet",
            depths=depths,
            depths_decoder=decoder,
            init={"scratch": "none", "vmamba-t": "vmamba-t"}.get(name, "vmamba-s"),
        )
        for name, (depths, decoder) in CELLS.items()
    }
    cells |= {
        name: SimpleNamespace(model=name, depths=None, depths_decoder=None, init="none")
        for name in (*RIVALS, *VOLUME_RIVALS)
    }
    organs = {f"synapse-{s}": SimpleNamespace(dataset="synapse", size=s) for s in volumes}
    train = {"dims": dims, "epochs": epochs, "batch_size": batch_size, "learning_rate": 1e-3}
    train |= {"width": width, "states": 16}
    return SimpleNamespace(
        profile_name="demo",
        view=(views | organs).__getitem__,
        profile=SimpleNamespace(
            about="A made-up profile, 100% invented.",
            train=SimpleNamespace(**train, t_max=t_max[0]),
            train_volumes=SimpleNamespace(**train, t_max=t_max[1]),
            weights=SimpleNamespace(source=source, steps=40),
        ),
        grid=SimpleNamespace(
            views=views,
            ablation_views=[f"isic17-{sizes[0]}", f"isic18-{sizes[0]}"],
            size_views=[f"isic17-{size}" for size in sizes[1:]],
            volumes=organs,
            cross=dict.fromkeys(cross),
            profiled=[f"isic17-{sizes[0]}"],
            main_cell="base",
            rivals=list(RIVALS),
            volume_rivals=list(VOLUME_RIVALS),
        ),
        cells=cells,
    )


def all_runs(params, seeds=(42,), cells=tuple(CELLS), sound=("base",), rivals=(), volume_rivals=()):
    isic, sizes = params.grid.ablation_views, params.grid.size_views
    runs = [Run(v, c, "paper", s) for v in isic for c in (*cells, *rivals) for s in seeds]
    runs += [Run(v, "base", "paper", s) for v in sizes for s in seeds]
    runs += [Run(v, c, "sound", s) for v in isic for c in sound for s in seeds]
    return runs + volume_runs(params, seeds, rivals=volume_rivals)


def volume_runs(params, seeds=(42,), protocols=("paper", "sound"), rivals=()):
    of_cells = [("base", protocol) for protocol in protocols]
    of_cells += [(cell, "paper") for cell in rivals]
    return [Run(v, c, p, s) for v in params.grid.volumes for c, p in of_cells for s in seeds]


def made_up(run: Run) -> dict[str, float]:
    """Scores that depend only on the run's fields."""
    step = [*CELLS, *RIVALS, *VOLUME_RIVALS].index(run.cell.removesuffix("-imagenet"))
    step += 20 * (run.protocol == "sound") + run.seed % 7
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
    scores_by_size = {}
    for size, shift in (("training_size", 0.002), ("native_size", 0.001)):
        miou = paper["miou"] + shift
        scores = {
            "miou": miou,
            "mean_iou": miou + 0.01,
            "mean_dice": miou + 0.09,
            "thresholded_jaccard": miou - 0.07,
        }
        intervals = {name: [value - 0.015, value + 0.02] for name, value in scores.items()}
        if size == "native_size":
            border = {"nsd": miou + 0.05, "hd95_px": 21 - 10 * miou, "hd95_penalised_px": 30.5}
            ends = {name: [0.9 * value, 1.1 * value] for name, value in border.items()}
            scores |= {"boundary": border | {"hd95_n": 23, "intervals": ends}}
        scores_by_size[size] = scores | {"images": 24, "empty_truth": 0, "intervals": intervals}
    return scores_by_size | {"calibration": {"ece": 0.0123}}


def made_up_organs(run: Run) -> tuple[dict, dict]:
    """The two sets of volumes. One gallbladder is absent in truth and prediction, one is missed."""
    shift = 0.02 * (run.protocol == "sound") + 0.001 * (run.seed % 7)
    shift -= 0.004 * ["base", *VOLUME_RIVALS].index(run.cell)
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
            "hd95_penalised_mm": distance[name] + 1 + 20 * missed,
            "nsd": dice[name] - 0.2,
            "nsd_n": 12 - absent,
            "absent": absent,
        }
    means = {
        name: sum(organ[name] for organ in organs.values()) / 8
        for name in ("dice", "hd95_mm", "hd95_penalised_mm", "nsd")
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
    """Write metrics files of runs on images, and of the runs on volumes among them."""
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


def copy_declarations(root):
    """The repository's own reports/, without its code and without a clone's rendered files."""
    shutil.copytree(REPOSITORY / "reports/templates", root / "reports/templates")
    for path in (REPOSITORY / "reports").glob("*.yaml"):
        shutil.copy(path, root / "reports")


def prepare(root, setitem):
    copy_declarations(root)
    cost = SimpleNamespace(parameters=27_427_561, macs_paper=4.1119e9, macs_complete=8.297e9)
    module = SimpleNamespace(complexity=lambda depths, depths_decoder, dims, size: cost)
    setitem(sys.modules, "vmunet.complexity", module)


def made(root, params, runs, statistics=None):
    make_tables(root, params, runs, statistics)
    return root / "reports/out/tables"


def rows_of(folder, name):
    with open(folder / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))
