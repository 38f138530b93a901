"""Add the runs and values of runs/ and metrics/ that the store lacks."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from pipeline.config.params import Params
from pipeline.config.runs import OwnRun, Run, own_names
from pipeline.config.strict import ProtocolName
from pipeline.tracking.dead import close_dead_runs
from pipeline.tracking.models import log_model
from pipeline.tracking.scores import complete, read_json
from pipeline.tracking.store import STORE, client, explain
from pipeline.tracking.table_names import tables_of
from vmunet.errors import InputError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

HTTP_SECONDS = 60  # a model of 110 MB may take long to send, and no training waits for it


class Rebuilt(NamedTuple):
    """The numbers of runs that were made or completed, that the store had, and that it closed.

    Attributes:
        logged, there: runs of runs/.
        notes: warnings.
        closed: runs that dead processes left open.
    """

    logged: int
    there: int
    notes: list[str]
    closed: int


def rebuild(params: Params) -> Rebuilt:
    """Make or complete the MLflow runs of all run folders.

    Raises:
        InputError: the store cannot be reached.
    """
    from filelock import FileLock

    logged = there = 0
    notes: list[str] = []
    mlflow = _store()
    with FileLock(f"{STORE}.lock"):  # two rebuilds at once would make each run twice
        for run in runs_on_disk():
            record = read_json(run.folder / "run.json")
            if record is None or not (run.folder / "history.csv").is_file():
                notes.append(f"{run.folder}: left out, it has no run.json or history.csv")
                continue
            try:
                if _rebuild_run(mlflow, run, record, tables_of(run, params)):
                    logged += 1
                else:
                    there += 1
            except Exception as error:
                _store()  # raises if the store no longer answers
                notes.append(f"{run.name}: not rebuilt ({explain(error)})")
        closed = close_dead_runs(mlflow)
    return Rebuilt(logged, there, notes, closed)


def runs_on_disk(root: Path = Path("runs")) -> Iterator[Run]:
    """Every run that has a folder."""
    own = own_names()
    for protocol in get_args(ProtocolName):
        for path in sorted(root.glob(f"*/*/{protocol}/*")):
            view, cell, _, seed = path.relative_to(root).parts
            if path.is_dir() and seed.isdigit():
                yield (OwnRun if view in own else Run)(view, cell, protocol, int(seed))


def _store() -> "MlflowClient":
    """A client of the store; the store has answered a first request."""
    try:
        mlflow = client(HTTP_SECONDS)
        mlflow.search_experiments(max_results=1)
        return mlflow
    except Exception as error:  # of a database, a server or the file system
        raise InputError(f"MLflow cannot be reached ({explain(error)})") from None


def _rebuild_run(mlflow: "MlflowClient", run: Run, record: dict[str, Any], tables: str) -> bool:
    """Make or complete a run; return whether the store lacked the run or a part of it."""
    folder = run.metrics_folder(record["run"]["profile"])
    metrics = read_json(folder / "metrics.json")
    same = ("started", "mlflow_run_id", "code_hash", "data_hash")
    if metrics and any(metrics["checkpoint"].get(name) != record.get(name) for name in same):
        metrics = None  # the scores of an earlier training
    run_id, changed = complete(mlflow, run.folder, record, tables, metrics)
    logged_files = {file.path for file in mlflow.list_artifacts(run_id)}
    files = [folder / "contact_sheet.png", run.card] if metrics else []
    missing_files = [file for file in files if file.is_file() and file.name not in logged_files]
    for file in missing_files:
        mlflow.log_artifact(run_id, str(file))
    added = log_model(mlflow, run_id, record["run"], run.folder)
    return changed or bool(missing_files) or added
