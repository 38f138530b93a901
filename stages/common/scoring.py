"""What scoring images and volumes have in common: the run that is scored, and metrics.json."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.runs import Run
from vmunet.drawing.sheets import images as contact_sheet
from vmunet.errors import InputError
from vmunet.evaluation import stored as stored_predictions
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
        InputError: it or the weights are not there, or it is not JSON.
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
        InputError: it is not there, or no table of numbers.
    """
    path = folder / "history.csv"
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) for row in rows] for name in rows[0]}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; train the run again") from None
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{path}: no table of numbers ({error}); train the run again") from None


def heading(
    run: Run, params: Params, data: dict[str, Any], provenance: dict[str, Any]
) -> dict[str, Any]:
    """What metrics.json says before the scores: the run, its data, its checkpoint."""
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
    """One line on a scored run, for its contact sheet.

    Args:
        run, params: what was scored, in which profile.
        data: its manifest.
        tests: how many test images or volumes there are; `thing` is one of them.
        mean: their mean Dice, None where no class is in truth or prediction.
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
    sheet: contact_sheet.Pixels,
    write_predictions: Callable[[Path], None],
) -> None:
    """Write the metrics folder whole: metrics.json, contact_sheet.png, predictions.npz, `table`.

    Args:
        folder: its place.
        metrics: of metrics.json.
        table: name of the CSV of `rows`.
        rows: one for each image or case, at least one.
        sheet: the picture.
        write_predictions: is given the path of predictions.npz.
    """
    with whole_folder(folder) as part:
        write_predictions(part / stored_predictions.NAME)
        contact_sheet.write(part / "contact_sheet.png", sheet)
        with (part / table).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        (part / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
