"""The common part of scoring images and volumes: read the run, write metrics.json."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.runs import Run
from vmunet.csv_cells import UnixLines, to_row
from vmunet.drawing.sheets.images import Pixels
from vmunet.drawing.sheets.images import write as write_sheet
from vmunet.errors import InputError
from vmunet.evaluation.stored import NAME as PREDICTIONS
from vmunet.files import whole_folder

FROM_RUN = (
    "epoch",
    "mlflow_run_id",
    "data_hash",
    "code_hash",
    "git",
    "micro_batch",
    "device",
    "threads",
    "started",
    "seconds",
    "versions",
)


def read_run(folder: Path) -> dict[str, Any]:
    """The run.json of a trained run.

    Raises:
        InputError: run.json or the weights are missing, or run.json is not JSON.
    """
    path = folder / "run.json"
    if not path.is_file() or not (folder / "weights.safetensors").is_file():
        raise InputError(
            f"{folder}: no trained run there (weights.safetensors and run.json); train it first "
            "with the train stage of the same name"
        )
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error}); train the run again") from None


def read_history(folder: Path) -> dict[str, list[float]]:
    """The columns of a run's history.csv: epoch, learning_rate, train_loss, selection_loss.

    Raises:
        InputError: the file is missing, or is not a table of numbers.
    """
    path = folder / "history.csv"
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in rows[0]}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; train the run again") from None
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{path}: not a table of numbers ({error}); train the run again") from None


def heading(
    run: Run, params: Params, data: dict[str, Any], provenance: dict[str, Any]
) -> dict[str, Any]:
    """The first part of metrics.json: the run, its data, its checkpoint."""
    view, weights = params.view(run.view), run.folder / "weights.safetensors"
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "run": {
            "profile": params.profile_name,
            "view": run.view,
            "dataset": view.dataset,
            "size": view.size,
            "cell": run.cell,
            "protocol": run.protocol,
            "seed": run.seed,
        },
        "data": data,
        "checkpoint": {
            "path": weights.as_posix(),
            "sha256": sha256,
            **{name: provenance.get(name) for name in FROM_RUN},
        },
    }


def headline(
    run: Run, params: Params, data: dict[str, Any], tests: int, thing: str, mean: float | None
) -> str:
    """The title of a scored run's contact sheet, in one line.

    Args:
        run, params: the scored run and its profile's parameters.
        data: the manifest of its arrays.
        tests: the number of test images or volumes.
        thing: the word for one of them, `image` or `volume`.
        mean: their mean Dice; None if no class is in truth or prediction.
    """
    return (
        f"{run.view} {run.cell} {run.protocol} seed {run.seed}   profile {params.profile_name}   "
        f"data: {data['source']}, {tests} test {thing}{'' if tests == 1 else 's'}   "
        f"mean Dice {'undefined' if mean is None else f'{mean:.3f}'}"
    )


def write_metrics(
    folder: Path,
    metrics: dict[str, Any],
    table: str,
    rows: list[dict[str, Any]],
    sheet: Pixels,
    write_predictions: Callable[[Path], None],
) -> None:
    """Write metrics.json, contact_sheet.png, predictions.npz and `table`, completely or not at all.

    Args:
        folder: the metrics folder.
        metrics: the content of metrics.json.
        table: the name of the CSV with `rows`.
        rows: a row for each image or case, at least one.
        sheet: the contact sheet's picture.
        write_predictions: is called with the path of predictions.npz.
    """
    with whole_folder(folder) as part:
        write_predictions(part / PREDICTIONS)
        write_sheet(part / "contact_sheet.png", sheet)
        with (part / table).open("w", newline="") as file:
            writer = csv.DictWriter(UnixLines(file), rows[0].keys())
            writer.writeheader()
            writer.writerows(map(to_row, rows))
        (part / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
