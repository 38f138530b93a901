"""The sweep as a Prefect flow: a task for each stage, named as DVC names it.

A person can watch the sweep: the flow's page lists the cells by name, with tags for dataset and
tables, and has three artifacts: the table of cells, the progress, and finally the paper's tables.
"""

from contextlib import suppress
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from pipeline.config.yaml_file import read_yaml
from pipeline.sweep.execution import run_sweep
from pipeline.sweep.options import SweepOptions
from pipeline.sweep.prefect.tasks import IncompleteError, PrefectTasks, start_flow
from vmunet.errors import InputError


def run_name() -> str:
    """The name of the flow's run, such as `small: tables 3, 4`."""
    options = flow_run.parameters
    parts = [
        f"{name} {', '.join(map(str, options[name]))}"
        for name in ("tables", "cells", "seeds")
        if options.get(name)
    ]
    with suppress(InputError):
        return f"{read_yaml(Path('params.yaml')).get('profile')}: {'; '.join(parts) or 'all cells'}"
    return "; ".join(parts) or "all cells"


@flow(name="sweep", flow_run_name=run_name)
def sweep(
    tables: tuple[str, ...] = SweepOptions.tables,
    cells: tuple[str, ...] = SweepOptions.cells,
    seeds: tuple[int, ...] = SweepOptions.seeds,
    parallel: int | None = SweepOptions.parallel,
    gpus: str = SweepOptions.gpus,
    retries: int = SweepOptions.retries,
    runner: str = SweepOptions.runner,
    address: str = SweepOptions.address,
) -> None:
    """Run the stages that are not up to date; `vmunet sweep --help` explains each parameter.

    Raises:
        IncompleteError: a stage failed.
        InputError: a parameter, params.yaml or dvc.yaml has a mistake.
    """
    options = SweepOptions(tables, cells, seeds, parallel, gpus, retries, runner, address)
    if run_sweep(options, start_flow(), PrefectTasks):
        raise IncompleteError("some stages failed: the last lines of this run's log name them")


if __name__ == "__main__":
    sweep()
