"""MLflow: one run for every cell and seed, with parameters, per-epoch metrics and provenance.

`MLFLOW_TRACKING_URI` is honoured; without it, runs go to `mlflow.db` in the repository's root,
a SQLite store that is made once, under a lock. Only the client is used: no global active run.

Everything is sent from one thread of its own, so that importing MLflow and opening the store
(2 seconds) go on beside the first epoch, and a store that cannot be reached costs a warning and
never a result: runs/ and metrics/ are the record.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

STORE = Path("mlflow.db")
ARTIFACTS = Path("mlartifacts")


def client() -> "MlflowClient":
    """A client of the tracking store, which is made at the first call on a new clone."""
    for noisy in ("alembic", "mlflow.store.db.utils"):  # a new store reports each migration
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return MlflowClient(uri)
    if not STORE.exists():
        from filelock import FileLock

        # The first client of a store makes its tables: two at once, or a kill, would break it.
        with FileLock(f"{STORE}.lock"):
            if not STORE.exists():
                new = STORE.with_name(f"{STORE.name}.new")
                new.unlink(missing_ok=True)
                MlflowClient(f"sqlite:///{new.absolute()}")
                os.replace(new, STORE)
    return MlflowClient(f"sqlite:///{STORE.absolute()}")


def experiment_id(mlflow: "MlflowClient", name: str) -> str:
    """The experiment of this name, made when it is new."""
    from mlflow.exceptions import MlflowException

    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    location = ARTIFACTS.absolute().as_uri() if local else None
    try:
        return mlflow.create_experiment(name, artifact_location=location)
    except MlflowException:  # another process made it in between
        experiment = mlflow.get_experiment_by_name(name)
        if experiment is None:
            raise
        return experiment.experiment_id


class RunTracker:
    """The MLflow run of one training run.

    Args:
        experiment: experiment name: the profile's.
        name: the run's name.
        params: parameters, flat.
        tags: provenance: cell, dataset, protocol, hashes of data and code, revision.
        run_id: a run to continue, as a resumed training does; empty starts a new one.
    """

    def __init__(
        self,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        run_id: str = "",
    ) -> None:
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._sent: list[Future[Any]] = []
        self._send(self._open, experiment, params, tags, run_id)

    @property
    def run_id(self) -> str:
        """The MLflow run's id; empty until the store has answered, or where it never does."""
        opened = self._sent[0]
        return opened.result() if opened.done() and not opened.exception() else ""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of an epoch in one call."""
        now = milliseconds()

        def send() -> None:
            from mlflow.entities import Metric

            values = [Metric(key, value, now, step) for key, value in metrics.items()]
            self._mlflow.log_batch(self.run_id, metrics=values)

        self._send(send)

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run, FINISHED, FAILED or KILLED, and wait until all is sent."""
        self._send(lambda: self._mlflow.set_terminated(self.run_id, status))
        self._thread.shutdown()
        errors = [error for job in self._sent if (error := job.exception())]
        if errors:
            warn(self._name, errors[0])

    def _send(self, job: Callable[..., Any], *arguments: Any) -> None:
        """Queue a job; after one has failed no other is tried, for each may retry for minutes."""
        earlier = [sent for sent in self._sent if sent.done()]
        if not any(sent.exception() for sent in earlier):
            self._sent.append(self._thread.submit(job, *arguments))

    def _open(
        self, experiment: str, params: Mapping[str, Any], tags: Mapping[str, str], run_id: str
    ) -> str:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        self._mlflow = client()
        if run_id:
            try:
                self._mlflow.update_run(run_id, status="RUNNING")
                return run_id
            except MlflowException:
                pass  # the store that it was in is gone: log to a new run
        run = self._mlflow.create_run(
            experiment_id(self._mlflow, experiment), run_name=self._name, tags=dict(tags)
        )
        values = [Param(key, str(value)) for key, value in params.items()]
        self._mlflow.log_batch(run.info.run_id, params=values)
        return run.info.run_id


class FinalScores:
    """Adds final scores and files to the MLflow run that trained a checkpoint.

    Opens the store in the background when it is made; `log` sends and waits.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._client = self._thread.submit(client)

    def log(
        self, run_json: Mapping[str, Any], metrics: Mapping[str, Any], files: list[Path]
    ) -> None:
        """Scores are named `test/<set>/<score>`; `run_json` is the run's run.json."""
        scores = dict(numbers("test", {key: metrics[key] for key in ("paper", "sound")}))

        def send() -> None:
            from mlflow.entities import Metric

            now, epoch, run_id = milliseconds(), run_json["epoch"], run_json["mlflow_run_id"]
            mlflow = self._client.result()
            values = [Metric(key, value, now, epoch) for key, value in scores.items()]
            mlflow.log_batch(run_id, metrics=values)
            for file in files:
                mlflow.log_artifact(run_id, str(file))

        sent = self._thread.submit(send)
        self._thread.shutdown()
        if error := sent.exception():
            warn(run_json["mlflow_run_id"], error)


def numbers(name: str, content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Every number in nested mappings, under its path: `name/key/key`."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from numbers(f"{name}/{key}", value)
        elif isinstance(value, int | float):
            yield f"{name}/{key}", float(value)


def warn(name: str, error: BaseException) -> None:
    """Say that something was not logged, in one line."""
    reason = " ".join(str(error).split())[:300]
    print(f"warning: {name}: not all of it is in MLflow ({reason})", file=sys.stderr)


def milliseconds() -> int:
    """Now, as MLflow counts time."""
    return int(time.time() * 1000)
