"""The run of a sweep, the parent of its cells' runs: they find its id in VMUNET_SWEEP."""

import os
from collections.abc import Mapping

from pipeline.tracking.store import client, experiment_id, explain, warn

VARIABLE = "VMUNET_SWEEP"
PAGE = "VMUNET_SWEEP_PAGE"  # the address of the sweep on Prefect's page
PARENT = "mlflow.parentRunId"


def start_sweep(experiment: str, name: str, tags: Mapping[str, str]) -> str:
    """Open a sweep's run; its id, or '' with a warning where the store cannot be reached."""
    try:
        mlflow = client()
        run = mlflow.create_run(
            experiment_id(mlflow, experiment), run_name=name, tags={"kind": "sweep", **tags}
        )
        return run.info.run_id
    except Exception as error:  # a database's, a server's, the file system's
        warn(name, f"the sweep has no run in MLflow ({explain(error)})")
        return ""


def end_sweep(run_id: str, status: str = "FINISHED") -> None:
    """Close a sweep's run: FINISHED, FAILED or KILLED. Nothing happens for the id ''."""
    if not run_id:
        return
    try:
        client().set_terminated(run_id, status)
    except Exception as error:
        warn(run_id, f"the sweep's run in MLflow stays open ({explain(error)})")


def page_tag() -> dict[str, str]:
    """The tag that leads to Prefect's page, where there is one."""
    page = os.environ.get(PAGE, "")
    return {"prefect": page} if page else {}


def parent_tags() -> dict[str, str]:
    """The tags that put a run beneath its sweep's and lead to Prefect's page, where it has them."""
    parent = os.environ.get(VARIABLE, "")
    return page_tag() | ({PARENT: parent} if parent else {})
