"""The common part of training on images and on volumes: one run of the grid from start to end.

Writes runs/<view>/<cell>/<protocol>/<seed>/: weights.safetensors (the selected epoch),
history.csv (a row for each epoch) and run.json (provenance). A killed run continues from its last
saved epoch. The state is in .resume/; its name is a hash of parameters, data and code, and also the
key of the run's MLflow run.
"""

import csv
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.initial import initial_files
from pipeline.config.params import Cell, Params
from pipeline.config.runs import Run
from pipeline.fingerprint import fingerprint
from pipeline.provenance import (
    git_revision,
    hash_files,
    hash_json,
    versions,
    write_json,
)
from pipeline.stage import OutOfMemoryError, TimeOverError
from stages.common.initial_model import initial_model
from stages.common.only_here import RESUME, only_here, stop_as_ctrl_c_does
from vmunet.errors import InputError
from vmunet.files import whole_folder
from vmunet.models import file_of
from vmunet.settings import TrainSettings

if TYPE_CHECKING:
    from vmunet.training.distributed import Group

KEPT_SECONDS = 3600
MICRO_BATCH = "VMUNET_MICRO_BATCH"  # environment variable: samples to process at once


@dataclass(frozen=True)
class Task:
    """The data and settings of a training.

    Attributes:
        script: the stage's script; a resume state is valid only for the modules that it imports.
        arrays: the folder of the data.
        settings: the profile's training settings; a cell may override them.
        classes: the number of the model's output channels: 1 for one class, otherwise one for the
            background and for each class.
        size: the side of the square slices or images, px.
        datasets: makes the augmented training data, and the data whose loss selects the epoch
            (None: the training loss selects it).
        metadata: the facts that inference needs; the checkpoint stores them.
    """

    script: Path
    arrays: Path
    settings: TrainSettings
    classes: int
    size: int
    datasets: Callable[[], tuple[Any, Any]]
    metadata: dict[str, Any]


def train_run(run: Run, params: Params, task: Task, seconds: float = math.inf) -> None:
    """Train the run, or resume it, and write its folder.

    With `train: gpus: N` this process starts N others, which do it together, unless torchrun has
    started them.

    Args:
        seconds: the time for this call; after it, training ends with the epoch.

    Raises:
        TimeOverError: the time is over; the state is saved, and the run's folder is not written.
        InputError: there are fewer GPUs, or other processes, than the settings say; or another
            process trains this run.
    """
    import torch

    from vmunet.training.distributed import ALONE, check, device_of, group_of, joined
    from vmunet.training.launch import launch

    settings = params.cell(run.cell).settings(task.settings)
    group = group_of()
    if group is None and settings.gpus > 1:
        check(settings.gpus, settings.batch_size, torch.cuda.device_count())
        words = [run.view, run.cell, run.protocol, str(run.seed)]
        words += [f"--seconds={seconds}"] if math.isfinite(seconds) else []
        if status := launch(".".join(task.script.with_suffix("").parts), words, settings.gpus):
            raise SystemExit(status)
        return
    group = group or ALONE
    if group is ALONE:
        stop_as_ctrl_c_does()
    if group.size != settings.gpus:
        raise InputError(
            f"{run.name}: {group.size} processes were started, and train: gpus is {settings.gpus}; "
            "make the two equal"
        )
    device = device_of(group)
    with only_here(run) if group.leads else nullcontext(), joined(group, device):
        train_in_group(run, params, task, seconds, device, group)


