"""The sweep as a Prefect flow: a task for each stage, named as DVC names it.

Prefect starts the tasks, tries them again and shows them; what is up to date is DVC's to say. To
be watched: the flow's page lists the cells by name, with tags for dataset and tables, and holds
three artifacts: the table of cells, the progress, and the paper's tables at the end.
"""

import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.runtime import flow_run
from prefect.states import Completed, Running
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff
from prefect.utilities.engine import emit_task_run_state_change_event

from pipeline.commands.sweep import say as tell
from pipeline.config.params import read_yaml
from pipeline.sweep.artifacts import Artifacts
from pipeline.sweep.cells import CellError, Outcome
from pipeline.sweep.fan_out import FIRST_DELAY, Sweep, Threads
from pipeline.sweep.prefect_server import still_there
from pipeline.sweep.run import carry_out, check
from pipeline.sweep.selection import CELL
from vmunet.errors import InputError

verdicts: list[bool] = []  # whether a stage failed, of sweeps in this process


class SweepError(Exception):
    """Stages of a sweep failed: the flow's state says so."""


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
    tables: list[str] | None = None,
    cells: list[str] | None = None,
    seeds: list[int] | None = None,
    parallel: int | None = None,
    gpus: str = "all",
    retries: int = 2,
    runner: str = "local",
    address: str = "",
) -> None:
    """Run what is not up to date: `vmunet sweep --help` says more of each parameter.

    Raises:
        SweepError: a stage failed.
        InputError: a parameter, params.yaml or dvc.yaml has a mistake.
    """
    options = {
        "tables": tables or [],
        "cells": cells or [],
        "seeds": seeds or [],
        "parallel": parallel,
        "gpus": gpus,
        "retries": retries,
        "runner": runner,
        "address": address,
    }
    check(options)
    logger = get_run_logger()
    os.environ["VMUNET_SWEEP_PAGE"] = str(flow_run.ui_url or "")  # for the cells' MLflow runs

    def say(line: str) -> None:
        tell(line)
        logger.info(line)

    verdicts.append(carry_out(options, say, Tasks))
    if verdicts[-1]:
        raise SweepError("some stages failed: the last lines of this run's log name them")


def watched(options: Mapping[str, Any]) -> bool:
    """Run the flow for a person at a terminal; whether a stage failed.

    Raises:
        InputError: an option, params.yaml or dvc.yaml has a mistake.
    """
    verdicts.clear()
    try:
        sweep(**options)
    except SweepError:
        pass
    except InputError:
        raise
    except Exception as error:  # Prefect's own, when the stages had ended
        if not verdicts:
            raise
        tell(f"warning: Prefect's page is not complete ({' '.join(str(error).split())[:200]})")
    if not still_there():
        # All is recorded and no command runs. Prefect would try for minutes to send the events
        # that the server has not had, 7 s for each, before this process may end.
        tell("warning: Prefect's server does not answer any more: its page is not complete")
        sys.stdout.flush()
        os._exit(1 if verdicts[0] else 0)
    return verdicts[0]


class Tasks:
    """Runs jobs as Prefect tasks in threads of this process, as many at once as `width`."""

    def __init__(self, width: int, retries: int) -> None:
        self._runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=width)
        self._runner.__enter__()
        self._plain = Threads(width, retries)
        self._retries = retries
        self._artifacts = Artifacts()
        self._sweep: Sweep | None = None

    def submit(self, name: str, job: Callable[[], Outcome], done: Callable[[], None]) -> None:
        began = threading.Event()
        tags = tags_of(name, self._sweep)

        def stage() -> Any:
            began.set()
            tag_this_run(tags)
            logger = get_run_logger()
            try:
                outcome = job()
            except CellError as error:
                lines = self._lines(name)
                logger.error("%s", "\n".join([str(error), *lines]))
                raise
            if outcome.loss is not None:
                logger.info("epoch %s, loss %.4f", outcome.epoch, outcome.loss)
            return Completed(name="Completed" if outcome.state == "done" else outcome.state.title())

        def ended(_: Any) -> None:
            if began.is_set():
                done()
            else:  # Prefect could not start it (its server is gone?): the cell runs all the same
                self._plain.submit(name, job, done)

        task = Task(
            stage,
            name=name,
            task_run_name=name,
            retries=self._retries,
            retry_delay_seconds=exponential_backoff(FIRST_DELAY),
            retry_condition_fn=may_try_again,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        self._runner.submit(task, parameters={}).add_done_callback(ended)

    def show(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._artifacts.show(sweep)

    def shut_down(self) -> None:
        self._runner.__exit__(None, None, None)
        self._plain.shut_down()
        self._artifacts.finish()

    def _lines(self, name: str) -> tuple[str, ...]:
        outcome = self._sweep.outcomes.get(name) if self._sweep else None
        return outcome.lines if outcome else ()


def may_try_again(task: Any, run: Any, state: Any) -> bool:
    """Not where a second attempt could only end as the first."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, CellError) and error.final)


def tag_this_run(tags: set[str]) -> None:
    """Tag the task run that this is called from.

    A task that has tags when it is submitted asks the server for a place under each tag's limit
    before it starts, which takes longer (0.3 to 0.8 s) than all else that Prefect does for a cell.
    """
    run = TaskRunContext.get()
    if run is not None and run.task_run.state is not None:
        run.task_run.tags = sorted(tags)
        # the tags go to the server with a state: with this one at once, not at the end
        emit_task_run_state_change_event(run.task_run, run.task_run.state, Running())


def tags_of(name: str, sweep: Sweep | None) -> set[str]:
    """The dataset, and the tables that show the run."""
    match = CELL.fullmatch(name)
    view = match["run"] if match else name.partition("@")[2]
    tags = {view.partition("-")[0]} if view else set()
    shown = sweep.selection.shown.get(view, ()) if sweep and match else ()
    return tags | {f"table {key}" for key in shown}


if __name__ == "__main__":
    sweep()
