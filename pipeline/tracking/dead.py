"""Close the MLflow runs that dead processes left open: nothing else will ever end them."""

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from pipeline.owners import HOST, is_dead, machine
from pipeline.tracking.header import epochs_of
from pipeline.tracking.store import STORE, attempt, client, milliseconds

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

AT_ONCE = 100  # experiments that one search names


def close_dead_runs(mlflow: "MlflowClient") -> int:
    """Close the open runs of this machine's dead processes as KILLED; return their number.

    Runs of other machines stay as they are, and so do runs that name no process.
    """
    closed, where = 0, f"attributes.status = 'RUNNING' and tags.{HOST} = '{machine()}'"
    experiments = [one.experiment_id for one in mlflow.search_experiments()]
    for first in range(0, len(experiments), AT_ONCE):
        for run in mlflow.search_runs(experiments[first : first + AT_ONCE], where):
            if is_dead(run.data.tags):
                times = [metric.timestamp for metric in epochs_of(mlflow, run.info.run_id).values()]
                ended = max(times, default=milliseconds())
                mlflow.set_terminated(run.info.run_id, "KILLED", ended)
                closed += 1
    return closed


def try_to_close_dead_runs(mlflow: "MlflowClient") -> None:
    """The same, for a process whose own run is more important; the next one tries again."""
    with suppress(Exception):
        close_dead_runs(mlflow)


def close_dead_runs_if_any() -> None:
    """The same for the local store, without MLflow's import, which takes seconds, if none is open.

    If the store cannot be used, this warns. On a server the next training closes them.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI") and has_open_runs():
        attempt("MLflow", "runs of dead processes stay open", lambda: close_dead_runs(client()))


def has_open_runs() -> bool:
    """Whether the local store has a run that has not ended; False if it cannot be read."""
    if not STORE.is_file():
        return False
    try:
        with closing(sqlite3.connect(STORE, timeout=1)) as database:
            found = database.execute("SELECT 1 FROM runs WHERE status = 'RUNNING' LIMIT 1")
            return found.fetchone() is not None
    except sqlite3.Error:
        return False
