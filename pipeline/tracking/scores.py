"""Log the final scores, files and model of a run that was trained and evaluated."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.tracking.header import (
    create_run,
    describe_run,
    epochs_of,
    find_run,
    header_of,
    log_metrics,
)
from pipeline.tracking.models import log_model
from pipeline.tracking.store import ATTEMPT_SECONDS, attempt, client, milliseconds
from reports.make.model_card import model_card

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CARD = "MODEL_CARD.md"
LATER = "`vmunet mlflow rebuild` logs them later"


def log_scores(
    folder: Path,
    record: Mapping[str, Any],
    tables: str,
    metrics: Mapping[str, Any],
    files: Sequence[Path],
    weights_source: str,
) -> None:
    """Add final scores, files, card and model to the MLflow run that trained a checkpoint.

    If the store lacks the run or a part of it, this adds it. If the store fails, this warns.

    Args:
        folder: the folder of the trained run.
        record: the content of its run.json.
        tables: the numerals of the tables that show the run, as a tag.
        metrics: the content of metrics.json.
        files: files that are logged with the run.
        weights_source: the profile's source of initial weights, for the card.
    """

    def work() -> None:
        mlflow = client(round(ATTEMPT_SECONDS))  # a server may take long over a model
        run_id, _ = complete(mlflow, folder, record, tables, metrics)
        for file in files:
            mlflow.log_artifact(run_id, str(file))
        # The card is logged here, because its own stage would need seconds to import MLflow.
        mlflow.log_text(run_id, model_card(metrics, record, weights_source), CARD)
        log_model(mlflow, run_id, record["run"], folder)

    attempt(folder.as_posix(), f"not all scores, files and the model are in MLflow, {LATER}", work)


def complete(
    mlflow: "MlflowClient",
    folder: Path,
    record: Mapping[str, Any],
    tables: str,
    metrics: Mapping[str, Any] | None,
) -> tuple[str, bool]:
    """Add the epochs, scores, status and tags that a trained run's MLflow run lacks.

    Scores are named `test/<set>/<score>`.

    Returns:
        The MLflow run's id, and whether anything was missing.
    """
    from mlflow.entities import Metric

    header = header_of(record, tables)
    run = find_run(mlflow, header)
    if run is None:
        run = create_run(mlflow, replace(header, tags={**header.tags, "rebuilt": "true"}))
    run_id = run.info.run_id
    changed = describe_run(mlflow, run, header)

    logged = epochs_of(mlflow, run_id)
    ended = record["started"] + round(1000 * record["seconds"])
    ended = max([ended, *(metric.timestamp for metric in logged.values())])
    with open(folder / "history.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["epoch"]) not in logged]
    missing = [
        Metric(name, float(value), ended, int(row["epoch"]))
        for row in rows
        for name, value in row.items()
        if name != "epoch"
    ]
    scores = {name: metrics[name] for name in ("paper", "sound")} if metrics else {}
    missing += [
        Metric(name, value, milliseconds(), record["epoch"])
        for name, value in numbers("test", scores)
        if run.data.metrics.get(name) != value
    ]
    log_metrics(mlflow, run_id, missing)
    if run.info.status != "FINISHED":
        mlflow.set_terminated(run_id, "FINISHED", ended)
    return run_id, changed or bool(missing) or run.info.status != "FINISHED"


def numbers(name: str, content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number in nested mappings, with its path: `name/key/key`."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from numbers(f"{name}/{key}", value)
        elif isinstance(value, int | float):
            yield f"{name}/{key}", float(value)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file's mapping, or None if it is missing or holds no mapping."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
