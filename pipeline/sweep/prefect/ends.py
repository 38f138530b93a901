"""How a flow's run ends besides by its own result: it is cancelled on Prefect's page, or killed.

A flow that a terminal runs has nobody but its own process to notice the page's Cancel, and nobody
to notice the end of that process.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.states import Cancelled, Crashed

from pipeline.owners import is_dead, owner

AT_ONCE = 200  # the most runs that a server returns
LOOK_SECONDS = 1.0
OPEN = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
STOP = (StateType.CANCELLING, StateType.CANCELLED)


def claim(run: UUID) -> None:
    """Note at a flow's run which process it belongs to."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(run, dict(owner()))


def close_dead_flows() -> int:
    """End the open runs of this machine's dead processes; return their number.

    One that somebody wanted to cancel becomes Cancelled, the others Crashed; so do their tasks.
    """
    closed = 0
    of_state = FlowRunFilterState(type=FlowRunFilterStateType(any_=OPEN))
    with get_client(sync_client=True) as client:
        newest = FlowRunSort.START_TIME_DESC  # the server refuses a request without an order
        wanted = FlowRunFilter(state=of_state)
        for run in client.read_flow_runs(flow_run_filter=wanted, sort=newest, limit=AT_ONCE):
            if is_dead({name: str(value) for name, value in run.labels.items()}):
                cancelled = run.state_type is StateType.CANCELLING
                end = cancelled_state() if cancelled else Crashed(message="its process has ended")
                _end(client, run.id, end)
                closed += 1
    return closed


def _end(client: SyncPrefectClient, run: UUID, state: "State[None]") -> None:
    open_tasks = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=OPEN)))
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    newest = TaskRunSort.ID_DESC
    for task in client.read_task_runs(
        flow_run_filter=of_run, task_run_filter=open_tasks, sort=newest, limit=AT_ONCE
    ):
        client.set_task_run_state(task.id, state, force=True)
    client.set_flow_run_state(run, state, force=True)


def cancelled_state() -> "State[None]":
    """The state after the page's Cancel."""
    return Cancelled(message="cancelled on Prefect's page")


class Cancel:
    """The page's Cancel, which ends a flow in this process's main thread as SIGTERM does.

    Attributes:
        run: the flow's run; None before it begins.
        wanted: whether somebody cancelled it.
    """

    def __init__(self) -> None:
        self.run: UUID | None = None
        self.wanted = False

    @contextmanager
    def watched(self, run: UUID) -> Iterator[None]:
        """Look every second whether the run is cancelled, until the block ends."""
        self.run, over = run, threading.Event()

        def look() -> None:
            with suppress(Exception), get_client(sync_client=True) as client:
                while not over.wait(LOOK_SECONDS):
                    with suppress(Exception):  # a server that is away cancels nothing
                        if client.read_flow_run(run).state_type not in STOP or over.is_set():
                            continue
                        self.wanted = True
                        signal.pthread_kill(main, signal.SIGTERM)
                        return

        main = threading.get_ident()
        thread = threading.Thread(target=look, name="cancel", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()

    def confirm(self) -> None:
        """Tell the server that the cancelled run has ended."""
        if self.wanted and self.run is not None:
            with suppress(Exception), get_client(sync_client=True) as client:
                _end(client, self.run, cancelled_state())
