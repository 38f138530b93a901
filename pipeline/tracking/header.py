"""The description of an MLflow run, and the search for it by the tag `key`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

KEY = "key"
METRICS_AT_ONCE = 1000  # the most that MLflow accepts in one call
SECTIONS = ("cell", "train", "protocol")  # of run.json: they become parameters
TAGS = ("data_hash", "weights_hash", "code_hash", "git", "dvc_lock", "device", "micro_batch")


@dataclass(frozen=True)
class RunHeader:
    """The description of an MLflow run.

    Attributes:
        experiment: the experiment's name, which is the profile's.
        name: the run's name.
        key: identifies the run in every store.
        started: the time of the start, ms.
        params: parameters, not nested.
        tags: provenance.
    """

    experiment: str
    name: str
    key: str
    started: int
    params: Mapping[str, Any]
    tags: Mapping[str, str]


def header_of(record: Mapping[str, Any], tables: str) -> RunHeader:
    """The description of the MLflow run of a training.

    Args:
        record: the content of run.json, or the part that is known when training starts.
        tables: the numerals of the tables that show the run, as a tag.
    """
    run = record["run"]
    tags = {**run, **{name: record.get(name) for name in TAGS}, "tables": tables}
    tags["model"] = record["cell"].get("model")
    return RunHeader(
        experiment=run["profile"],
        name=f"{run['view']}-{run['cell']}-{run['protocol']}-{run['seed']}",
        key=record["mlflow_key"],
        started=record["started"],
        params={f"{s}.{k}": v for s in SECTIONS for k, v in record[s].items()},
        tags={name: str(value) for name, value in tags.items() if value not in (None, "")},
    )


def find_run(mlflow: "MlflowClient", header: RunHeader, run_id: str = "") -> "Run | None":
    """The newest run with this key, or the run with this id; None if the store has none."""
    where = f"attributes.run_id = '{run_id}'" if run_id else f"tags.{KEY} = '{header.key}'"
    experiment = experiment_id(mlflow, header.experiment)
    newest = ["attributes.start_time DESC"]
    runs = mlflow.search_runs([experiment], where, max_results=1, order_by=newest)
    return runs[0] if runs else None


def create_run(mlflow: "MlflowClient", header: RunHeader) -> "Run":
    """Create a run with this key."""
    experiment, tags = experiment_id(mlflow, header.experiment), {**header.tags, KEY: header.key}
    return mlflow.create_run(experiment, header.started, tags, header.name)


def describe_run(mlflow: "MlflowClient", run: "Run", header: RunHeader) -> bool:
    """Add the parameters and tags that a run lacks; return whether it lacked any."""
    from mlflow.entities import Param, RunTag

    has = run.data
    params = [Param(k, str(v)) for k, v in header.params.items() if k not in has.params]
    tags = [RunTag(k, v) for k, v in header.tags.items() if has.tags.get(k) != v]
    if params or tags:
        mlflow.log_batch(run.info.run_id, params=params, tags=tags)
    return bool(params or tags)


def epochs_of(mlflow: "MlflowClient", run_id: str) -> "dict[int, Metric]":
    """The training loss of each epoch that the store has for a run."""
    return {m.step: m for m in mlflow.get_metric_history(run_id, "train_loss")}


def log_metrics(mlflow: "MlflowClient", run_id: str, metrics: "Sequence[Metric]") -> None:
    """Log any number of metrics."""
    for first in range(0, len(metrics), METRICS_AT_ONCE):
        mlflow.log_batch(run_id, metrics=metrics[first : first + METRICS_AT_ONCE])
