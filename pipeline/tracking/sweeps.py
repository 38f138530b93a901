"""The MLflow run of a sweep. It is the parent of its cells' runs; VMUNET_SWEEP has its id."""

import os
from collections.abc import Mapping

from pipeline.owners import owner
from pipeline.tracking.dead import try_to_close_dead_runs
from pipeline.tracking.store import attempt, client, experiment_id

VARIABLE = "VMUNET_SWEEP"
PAGE = "VMUNET_SWEEP_PAGE"  # the address of the sweep on Prefect's page
PARENT = "mlflow.parentRunId"


def start_sweep(experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Open a sweep's run and return its id; if the store cannot be reached, warn and return ''."""

    def work() -> str:
        mlflow = client()
        tags_of_all = {"kind": "sweep", **owner(), **tags}
        run = mlflow.create_run(experiment_id(mlflow, experiment), run_name=name, tags=tags_of_all)
        try_to_close_dead_runs(mlflow)
        return run.info.run_id

    return attempt(name, "the sweep has no run in MLflow", work) or ""


def end_sweep(run_id: str, status: str = "FINISHED") -> None:
    """Close a sweep's run: FINISHED, FAILED or KILLED. For the id '' this does nothing."""

    def work() -> None:
        mlflow = client()
        mlflow.set_terminated(run_id, status)
        try_to_close_dead_runs(mlflow)  # those of cells that were killed

    if run_id:
        attempt(run_id, "the sweep's run in MLflow stays open", work)


def page_tag() -> dict[str, str]:
    """The tag with the address of Prefect's page, if there is a page."""
    page = os.environ.get(PAGE, "")
    return {"prefect": page} if page else {}


def parent_tags() -> dict[str, str]:
    """The tags with a run's parent, the sweep's run, and with Prefect's page, if they exist."""
    parent = os.environ.get(VARIABLE, "")
    return page_tag() | ({PARENT: parent} if parent else {})
