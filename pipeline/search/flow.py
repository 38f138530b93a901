"""The search as a Prefect flow: a task for each trial."""

import os
from collections.abc import Mapping
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from pipeline.commands.sweep import say as tell
from pipeline.search.run import carry_out
from pipeline.sweep.flow import Tasks


class SearchError(Exception):
    """No trial came to its end: the flow's state says so."""


def run_name() -> str:
    asked = flow_run.parameters
    return asked.get("study") or f"{asked['view']}-{asked['cell']}-{asked['protocol']}"


@flow(name="search", flow_run_name=run_name)
def search(
    view: str,
    cell: str = "base",
    protocol: str = "sound",
    trials: int = 20,
    parallel: int | None = None,
    epochs: int | None = None,
    study: str | None = None,
    timeout: float | None = None,
    gpus: str = "all",
) -> None:
    """Search settings of a cell: `vmunet search --help` says more of each parameter.

    Raises:
        SearchError: no trial came to its end.
        InputError: a parameter, params.yaml or the study has a mistake.
    """
    options = {
        "view": view,
        "cell": cell,
        "protocol": protocol,
        "trials": trials,
        "parallel": parallel,
        "epochs": epochs,
        "study": study,
        "timeout": timeout,
        "gpus": gpus,
    }
    logger = get_run_logger()
    os.environ["VMUNET_SWEEP_PAGE"] = str(flow_run.ui_url or "")

    def say(line: str) -> None:
        tell(line)
        logger.info(line)

    if carry_out(options, say, Tasks):
        raise SearchError("no trial came to its end: this run's log says why")


def watched(options: Mapping[str, Any]) -> bool:
    """Run the flow; whether no trial came to its end."""
    try:
        search(**options)
    except SearchError:
        return True
    return False
