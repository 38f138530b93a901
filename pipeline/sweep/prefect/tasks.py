"""The stages of a sweep, or the trials of a search, as Prefect's tasks in threads of this process.

Prefect starts the tasks, tries them again and shows them. DVC decides what is up to date.
"""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import wraps
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import Flow, Task, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed, Running
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff
from prefect.utilities.engine import emit_task_run_state_change_event

from pipeline.passwords import without_password
from pipeline.sweep.console import Say, say
from pipeline.sweep.plan import Sweep
from pipeline.sweep.prefect.ends import Cancel, claim, close_dead_flows
from pipeline.sweep.prefect.page import FlowPage
from pipeline.sweep.prefect.server import still_there
from pipeline.sweep.selection import CELL
from pipeline.sweep.stage_runner import StageError
from pipeline.sweep.threads import FIRST_DELAY, Job, Threads
from pipeline.tracking.sweeps import PAGE
from vmunet.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class IncompleteError(Exception):
    """Stages or trials did not end well; it makes the flow's state `Failed`."""


def start_flow() -> Say:
    """Call this in a flow: MLflow's runs then name its page. Returns the function to log lines.

    Runs of processes that have died since are ended on the page.
    """
    os.environ[PAGE] = without_password(str(flow_run.ui_url or ""))
    with suppress(Exception):  # the page only
        claim(UUID(str(flow_run.id)))
        close_dead_flows()
    logger = get_run_logger()

    def say_in_both(line: str, passing: bool = False) -> None:
        say(line, passing)
        logger.info(line)

    return say_in_both


def watch(flow: Flow[..., None], options: "DataclassInstance") -> bool | None:
    """Run a flow for a person at a terminal; return whether it was incomplete.

    If Prefect cannot start it, as when its store cannot be written, this warns and returns None.

    Args:
        flow: its parameters are the options' fields; it may raise an IncompleteError.
        options: the options of the sweep or the search.

    Raises:
        InputError: an option, params.yaml or dvc.yaml has a mistake.
    """
    results: list[bool] = []  # Prefect may fail after the flow's function has ended
    cancel = Cancel()

    @wraps(flow.fn)
    def with_result(*values: Any, **more: Any) -> None:
        with cancel.watched(UUID(str(flow_run.id))):
            try:
                flow.fn(*values, **more)
            except IncompleteError:
                results.append(True)
                raise
            results.append(False)

    watched = Flow(with_result, name=flow.name, flow_run_name=flow.flow_run_name)
    try:
        watched(**asdict(options))
    except IncompleteError:
        pass
    except InputError:
        raise
    except (KeyboardInterrupt, TerminationSignal):
        if cancel.wanted:
            say("cancelled on Prefect's page")
            cancel.confirm()
        raise KeyboardInterrupt from None
    except Exception as error:
        why = without_password(" ".join(str(error).split())[:200])
        if cancel.run is None:
            say(f"warning: Prefect cannot start this: going on without it ({why})")
            return None
        if not results:
            raise
        say(f"warning: Prefect's page is not complete ({why})")
    if not still_there():
        # Every result is recorded and no command runs. Prefect would try for minutes to send the
        # remaining events to the server, 7 s for each, before this process could end.
        say("warning: Prefect's server no longer answers: its page is not complete")
        sys.stdout.flush()
        os._exit(1 if results[0] else 0)
    return results[0]


class PrefectTasks:
    """Runs jobs as Prefect's tasks.

    Args:
        width: the number of jobs at once.
        retries: the number of further attempts for a job that fails.
    """

    def __init__(self, width: int, retries: int) -> None:
        self._runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=width)
        self._runner.__enter__()
        self._threads = Threads(width, retries)
        self._retries = retries
        self._page: FlowPage | None = None

    def submit(self, name: str, job: Job, done: Callable[[], None]) -> None:
        began = threading.Event()
        sweep = self._page.sweep if self._page else None
        tags = tags_of(name, sweep)

        def task() -> Any:
            began.set()
            tag_this_run(tags)
            logger = get_run_logger()
            try:
                outcome = job()
            except StageError as error:
                known = sweep.outcomes.get(name) if sweep else None
                logger.error("%s", "\n".join([str(error), *(known.lines if known else ())]))
                raise
            if outcome.loss is not None:
                logger.info("epoch %s, loss %.4f", outcome.epoch, outcome.loss)
            return Completed(name="Completed" if outcome.state == "done" else outcome.state.title())

        def ended(_: Any) -> None:
            if began.is_set():
                done()
            else:  # Prefect could not start it (has its server stopped?): run it without Prefect
                self._threads.submit(name, job, done)

        run = Task(
            task,
            name=name,
            task_run_name=name,
            retries=self._retries,
            retry_delay_seconds=exponential_backoff(FIRST_DELAY),
            retry_condition_fn=may_try_again,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        self._runner.submit(run, parameters={}).add_done_callback(ended)

    def show(self, sweep: Sweep) -> None:
        if self._page is None:
            self._page = FlowPage(sweep)
        self._page.update()

    def shut_down(self) -> None:
        self._runner.__exit__(None, None, None)
        self._threads.shut_down()
        if self._page is not None:
            self._page.finish()


def may_try_again(task: Any, run: Any, state: Any) -> bool:
    """Whether a second attempt may end differently than the first."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, StageError) and error.final)


def tag_this_run(tags: set[str]) -> None:
    """Tag the task run that calls this.

    If a task has tags when it is submitted, Prefect asks the server before the start whether each
    tag's limit allows it. That takes longer (0.3 to 0.8 s) than all other work of Prefect for a
    stage.
    """
    run = TaskRunContext.get()
    if run is not None and run.task_run.state is not None:
        run.task_run.tags = sorted(tags)
        # The server gets the tags together with a state; this state sends them at once.
        emit_task_run_state_change_event(run.task_run, run.task_run.state, Running())


def tags_of(name: str, sweep: Sweep | None) -> set[str]:
    """The dataset, and the tables that show the run."""
    match = CELL.fullmatch(name)
    view = match["run"] if match else name.partition("@")[2]
    tags = {view.partition("-")[0]} if view else set()
    shown = sweep.selection.shown.get(view, ()) if sweep and match else ()
    return tags | {f"table {key}" for key in shown}
