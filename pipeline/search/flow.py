"""The search as a Prefect flow: a task for each trial."""

from prefect import flow
from prefect.runtime import flow_run

from pipeline.config.strict import ProtocolName
from pipeline.search.execution import run_search
from pipeline.search.options import SearchOptions
from pipeline.sweep.prefect.tasks import IncompleteError, PrefectTasks, start_flow


def run_name() -> str:
    return SearchOptions(**flow_run.parameters).study_name


@flow(name="search", flow_run_name=run_name)
def search(
    view: str,
    cell: str = SearchOptions.cell,
    protocol: ProtocolName = SearchOptions.protocol,
    trials: int = SearchOptions.trials,
    parallel: int | None = SearchOptions.parallel,
    epochs: int | None = SearchOptions.epochs,
    study: str | None = SearchOptions.study,
    timeout: float | None = SearchOptions.timeout,
    gpus: str = SearchOptions.gpus,
) -> None:
    """Search settings of a cell; `vmunet search --help` explains each parameter.

    Raises:
        IncompleteError: no trial ended well.
        InputError: a parameter, params.yaml or the study has a mistake.
    """
    options = SearchOptions(view, cell, protocol, trials, parallel, epochs, study, timeout, gpus)
    if run_search(options, start_flow(), PrefectTasks):
        raise IncompleteError("no trial ended well: this run's log says why")
