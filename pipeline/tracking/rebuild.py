"""What waits is sent, and a store that was lost is made again from runs/ and metrics/."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.config.params import Params
from pipeline.config.runs import OwnRun, Run, own_names
from pipeline.tracking.outbox import OUTBOX, Outbox, find_run
from pipeline.tracking.scores import SENDERS, final_entries, header_of_folder, read_json
from pipeline.tracking.store import client, experiment_id, explain, milliseconds
from pipeline.tracking.table_names import tables_of
from vmunet.errors import InputError


class Done(NamedTuple):
    """Runs whose outbox was emptied, or that were made; those that were not; warnings."""

    sent: int
    left: int
    notes: list[str]


def sync() -> Done:
    """Send what waits in the outbox.

    Raises:
        InputError: the store cannot be reached.
    """
    from filelock import FileLock, Timeout

    sent, notes, busy = 0, [], 0
    waiting = sorted(OUTBOX.glob("*.jsonl"))
    if not waiting:
        return Done(0, 0, [])
    mlflow = _client()
    for path in waiting:
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                pass
        except Timeout:  # its own process sends it
            busy += 1
            continue
        box = Outbox(path)
        try:
            box.send(mlflow, SENDERS)
            sent += 1
        except Exception as error:
            raise InputError(
                f"{path.name}: MLflow did not take it, it is kept ({explain(error)})"
            ) from None
        finally:
            box.close()
        notes += [f"{path.stem}: refused ({explain(error)})" for error in box.refused]
    return Done(sent, busy, notes)


def rebuild(params: Params) -> Done:
    """Make the MLflow runs of all run folders that the store does not have.

    Raises:
        InputError: the store cannot be reached.
    """
    made = there = 0
    notes: list[str] = []
    mlflow = _client()
    for run in runs_on_disk():
        record = read_json(run.folder / "run.json")
        if record is None or not (run.folder / "history.csv").is_file():
            notes.append(f"{run.folder}: left out, it has no run.json or history.csv")
            continue
        header = header_of_folder(run.folder, record, tables_of(run, params))
        header.tags["rebuilt"] = "true"  # type: ignore[index]
        try:
            if find_run(mlflow, experiment_id(mlflow, header.experiment), header):
                there += 1
                continue
            box = Outbox.of(header)
            scores, files = _scores(run, header.experiment, record["mlflow_run_id"])
            for entry in final_entries(run.folder, record, scores, files):
                box.append({"time": milliseconds(), **entry})
            try:
                box.send(mlflow, SENDERS)
            finally:
                box.close()
        except Exception as error:
            raise InputError(f"{run.name}: not rebuilt ({explain(error)})") from None
        made += 1
    return Done(made, there, notes)


def runs_on_disk(root: Path = Path("runs")) -> Iterator[Run]:
    """Every run that has a folder."""
    own = own_names()
    for path in sorted(root.glob("*/*/*/*")):
        view, cell, protocol, seed = path.relative_to(root).parts
        if path.is_dir() and seed.isdigit():
            yield (OwnRun if view in own else Run)(view, cell, protocol, int(seed))


def _scores(run: Run, profile: str, run_id: str) -> tuple[dict, list[Path]]:
    """The run's scores and contact sheet; none where they are another run's."""
    folder = run.metrics_folder(profile)
    metrics = read_json(folder / "metrics.json")
    if metrics is None or metrics["checkpoint"]["mlflow_run_id"] != run_id:
        return {"paper": {}, "sound": {}}, []
    return metrics, [folder / "contact_sheet.png"]


def _client():
    try:
        return client()
    except Exception as error:
        raise InputError(f"MLflow cannot be reached ({explain(error)})") from None
