"""MLflow: one run for every cell and seed, with parameters, per-epoch metrics and provenance.

`MLFLOW_TRACKING_URI` is honoured; without it, runs go to `mlflow.db` in the repository's root,
a SQLite store that is made once, under a lock. Only the client is used: no global active run.
"""

import logging
import os
import sys
import time
from collections.abc import Mapping
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
    uri = f"sqlite:///{STORE.absolute()}"
    if not STORE.exists():
        from filelock import FileLock

        # Two processes that migrate one new database at once break it.
        with FileLock(f"{STORE.absolute()}.lock"):
            MlflowClient(uri).search_experiments(max_results=1)
    return MlflowClient(uri)


def experiment_id(mlflow: "MlflowClient", name: str) -> str:
    """The experiment of this name, made when it is new."""
    from mlflow.exceptions import MlflowException

    experiment = mlflow.get_experiment_by_name(name)
    if experiment is not None:
        return experiment.experiment_id
    local = "MLFLOW_TRACKING_URI" not in os.environ
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
        from mlflow.entities import Param, RunTag
        from mlflow.exceptions import MlflowException

        self._mlflow = client()
        if run_id:
            try:
                self._mlflow.update_run(run_id, status="RUNNING")
                self.run_id = run_id
                return
            except MlflowException:
                pass  # the store it was in is gone: log to a new run
        run = self._mlflow.create_run(
            experiment_id(self._mlflow, experiment), run_name=name, tags=dict(tags)
        )
        self.run_id = run.info.run_id
        self._mlflow.log_batch(
            self.run_id,
            params=[Param(key, str(value)) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the metrics of an epoch in one call."""
        from mlflow.entities import Metric

        now = _milliseconds()
        self._mlflow.log_batch(
            self.run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()]
        )

    def finish(self, status: str = "FINISHED") -> None:
        """Close the run: FINISHED, FAILED or KILLED."""
        self._mlflow.set_terminated(self.run_id, status)


def log_final(run_json: Mapping[str, Any], metrics: Mapping[str, Any], files: list[Path]) -> None:
    """Add the final scores and files to the MLflow run that trained a checkpoint.

    Scores are named `test/<set>/<score>`. A store that cannot be reached costs a warning, not
    the evaluation: the metrics file is the record.
    """
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    run_id = run_json["mlflow_run_id"]
    sets = {
        "paper": metrics["paper"],
        "sound": metrics["sound"]["training_size"],
        "sound_native": metrics["sound"]["native_size"],
    }
    now = _milliseconds()
    scores = [
        Metric(f"test/{name}/{key}", float(value), now, run_json["epoch"])
        for name, values in sets.items()
        for key, value in values.items()
        if isinstance(value, int | float)
    ]
    try:
        mlflow = client()
        mlflow.log_batch(run_id, metrics=scores)
        for file in files:
            mlflow.log_artifact(run_id, str(file))
    except MlflowException as error:
        print(f"warning: scores not sent to MLflow run {run_id}: {error}", file=sys.stderr)


def _milliseconds() -> int:
    return int(time.time() * 1000)
