"""Final scores, files and the model of a run that trained and was evaluated."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pipeline.tracking.models import model_entry, send_model
from pipeline.tracking.outbox import Entry, RunHeader
from pipeline.tracking.run import Ticket, header_of
from pipeline.tracking.sender import Sender

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class FinalScores:
    """Adds final scores, files and the model to the MLflow run that trained a checkpoint.

    Opens the store in the background when it is made, and sends what training could not; `log`
    sends and waits. A store that does not have the run gets it, with its epochs.

    Args:
        folder: of the trained run.
        record: its run.json.
        tables: those that show it.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any], tables: str) -> None:
        self._folder, self._record = folder, record
        self._sender = Sender(header_of_folder(folder, record, tables), SENDERS)

    def log(self, metrics: Mapping[str, Any], files: list[Path]) -> None:
        """Scores are named `test/<set>/<score>`."""
        for entry in final_entries(self._folder, self._record, metrics, files):
            self._sender.add(**entry)
        self._sender.finish()


def header_of_folder(folder: Path, record: Mapping[str, Any], tables: str) -> RunHeader:
    """The MLflow run of a trained run, with its epochs, as its folder tells them."""
    key = record.get("mlflow_key") or record["mlflow_run_id"] or record["code_hash"]
    ended = int(1000 * (folder / "run.json").stat().st_mtime)
    started = record.get("started") or ended - int(1000 * record["seconds"])
    ticket = Ticket(key, started, record["mlflow_run_id"])
    with open(folder / "history.csv", newline="") as file:
        history = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return header_of(record, ticket, tables, history, max(started, ended))


def final_entries(
    folder: Path, record: Mapping[str, Any], metrics: Mapping[str, Any], files: list[Path]
) -> Iterator[Entry]:
    """What an evaluated run's MLflow run gets: scores, files, the model."""
    scores = dict(numbers("test", {name: metrics[name] for name in ("paper", "sound")}))
    yield {"what": "metrics", "step": record["epoch"], "metrics": scores}
    for file in files:
        yield {"what": "file", "path": str(file.absolute())}
    model = model_entry(SimpleNamespace(**record["run"]), folder)
    if model:
        yield {"what": "model", **model}


def send_file(mlflow: "MlflowClient", run_id: str, entry: Entry) -> None:
    """Log a file, if it is still there."""
    if Path(entry["path"]).is_file():
        mlflow.log_artifact(run_id, entry["path"])


SENDERS: dict[str, Callable[..., None]] = {"file": send_file, "model": send_model}


def numbers(name: str, content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number in nested mappings, under its path: `name/key/key`."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from numbers(f"{name}/{key}", value)
        elif isinstance(value, int | float):
            yield f"{name}/{key}", float(value)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file's mapping, or None where it is not there or none."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
