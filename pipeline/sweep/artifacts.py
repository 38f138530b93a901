"""What a sweep shows on Prefect's page: the table of cells, the progress, the paper's tables.

A server that does not answer costs the page and nothing else.
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

from pipeline.sweep.fan_out import Sweep
from pipeline.sweep.prefect_server import mlflow_page, still_there

EVERY_SECONDS = 1.0
PAUSE_SECONDS = 60.0
TABLES = Path("reports/out/tables/index.md")


class Artifacts:
    """Made soon after the first `show` and updated after each further one, every second at most.

    A thread of its own sends them: no cell waits for the server.
    """

    def __init__(self) -> None:
        self._cells: UUID | None = None
        self._progress: UUID | None = None
        self._sweep: Sweep | None = None
        self._reached = True
        self._news, self._closing = threading.Event(), threading.Event()
        # the flow's context says which run the artifacts belong to
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self._send,), name="artifacts", daemon=True
        )
        self._thread.start()

    def show(self, sweep: Sweep) -> None:
        """Update the table of cells and the progress, soon."""
        self._sweep = sweep
        self._news.set()

    def finish(self) -> None:
        """The last state, and the tables where this sweep made them; waits until they are sent."""
        self._closing.set()
        self._news.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._closing.is_set():
            self._news.wait()
            self._news.clear()
            sweep = self._sweep
            if sweep is not None:
                self._reached = self._try(lambda sweep=sweep: self._update(sweep))  # type: ignore[misc]
                self._closing.wait(EVERY_SECONDS if self._reached else PAUSE_SECONDS)
        if self._sweep is not None and (self._reached or still_there()):
            self._try(self._last)

    def _last(self) -> None:
        sweep = self._sweep
        assert sweep is not None
        self._update(sweep)
        made, tables = sweep.outcomes.get("tables"), sweep.record.root / TABLES
        if made and made.state in ("done", "restored") and tables.is_file():
            text = tables.read_text(encoding="utf-8")
            created(create_markdown_artifact(text, "tables", "The tables"))

    def _update(self, sweep: Sweep) -> None:
        ended = len(sweep.outcomes) - len(sweep.ended("running", "retrying"))
        percent = 100.0 * ended / max(1, len(sweep.to_run))
        table = table_of_cells(sweep)
        if self._cells is None or self._progress is None:
            self._progress = created(
                create_progress_artifact(percent, "progress", "Stages that have ended")
            )
            self._cells = created(create_markdown_artifact(table, "cells", "The stages"))
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


def created(answer: Any) -> UUID:
    """An artifact's number; Prefect's functions are typed as if they might be awaited."""
    assert not asyncio.iscoroutine(answer)
    return answer


def table_of_cells(sweep: Sweep) -> str:
    """A line for each stage that was started, in Markdown."""
    lines = [
        "| stage | state | epoch | loss | seconds | MLflow run |",
        "|---|---|---:|---:|---:|---|",
    ]
    for name in sweep.to_run:
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
    waiting = len(sweep.to_run) - len(sweep.outcomes)
    lines.append(f"\n{waiting} waiting, {sweep.up_to_date} up to date from the start")
    return "\n".join(lines)
