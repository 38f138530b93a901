"""Train one run of the grid: a cell on a view, under a protocol, with a seed.

Writes runs/<view>/<cell>/<protocol>/<seed>/: weights.safetensors (the selected epoch),
history.csv (a row an epoch) and run.json (where all of it came from). A killed run goes on from
its last saved epoch: the state lives in .resume/, under a hash of parameters, data and code.
"""

import argparse
import csv
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.grid import Run
from pipeline.params import Cell, Params, load_params
from pipeline.provenance import (
    git_revision,
    hash_files,
    hash_json,
    modules_of,
    versions,
    write_json,
)
from pipeline.stage import run_stage
from vmunet.data.files import whole_folder
from vmunet.errors import InputError

RESUME = Path(".resume")
KEPT_SECONDS = 3600


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    parser.add_argument("view", help="a dataset at a size, as in params.yaml's grid.views")
    parser.add_argument("cell", help="a cell of params.yaml")
    parser.add_argument("protocol", choices=["paper", "sound"])
    parser.add_argument("seed", type=int)
    arguments = parser.parse_args(argv)
    run = Run(arguments.view, arguments.cell, arguments.protocol, arguments.seed)
    train_run(run, load_params())


def train_run(run: Run, params: Params) -> None:
    """Train, or go on training, and write the run's folder."""
    import torch

    from pipeline.tracking import RunTracker
    from vmunet.checkpoints import save_checkpoint
    from vmunet.data.arrays import load_manifest
    from vmunet.processor import use_processor
    from vmunet.protocols import PROTOCOLS
    from vmunet.training import Progress, train

    cell, view = params.cell(run.cell), params.view(run.view)
    settings, protocol = params.profile.train, PROTOCOLS[run.protocol]
    arrays = Path("data/arrays", run.view, run.protocol)
    load_manifest(arrays)  # one clear error where preprocessing is missing
    facts = {
        "run": asdict(run) | {"profile": params.profile_name, "size": view.size},
        "cell": cell.model_dump(),
        "train": asdict(settings),
        "protocol": asdict(protocol),
    }
    hashes = hash_inputs(arrays, cell)
    use_processor(params.profile.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = {"device": device_name(device), "threads": torch.get_num_threads()}
    state = RESUME / f"{hash_json([facts, hashes, machine, versions()])[:32]}.pt"
    finished = state.with_suffix(".done")
    if finished.exists():
        finished.rename(state)
    forget_finished()

    torch.manual_seed(run.seed)
    model, filled = make_model(params, run)
    train_images, selection_images = datasets(arrays, protocol, run.seed)
    tracker: RunTracker | None = None
    revision = git_revision()
    resumed, resumed_from = Progress(), 0

    def on_start(progress: Progress) -> None:
        nonlocal tracker, resumed, resumed_from
        resumed_from = progress.epoch
        provenance = hashes | machine | {"git": revision}
        tags = {key: str(value) for key, value in (facts["run"] | provenance).items()}
        flat = {f"{s}.{k}": v for s in ("cell", "train", "protocol") for k, v in facts[s].items()}
        tracker = RunTracker(params.profile_name, run.name, flat, tags, progress.note)
        resumed = progress

    def on_epoch(row: dict[str, float]) -> None:
        assert tracker is not None
        resumed.note = tracker.run_id or resumed.note
        metrics = {key: value for key, value in row.items() if key != "epoch"}
        tracker.log(metrics, step=int(row["epoch"]))

    try:
        progress = train(
            model,
            train_images,
            selection_images,
            settings,
            protocol,
            run.seed,
            device,
            state,
            on_start,
            on_epoch,
            label=run.name,
        )
    except BaseException as error:
        if tracker is not None:
            tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    assert tracker is not None
    tracker.finish()

    record: dict[str, Any] = {
        **facts,
        **hashes,
        "epoch": progress.best_epoch,
        "selection_loss": progress.best_loss,
        "resumed_from": resumed_from,
        "selection_images": len(selection_images),
        "train_images": len(train_images),
        "filled": filled,
        "parameters": sum(p.numel() for p in model.parameters()),
        "mlflow_run_id": tracker.run_id,
        "git": revision,
        "versions": versions(),
        **machine,
        "seconds": round(progress.seconds, 1),
    }
    if hash_inputs(arrays, cell) != hashes:
        # DVC hashes dependencies as they are now: these weights would pass for the new sources'.
        raise InputError(f"{run.name}: sources or data changed while it trained; run it again")
    model.load_state_dict(progress.best_weights)
    with whole_folder(run.folder) as part:
        save_checkpoint(
            part / "weights.safetensors",
            model,
            {
                "normalisation": "minmax",
                "size": view.size,
                "run": run.name,
                "protocol": run.protocol,
                "epoch": progress.best_epoch,
            },
        )
        write_history(part / "history.csv", progress.history)
        write_json(part / "run.json", record)
    state.rename(finished)


def hash_inputs(arrays: Path, cell: Cell) -> dict[str, str]:
    """SHA-256 of what a run is made from: its arrays, its initial weights, this project's code."""
    weights = Path("data/weights") / f"{cell.init}.safetensors"
    if cell.init != "none" and not weights.is_file():
        raise InputError(f"{weights}: not found; run the weights stage, in a profile that has any")
    return {
        "data_hash": hash_files([arrays]),
        "weights_hash": hash_files([weights]) if cell.init != "none" else "",
        "code_hash": hash_files(modules_of(Path("stages/train.py"))),
    }


def make_model(params: Params, run: Run) -> tuple[Any, dict[str, int]]:
    """The cell's model with its initial weights, and how many tensors those filled."""
    from vmunet.checkpoints import read_tensors
    from vmunet.initial_weights import fill_from_vmamba
    from vmunet.model import VMUNet

    cell = params.cell(run.cell)
    model = VMUNet(
        depths=cell.depths,
        depths_decoder=cell.depths_decoder,
        dims=params.profile.train.dims,
        drop_path_rate=cell.drop_path_rate,
    )
    if cell.init == "none":
        return model, {"encoder": 0, "decoder": 0, "unused": 0}
    path = Path("data/weights") / f"{cell.init}.safetensors"
    filled = fill_from_vmamba(model, read_tensors(path)[0], path)
    return model, {key: len(names) for key, names in asdict(filled).items()}


def datasets(arrays: Path, protocol: Any, seed: int) -> tuple[Any, Any]:
    """Images to train on, augmented, and images whose loss selects the epoch."""
    from torch.utils.data import Subset

    from vmunet.data.arrays import ArrayDataset, held_out
    from vmunet.data.augment import augmentation

    augmented = ArrayDataset(arrays, "train", augmentation(protocol, seed), seed)
    if protocol.selection == "test":
        return augmented, ArrayDataset(arrays, "test")
    kept, held = held_out(augmented.ids)
    return Subset(augmented, kept), Subset(ArrayDataset(arrays, "train"), held)


def forget_finished() -> None:
    """Remove resume states of runs that ended long enough ago to be on record.

    A run that has just ended keeps its state for a while: if DVC is killed before it records the
    outputs, it deletes them, and the next start makes them again without training.
    """
    for path in RESUME.glob("*.done"):
        if time.time() - path.stat().st_mtime > KEPT_SECONDS:
            path.unlink(missing_ok=True)


def device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def write_history(path: Path, rows: list[dict[str, float]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    run_stage(main)
