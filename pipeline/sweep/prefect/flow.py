"""The sweep as a Prefect flow: a task for each stage, named as DVC names it.

To be watched: the flow's page lists the cells by name, with tags for dataset and tables, and holds
three artifacts: the table of cells, the progress, and the paper's tables at the end.
"""

from contextlib import suppress
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from pipeline.config.params import read_yaml
from pipeline.sweep.execution import run_sweep
from pipeline.sweep.options import SweepOptions
from pipeline.sweep.prefect.tasks import IncompleteError, PrefectTasks, start_flow
from vmunet.errors import InputError


def run_name() -> str:
    """Such as `small: tables 3, 4`."""
    asked = flow_run.parameters
    parts = [
        f"{name} {', '.join(map(str, asked[name]))}"
        for name in ("tables", "cells", "seeds")
        if asked.get(name)
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
    """Run what is not up to date: `vmunet sweep --help` says more of each parameter.

    Raises:
        IncompleteError: a stage failed.
        InputError: a parameter, params.yaml or dvc.yaml has a mistake.
    """
    options = SweepOptions(tables, cells, seeds, parallel, gpus, retries, runner, address)
    if run_sweep(options, start_flow(), PrefectTasks):
        raise IncompleteError("some stages failed: the last lines of this run's log name them")


if __name__ == "__main__":
    sweep()