def train_in_group(
    run: Run, params: Params, task: Task, seconds: float, device: Any, group: "Group"
) -> None:
    """`train_run` in one of the processes of a group; process 0 alone writes."""
    import torch

    from pipeline.tracking.header import header_of
    from pipeline.tracking.live import FINISH_SECONDS, RunTracker
    from pipeline.tracking.store import milliseconds
    from pipeline.tracking.table_names import tables_of
    from vmunet.protocols import PROTOCOLS
    from vmunet.training.loop import Progress, Row, train
    from vmunet.training.losses import training_loss
    from vmunet.training.processor import use_processor
    from vmunet.training.step import is_out_of_memory
    from vmunet.weights.checkpoints import save_checkpoint

    cell, protocol = params.cell(run.cell), PROTOCOLS[run.protocol]
    settings = cell.settings(task.settings)
    micro_batch = micro_batch_of(settings)
    dataset = params.view(run.view).dataset
    facts = {
        "run": asdict(run)
        | {"profile": params.profile_name, "dataset": dataset, "size": task.size},
        "cell": cell.model_dump(exclude_none=True),
        "train": asdict(settings),
        "protocol": asdict(protocol),
        "micro_batch": micro_batch,
    }
    hashes = hash_inputs(task, cell)
    use_processor(params.profile.threads)
    machine = {"device": device_name(device), "threads": torch.get_num_threads()}
    key = hash_json([facts, hashes, machine, versions()])[:32]
    state = RESUME / f"{key}.pt"
    finished = state.with_suffix(".done")
    if group.leads:
        with suppress(OSError):  # resume points cannot be written: `train` says so
            if finished.exists():
                finished.rename(state)
            forget_finished()
    group.wait()

    torch.manual_seed(run.seed)
    model, filled = make_model(cell, task)
    train_images, selection_images = task.datasets()
    tracker: RunTracker | None = None
    provenance = hashes | machine | {"git": git_revision(), "dvc_lock": lock_hash()}
    identity: dict[str, Any] = {"mlflow_key": key}
    resumed_from = 0

    def on_start(progress: Progress) -> None:
        nonlocal tracker, resumed_from
        if not group.leads:
            return
        resumed_from = progress.epoch
        identity["started"] = milliseconds() - round(1000 * progress.seconds)
        header = header_of(facts | provenance | identity, tables_of(run, params))
        tracker = RunTracker(header, progress.history, gpu_gauge(device))

    def on_epoch(row: Row) -> None:
        if tracker is not None:
            tracker.log_epoch(row)

    try:
        progress = train(
            model,
            train_images,
            selection_images,
            training_loss(task.classes, protocol.loss_input, cell.weights),
            settings,
            protocol,
            run.seed,
            device,
            state,
            on_start,
            on_epoch,
            label=run.name,
            micro_batch=micro_batch,
            selection_loss=training_loss(task.classes, protocol.loss_input),
            seconds=seconds,
            group=group,
        )
        if not group.leads:
            return
        if progress.epoch < settings.epochs:
            raise TimeOverError(
                f"{run.name}: {seconds:g} seconds are over after {progress.epoch} of "
                f"{settings.epochs} epochs; start it again to go on from there"
            )
        assert tracker is not None
        record: dict[str, Any] = {
            **facts,
            **provenance,
            "epoch": progress.best_epoch,
            "selection_loss": progress.best_loss,
            "resumed_from": resumed_from,
            "selection_images": 0 if selection_images is None else len(selection_images),
            "train_images": len(train_images),
            "filled": filled,
            "parameters": sum(p.numel() for p in model.parameters()),
            "mlflow_run_id": tracker.opened(FINISH_SECONDS),
            **identity,
            "versions": versions(),
            "seconds": round(progress.seconds, 1),
            "seconds_of": {part: round(value, 1) for part, value in progress.parts.items()},
            "step": {"kind": progress.step, "seconds": progress.step_seconds},
        }
        if hash_inputs(task, cell) != hashes:
            # DVC would record the present dependencies; these weights are of the old ones.
            raise InputError(f"{run.name}: sources or data changed while it trained; run it again")
        model.load_state_dict(progress.best_weights)
        with whole_folder(run.folder) as part:
            save_checkpoint(
                part / "weights.safetensors",
                model,
                task.metadata
                | {
                    "size": task.size,
                    "run": run.name,
                    "protocol": run.protocol,
                    "epoch": progress.best_epoch,
                },
            )
            write_history(part / "history.csv", progress.history)
            write_json(part / "run.json", record)
        with suppress(OSError):  # no resume point could be written
            state.rename(finished)
    except BaseException as error:
        if tracker is not None:
            is_stopped = isinstance(error, KeyboardInterrupt | TimeOverError)
            tracker.finish("KILLED" if is_stopped else "FAILED")
        if is_out_of_memory(error):
            raise OutOfMemoryError(no_memory(run, micro_batch or settings.batch_size)) from error
        raise
    tracker.finish()
    print(
        f"{run.name}: {progress.epoch} epochs in {progress.seconds:.0f} s, weights of epoch "
        f"{progress.best_epoch}; losses in {run.folder / 'history.csv'}"
    )


def micro_batch_of(settings: TrainSettings) -> int | None:
    """The number of samples of a batch to process at once; None if the variable is not set.

    Raises:
        InputError: the value is not a whole number from 1 to below the batch size.
    """
    text = os.environ.get(MICRO_BATCH, "")
    if not text or settings.batch_size == 1:  # a batch of one patch cannot be split
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) < settings.batch_size):
        raise InputError(
            f"{MICRO_BATCH}={text}: expected a whole number from 1 to "
            f"{settings.batch_size - 1}, below the batch size; leave it unset for whole batches"
        )
    return int(text)


def no_memory(run: Run, at_once: int) -> str:
    """The message of a run that is out of memory, with a remedy, in one line."""
    if at_once == 1:
        return f"{run.name}: out of memory with one sample at once; it needs a smaller model"
    return (
        f"{run.name}: out of memory with {at_once} samples at once; start it again with "
        f"{MICRO_BATCH}={at_once // 2}, which adds up the gradients of smaller parts"
    )


def lock_hash() -> str:
    """SHA-256 of dvc.lock when the run starts; '' if there is no file yet."""
    lock = Path("dvc.lock")
    return hash_files([lock]) if lock.is_file() else ""


def gpu_gauge(device: Any) -> Callable[[], dict[str, float]] | None:
    """A function that measures the memory of the run's GPU, for MLflow's system metrics."""
    import torch

    if device.type != "cuda":
        return None

    def gauge() -> dict[str, float]:
        free, total = torch.cuda.mem_get_info(device)
        return {
            "gpu_0_memory_usage_megabytes": (total - free) / 1e6,
            "gpu_0_memory_usage_percentage": 100 * (1 - free / total),
        }

    return gauge


def hash_inputs(task: Task, cell: Cell) -> dict[str, str]:
    """SHA-256 of the inputs of a run: its arrays, its initial weights, this project's code."""
    weights = initial_files(cell).values()
    return {
        "data_hash": hash_files([task.arrays]),
        "weights_hash": hash_files(weights) if weights else "",
        "code_hash": hash_json([fingerprint(code) for code in (task.script, file_of(cell.model))]),
    }


def make_model(cell: Cell, task: Task) -> tuple[Any, dict[str, int]]:
    """The cell's model for the task with its initial weights; see `initial_model`."""
    brightest = 255.0 if task.metadata["normalisation"] == "minmax" else 1.0  # of CT slices
    settings = cell.settings(task.settings)
    return initial_model(cell, task.classes, settings, task.size, brightest)


def forget_finished() -> None:
    """Remove resume states of runs that ended so long ago that DVC has recorded them.

    The state of a run that has just ended is kept for a while. If DVC is killed before it records
    the outputs, the next `dvc repro` deletes them, and this state restores them without training.
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
