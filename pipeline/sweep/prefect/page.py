"""A sweep's artifacts on Prefect's page: the table of stages, the progress, the paper's tables.

If the server does not answer, the page lacks them, and the sweep continues.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from pipeline.sweep.plan import Sweep
from pipeline.sweep.prefect.server import mlflow_page, still_there

EVERY_SECONDS = 1.0
PAUSE_SECONDS = 60.0
TABLES = Path("reports/out/tables/index.md")


class FlowPage:
    """The artifacts of a flow's run: made soon after the first `update`, then updated after each.

    A separate thread sends them, at most once a second, so that no stage waits for the server.

    Args:
        sweep: the sweep that the page shows.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._cells: UUID | None = None
        self._progress: UUID | None = None
        self._reached = True
        self._news, self._closing = threading.Event(), threading.Event()
        # The flow's context holds the run to which the artifacts belong.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self._keep_sending,), name="artifacts", daemon=True
        )
        self._thread.start()

    def update(self) -> None:
        """Let the thread send the table of stages and the progress soon."""
        self._news.set()

    def finish(self) -> None:
        """Send the last state, and the tables if this sweep made them; wait until they are sent."""
        self._closing.set()
        self._news.set()
        self._thread.join()

    def _keep_sending(self) -> None:
        while not self._closing.is_set():
            self._news.wait()
            self._news.clear()
            self._reached = self._try(self._send)
            self._closing.wait(EVERY_SECONDS if self._reached else PAUSE_SECONDS)
        if self._reached or still_there():
            self._try(self._send_last)

    def _send_last(self) -> None:
        self._send()
        outcome, tables = self.sweep.outcomes.get("tables"), self.sweep.record.root / TABLES
        if outcome and outcome.state in ("done", "restored") and tables.is_file():
            text = tables.read_text(encoding="utf-8")
            id_of(create_markdown_artifact(text, "tables", "The tables"))

    def _send(self) -> None:
        percent = 100.0 * self.sweep.ended / max(1, len(self.sweep.needs))
        table = table_of_stages(self.sweep)
        if self._cells is None or self._progress is None:
            self._progress = id_of(
                create_progress_artifact(percent, "progress", "Stages that have ended")
            )
            self._cells = id_of(create_markdown_artifact(table, "cells", "The stages"))
            return
        update_progress_artifact(self._progress, percent)
        with get_client(sync_client=True) as client:
            client.update_artifact(self._cells, ArtifactUpdate(data=table))

    def _try(self, step: Callable[[], Any]) -> bool:
        try:
            step()
        except Exception as error:
            print(f"warning: not on Prefect's page: {' '.join(str(error).split())[:200]}")
            return False
        return True


def id_of(answer: Any) -> UUID:
    """An artifact's id; Prefect's functions have the types of functions that may be awaited."""
    assert not asyncio.iscoroutine(answer)
    return answer


def table_of_stages(sweep: Sweep) -> str:
    """A line for each stage that was started, in Markdown."""
    lines = [
        "| stage | state | epoch | loss | seconds | MLflow run |",
        "|---|---|---:|---:|---:|---|",
    ]
    for name in sweep.needs:
        outcome = sweep.outcomes.get(name)
        if outcome is None:
            continue
        state = outcome.state
        if outcome.reason:
            state += f": {' '.join(outcome.reason.split())[:100]}".replace("|", "\\|")
        epoch = "" if outcome.epoch is None else outcome.epoch
        loss = "" if outcome.loss is None else f"{outcome.loss:.4f}"
        seconds = f"{outcome.seconds:.1f}" if outcome.seconds else ""
        page, run = mlflow_page(outcome.mlflow_run_id), outcome.mlflow_run_id[:8]
        link = f"[{run}]({page})" if page else run
        lines.append(f"| {name} | {state} | {epoch} | {loss} | {seconds} | {link} |")
    waiting = len(sweep.needs) - len(sweep.outcomes)
    lines.append(f"\n{waiting} waiting, {sweep.up_to_date} up to date from the start")
    return "\n".join(lines)
